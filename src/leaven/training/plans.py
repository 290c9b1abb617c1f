"""Does a refresh start from scratch, or from the champion?

A plan looks at what became of the loop so far and answers with a mode and a reason, which is kept with the version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.stats.intervals import Interval
from leaven.values import value

Mode = Literal["fit", "update"]
ReplayLabels = Literal["stored", "model"]
GrowBy = Literal["surgery", "residual"]
RebuildOn = Literal["schema", "gap", "size"]
_REBUILD_ON: tuple[RebuildOn, ...] = ("schema", "gap", "size")
_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


class PlanHistory(msgspec.Struct, frozen=True):
    """What became of a loop's versions until `now`, as far as a plan asks."""

    now: datetime
    has_parent: bool  # a champion that was trained here: one that could be continued
    rebuilt_at: datetime | None = None  # as of when the model that the champion goes back to was fitted from scratch
    updates: int = 0  # of that model until the champion
    uncompared: int = 0  # updates of the loop since one was last compared with a model from scratch
    changed: str = ""  # in what the loop no longer fits the champion, in words: its features, or the kind of model
    grows: bool = False  # whether the learner can give the champion the features that came
    corrects: bool = False  # whether the learner can start from the answers of the champion, kept whole
    barred: str = ""  # why it cannot, in words
    teacher: int | None = None  # the version whose answers are to be learnt from, where the plan names one
    model_bytes: int = 0  # of the champion's files
    gap: Interval | None = None  # last measured since the rebuild: what an updated model loses more, as a share


class Choice(msgspec.Struct, frozen=True):
    """How the next version is made, and why so."""

    mode: Mode
    why: str
    replay: float = 0.0  # older rows shown again, as a share of the new ones
    replay_labels: ReplayLabels = "stored"
    compare: bool = False  # fit a model from scratch as well, and measure the gap
    take_above: float | None = None  # take the one from scratch where the gap is shown to be more than this share
    grow_by: GrowBy | None = None  # how a champion that the loop no longer fits is gone on from
    distil: float = 0.0  # weight of the teacher's answers in the labels


class Plan(Protocol):
    """Chooses how the next version is made."""

    def choose(self, history: PlanHistory) -> Choice:
        """Return `fit` (from scratch, on the loop's data) or `update` (the champion, on what matured since), and why.

        Raises:
            CannotLearn: the champion cannot be continued, and this plan does nothing else.
        """
        ...


@value
class Stateless:
    """Every version is fitted from scratch on the loop's data."""

    def choose(self, history: PlanHistory) -> Choice:
        """Return `fit`, always."""
        return Choice("fit", "every version is fitted from scratch")


@value
class Stateful:
    """Every version continues the champion on the examples that matured since the champion's snapshot, each used once.

    Nothing older is read to train. So raw data that was learnt need not be kept, at a price: without it there is no
    rebuild, no comparison with a model from scratch, no gate on the past, and `leaven reproduce` cannot train again.

    Args:
        replay: Older examples that are shown again with the new ones, as a share of these: 1.0 is as many again. They
            are drawn evenly from the months before. They need to be kept.
        replay_labels: By what older examples are labelled: `"stored"` labels, or the answers of the `"model"` that is
            continued, so that only the features of the past need to be kept. For a binary label, the learner must take
            labels between 0 and 1.
        grow_by: How a champion that the loop no longer fits is gone on from: by `"surgery"` it is given the features
            that came; as a `"residual"` it is kept whole, whatever learner made it, and a model of the loop's learner
            starts from its answers (XGBoost and LightGBM can).
    """

    _: KW_ONLY
    replay: float = 0.0
    replay_labels: ReplayLabels = "stored"
    grow_by: GrowBy = "surgery"

    def __post_init__(self) -> None:
        _check_replay("Stateful", self.replay, self.replay_labels)
        _check_grow_by("Stateful", self.grow_by)

    def choose(self, history: PlanHistory) -> Choice:
        """Return `update` once there is a champion to go on from; the first version is fitted."""
        if not history.has_parent:
            return _FIRST
        _check_continues("Stateful", history, self.grow_by)
        why, grow_by = _onwards(history, self.grow_by), _way(history, self.grow_by)
        return Choice("update", why, self.replay, self.replay_labels, grow_by=grow_by)


@value
class Hybrid:
    """Versions continue the champion, and from time to time one is fitted from scratch on the loop's data.

    Args:
        update: How often: in a loop without triggers it stands for the trigger `Every(update)`. Where the loop has
            triggers, they alone decide when.
        rebuild: Time after which a version is fitted from scratch; None: only on the occasions of `rebuild_on`. One
            that is refused by its gates is tried again at the next refresh.
        rebuild_on: Occasions to fit from scratch before that: the loop's `"schema"` no longer fits the champion
            (features, their types or order, or the kind of model), the `"gap"` to a model from scratch is shown to be
            more than `gap`, the model's `"size"` is more than `size`.
        compare_every: Each so many updates, a model from scratch is fitted as well, both answer the fresh holdout, and
            the gap is kept in the lineage; None: never. With `"gap"`, the one from scratch is taken where the gap's
            95 % interval lies above `gap`.
        gap: Share of the loss of a model from scratch by which an updated one may lose more.
        size: Of the model's files: `"50MB"`; kB, MB and GB are known.
        replay: As of `Stateful`.
        replay_labels: As of `Stateful`.
        grow_by: As of `Stateful`, where `rebuild_on` has no `"schema"`. A champion that can no more be the start of a
            `"residual"` is an occasion to fit from scratch.
    """

    _: KW_ONLY
    update: str | None = None
    rebuild: str | None = "7d"
    rebuild_on: Sequence[RebuildOn] | RebuildOn = _REBUILD_ON
    compare_every: int | None = 10
    gap: float = 0.02
    size: str = "50MB"
    replay: float = 0.0
    replay_labels: ReplayLabels = "stored"
    grow_by: GrowBy = "surgery"

    def __post_init__(self) -> None:
        given = self.rebuild_on
        object.__setattr__(self, "rebuild_on", (given,) if isinstance(given, str) else tuple(given))
        _check_grow_by("Hybrid", self.grow_by)
        if self.grow_by != "surgery" and "schema" in self.rebuild_on:
            what = f"grow_by={self.grow_by!r} has no occasion, as rebuild_on has the schema"
            raise BadDefinition("Hybrid", what, 'Write rebuild_on=["gap", "size"] with it, or leave grow_by out.')
        for name in ("update", "rebuild"):
            if getattr(self, name) is not None:
                duration(getattr(self, name), where=f"Hybrid({name}=…)")
        strange = [each for each in self.rebuild_on if each not in _REBUILD_ON]
        if strange:
            known = ", ".join(f'"{each}"' for each in _REBUILD_ON)
            raise BadDefinition("Hybrid(rebuild_on=…)", f"{strange[0]!r} is no occasion", f"Use some of {known}.")
        if self.rebuild is None and not self.rebuild_on:
            raise BadDefinition("Hybrid", "it never fits from scratch", "Give rebuild or rebuild_on, or use Stateful.")
        every = self.compare_every
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise BadDefinition("Hybrid(compare_every=…)", f"{every!r} is no count", "Give 1 or more, or None.")
        if not self.gap >= 0:
            raise BadDefinition("Hybrid(gap=…)", f"{self.gap!r} is no share", "Give 0 or more, such as 0.02.")
        _bytes(self.size)
        _check_replay("Hybrid", self.replay, self.replay_labels)

    def choose(self, history: PlanHistory) -> Choice:
        """Return `fit` where there is nothing to go on from or a rebuild is due, else `update`."""
        if not history.has_parent:
            return _FIRST
        why = self._rebuilds(history)
        if why is not None:
            return Choice("fit", why)
        _check_continues("Hybrid", history, self.grow_by)
        compare = self.compare_every is not None and history.uncompared + 1 >= self.compare_every
        beside = f", compared with one from scratch, as every {self.compare_every} updates" if compare else ""
        above = self.gap if compare and "gap" in self.rebuild_on else None
        why, grow_by = _onwards(history, self.grow_by) + beside, _way(history, self.grow_by)
        return Choice("update", why, self.replay, self.replay_labels, compare, above, grow_by)

    def _rebuilds(self, history: PlanHistory) -> str | None:
        """Why a version is fitted from scratch now, or None."""
        if "schema" in self.rebuild_on and history.changed:
            other = ' (it would be grown if rebuild_on had no "schema")' if history.grows else ""
            return f"rebuilt, as {history.changed} since the champion{other}"
        if self.grow_by == "residual" and history.changed and not history.corrects:
            return f"rebuilt, as {history.changed} since the champion, which cannot be corrected: {history.barred}"
        since = history.rebuilt_at
        if self.rebuild is not None and since is None:
            return "rebuilt, as it is not known when the champion's line was last fitted from scratch"
        if self.rebuild is not None and since is not None and history.now - since >= duration(self.rebuild):
            return f"rebuilt, as {self.rebuild} have passed since {since:%Y-%m-%d %H:%M} UTC"
        if "gap" in self.rebuild_on and history.gap is not None and history.gap.low > self.gap:
            return (
                f"rebuilt, as an updated model was shown to lose {history.gap.estimate:.1%} "
                f"[{history.gap.low:.1%}, {history.gap.high:.1%}] more than one from scratch, above {self.gap:.1%}"
            )
        if "size" in self.rebuild_on and history.model_bytes > _bytes(self.size):
            return f"rebuilt, as the champion's files hold {history.model_bytes:,} bytes, more than {self.size}"
        return None


def check_plan(plan: object, learner: object, *, task: str, where: str) -> None:
    """Refuse a plan that this learner cannot carry out.

    Raises:
        BadDefinition: rows of a binary label are to be labelled by a model's answers, which lie between 0 and 1, and
            the learner does not say (`soft_labels`) that it takes such labels; or the answers of a teacher are to be
            learnt from for a label of another kind than those two.
    """
    from leaven.training.distilling import Distill

    if isinstance(plan, Distill) and task not in ("binary", "regression"):
        what = f"{plan!r} learns from one answer per row, and a {task} label has several"
        raise BadDefinition(where, what, "Use plan=Stateless(), Stateful() or Hybrid().")
    soft = getattr(plan, "replay", 0.0) > 0 and getattr(plan, "replay_labels", "stored") == "model"
    if soft and task == "multiclass":
        what = f"{plan!r} labels older rows by the model's answers, which are probabilities of several classes"
        raise BadDefinition(where, what, 'Use replay_labels="stored".')
    if not (soft or isinstance(plan, Distill)) or task != "binary" or getattr(learner, "soft_labels", False):
        return
    name = type(learner).__name__
    if soft:
        what = f"{plan!r} labels older rows by answers between 0 and 1, and {name} takes 0 or 1 only"
        raise BadDefinition(where, what, 'Use replay_labels="stored", or a learner whose `soft_labels` is True.')
    what = f"{plan!r} labels rows by answers between 0 and 1, and {name} takes 0 or 1 only"
    raise BadDefinition(where, what, "Use a learner whose `soft_labels` is True, such as XGBoost.")


_FIRST = Choice("fit", "there is no version to go on from")


def _onwards(history: PlanHistory, grow_by: GrowBy) -> str:
    since = "" if history.rebuilt_at is None else f" since it was fitted on {history.rebuilt_at:%Y-%m-%d %H:%M} UTC"
    grown = ""
    if history.changed:
        how = "is grown first" if grow_by == "surgery" else "is kept whole and corrected by a model beside it"
        grown = f", and {how}, as {history.changed}"
    return f"goes on from the champion, update {history.updates + 1}{since}{grown}"


def _way(history: PlanHistory, grow_by: GrowBy) -> GrowBy | None:
    return grow_by if history.changed else None


def _check_continues(plan: str, history: PlanHistory, grow_by: GrowBy) -> None:
    if not history.changed or (history.grows if grow_by == "surgery" else history.corrects):
        return
    from leaven.training.learner import CannotLearn

    can = ""
    if grow_by == "residual":
        can = f", and cannot: {history.barred}"
    elif history.corrects:
        can = ", and it cannot be grown"
    ways = [
        *([f'plan={plan}(grow_by="residual"), which keeps it whole and corrects it'] if history.corrects else []),
        *(["plan=Stateful(), which grows it"] if history.grows else []),
        'plan=Hybrid(), which rebuilds on such changes (rebuild_on=["schema"])',
        "plan=Stateless() until a version that was made anew serves",
    ]
    raise CannotLearn(
        plan,
        f"{history.changed} since the champion, which the next version would continue{can}",
        f"Use {', or '.join(ways)}.",
    )


def _check_grow_by(plan: str, given: object) -> None:
    if given not in ("surgery", "residual"):
        raise BadDefinition(f"{plan}(grow_by=…)", f"{given!r} is no way to grow", 'Use "surgery" or "residual".')


def _check_replay(plan: str, share: Any, labels: object) -> None:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < float("inf"):
        raise BadDefinition(f"{plan}(replay=…)", f"{share!r} is no share", "Give 0 or more: 1.0 is one old per new.")
    if labels not in ("stored", "model"):
        raise BadDefinition(f"{plan}(replay_labels=…)", f"{labels!r} labels nothing", 'Use "stored" or "model".')


def _bytes(text: str) -> int:
    """How many bytes "50MB" are."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kB|MB|GB)", text) if isinstance(text, str) else None
    if found is None:
        raise BadDefinition("Hybrid(size=…)", f"{text!r} is no size", 'Write a number and kB, MB or GB, as "50MB".')
    return int(float(found[1]) * _BYTES[found[2]])
