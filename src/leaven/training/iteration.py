"""Has changing the model paid more, or training the same model on newer data?

Every refresh that met a champion at its gates measured how much less the challenger lost on the same held-out rows.
Grouped by what had changed since the champion, these gains tell which of the two is worth the next hour. All
challengers count, whatever became of them: those that were promoted were chosen for their gain, so theirs alone would
say too much.

A refresh with another definition has newer data too. What the change of definition itself added is its gain less that
of newer data alone, as far as both found champions of about the same age.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from leaven.stats.intervals import Interval
from leaven.stats.pooling import Pooled, difference, pooled

Kind = Literal["data", "model", "curation"]
KINDS: tuple[Kind, ...] = ("data", "model", "curation")
LEAST = 3  # measured refreshes of a kind, before it is spoken of: fewer tell nothing of how they differ
ALPHA = 0.05

_MODEL_PARTS = ("features", "learner", "parameters")
_CURATION_PARTS = ("data", "plan", "seed", "holdout")

Verdict = Literal["model", "data", "no difference shown", "not enough evidence"]


class Tried(msgspec.Struct, frozen=True):
    """One challenger at its gates, against the champion of then, on the same fresh rows."""

    version: int
    against: int  # the champion of then
    changed: tuple[str, ...]  # parts of the definition that are not as they were for that champion
    gain: float  # by how much less it lost, mean per unit; above 0 it is better
    error: float  # standard error of that
    champion_loss: float
    cpu_seconds: float
    promoted: bool

    @property
    def kind(self) -> Kind:
        """What was tried: newer data, another model, or other rows of the data."""
        if set(self.changed) & set(_MODEL_PARTS):
            return "model"
        return "curation" if set(self.changed) & set(_CURATION_PARTS) else "data"


class Paid(msgspec.Struct, frozen=True):
    """What the refreshes of one kind, or of one changed part, have gained and cost."""

    tried: int
    promoted: int
    gain: Interval | None  # mean per refresh, of all that were tried; None of none
    share: float | None  # the same as a share of what the champions lost
    between: float | None  # standard deviation among them, beyond the error of each
    cpu_seconds: float  # mean per refresh
    seconds_per_share: float | None  # CPU seconds for each hundredth of the loss; None where no gain is shown
    seconds_range: tuple[float, float] | None  # at the ends of the gain's interval
    gain_of_promoted: float | None  # biased: they were chosen for it


class Iterated(msgspec.Struct, frozen=True):
    """What past refreshes say; `difference` is model less data."""

    metric: str
    kinds: dict[str, Paid]
    parts: dict[str, Paid]  # by what changed; one that changed two counts in both
    difference: Interval | None
    verdict: Verdict
    why: str
    tried: tuple[Tried, ...]
    unmeasured: dict[str, int]  # why a version could not be counted -> how many


def judge_iterations(tried: Sequence[Tried], *, metric: str, unmeasured: dict[str, int]) -> Iterated:
    """Return which kind of refresh has paid more, by the 95 % interval of the difference of their mean gains.

    Args:
        tried: Every challenger that was measured against a champion, oldest first.
        metric: The loss that the gains are of.
        unmeasured: How many versions could not be counted, by why.
    """
    by_kind: dict[str, list[Tried]] = {kind: [one for one in tried if one.kind == kind] for kind in KINDS}
    parts = {part: [one for one in tried if part in one.changed] for part in (*_MODEL_PARTS, *_CURATION_PARTS)}
    model, data = _pool(by_kind["model"]), _pool(by_kind["data"])
    apart = difference(model, data, alpha=ALPHA) if model is not None and data is not None else None
    verdict, why = _verdict(by_kind, apart, metric)
    return Iterated(
        metric, {kind: _paid(found) for kind, found in by_kind.items()},
        {part: _paid(found) for part, found in parts.items() if found}, apart, verdict, why, tuple(tried), unmeasured,
    )  # fmt: skip


def _verdict(by_kind: dict[str, list[Tried]], apart: Interval | None, metric: str) -> tuple[Verdict, str]:
    few = [
        f"{len(by_kind[kind])} of {named}"
        for kind, named in (("model", "another model"), ("data", "the same model on newer data"))
        if len(by_kind[kind]) < LEAST
    ]
    if few or apart is None:
        return "not enough evidence", f"it takes {LEAST} measured refreshes of each kind; there are {' and '.join(few)}"
    told = f"{apart.estimate:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"
    if apart.low > 0:
        return "model", f"changing the model gained {told} {metric} per refresh more than newer data alone"
    if apart.high < 0:
        return "data", f"newer data alone gained more {metric} per refresh than a changed model: {told} for the change"
    return "no difference shown", (
        f"a changed model gained {told} {metric} per refresh more than newer data alone: it may be either way"
    )


def _pool(found: Sequence[Tried]) -> Pooled | None:
    """The random-effects mean of the gains; one that hardly differs in any row must not outweigh all others."""
    errors = np.array([one.error for one in found])
    least = max(float(np.median(errors)) / 10, 1e-12) if len(found) else 0.0
    return pooled([one.gain for one in found], np.maximum(errors, least))


def _paid(found: Sequence[Tried]) -> Paid:
    together = _pool(found)
    if together is None:
        return Paid(0, 0, None, None, None, 0.0, None, None, None)
    gain = together.interval(alpha=ALPHA)
    loss = sum(one.champion_loss for one in found) / len(found)
    cpu = sum(one.cpu_seconds for one in found) / len(found)
    promoted = [one for one in found if one.promoted]
    chosen = _pool(promoted)
    shown = loss > 0 and len(found) >= LEAST and gain.low > 0
    each = [cpu * loss / 100 / bound for bound in (gain.estimate, gain.high, gain.low)] if shown else None
    return Paid(
        len(found), len(promoted), gain, gain.estimate / loss if loss > 0 else None, together.between, cpu,
        None if each is None else each[0], None if each is None else (each[1], each[2]),
        None if chosen is None else chosen.mean,
    )  # fmt: skip
