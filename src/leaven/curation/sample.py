"""How many examples of a window does a refresh learn from, and how are they drawn?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY
from datetime import datetime, timedelta
from typing import Literal

from leaven.curation.drawing import FEATURE, TIMES
from leaven.curation.windows import AllHistory, Arms, Both, Data, Part, Recent, Stratum, check_arms
from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.events.labels import Task
from leaven.events.source import Span
from leaven.values import value


@value
class Sample:
    """A number of examples of a window, chosen by a hash of their ids.

    `of` is a window, such as `AllHistory()`, or is written `"before 28d"`: everything older than that.

    - `by` gives equal numbers, as far as there are as many, of each `"month"`, `"week"` or `"day"` (UTC), of each value
      of a feature (`"feature:carrier"`), or of both classes (`"label"`).
    - `half_life` prefers what is newer: a row that is so much older is half as likely to be drawn.
    - `balance` is the share of rows with label 1; there are fewer rows where one class has too few, never another
      share.

    A model that learnt from rows drawn by their label answers with shifted probabilities: classes are as frequent for
    it as in the sample. So `balance` and `by="label"` have to be accepted in so many words, with
    `probabilities="shifted"`; `leaven.curation.unshifted` corrects the answers.

    `arms` as of `Recent`; where the window says it, it need not be said again.
    """

    of: str | Data
    _: KW_ONLY
    rows: int
    by: Stratum | None = None
    arms: Arms = "all"
    half_life: str | None = None
    balance: float | None = None
    probabilities: Literal["kept", "shifted"] = "kept"

    def __post_init__(self) -> None:
        self._check_window()
        check_arms("Sample", self.arms)
        if not isinstance(self.rows, int) or self.rows < 1:
            raise BadDefinition("Sample(rows=…)", f"{self.rows!r} is no number of rows", "Give 1 or more.")
        _check_stratum(self.by)
        if self.half_life is not None:
            duration(self.half_life, where="Sample(half_life=…)")
        self._check_classes()

    def _check_window(self) -> None:
        if isinstance(self.of, str):
            self._age()
        elif not isinstance(self.of, Recent | AllHistory):
            what = f"{self.of!r} is no single window"
            raise BadDefinition("Sample(…)", what, 'Sample "before 28d", Recent("90d") or AllHistory(); add with +.')
        elif self.arms not in ("all", self.of.arms) and self.of.arms != "all":
            what = f"arms={self.arms!r} is asked of {self.of!r}"
            raise BadDefinition("Sample(…)", what, "Say it once.")

    def _check_classes(self) -> None:
        if self.balance is not None and not (isinstance(self.balance, int | float) and 0 < self.balance < 1):
            raise BadDefinition(
                "Sample(balance=…)", f"{self.balance!r} is no share", "Give one in (0, 1), such as 0.5."
            )
        if self.balance is not None and self.by == "label":
            raise BadDefinition("Sample(…)", 'both by="label" and balance= choose by the label', "Keep one of them.")
        if self.probabilities not in ("kept", "shifted"):
            what = f"{self.probabilities!r} says nothing of probabilities"
            raise BadDefinition("Sample(probabilities=…)", what, 'Use "kept" or "shifted".')
        if self.shifts_probabilities and self.probabilities == "kept":
            what = "rows drawn by their label shift the probabilities that a model answers with"
            mend = 'Accept that with probabilities="shifted" and correct them (leaven.curation.unshifted), or leave it.'
            raise BadDefinition("Sample(…)", what, mend)
        if self.probabilities == "shifted" and not self.shifts_probabilities:
            raise BadDefinition("Sample(probabilities=…)", "nothing shifts them here", "Leave it out.")

    @property
    def shifts_probabilities(self) -> bool:
        """Whether rows are drawn by their label."""
        return self.balance is not None or self.by == "label"

    def _age(self) -> timedelta:
        if not isinstance(self.of, str) or not self.of.startswith("before "):
            raise BadDefinition("Sample(…)", f"{self.of!r} names no stretch", 'Write it as "before 28d".')
        return duration(self.of.removeprefix("before "), where="Sample(…)")

    def check_fits(self, *, features: Collection[str], task: Task, where: str) -> None:
        """Refuse a feature that the loop does not have, and classes where its label has none."""
        named = self.by.removeprefix(FEATURE) if self.by is not None and self.by.startswith(FEATURE) else None
        if named is not None and named not in features:
            raise BadDefinition(where, f"{self!r} names no feature", f"Use one of {', '.join(features)}.")
        if self.shifts_probabilities and task != "binary":
            raise BadDefinition(where, f"{self!r} does not fit a {task} label", "Sample by time or a feature.")

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the one stretch of the window, with how it is sampled."""
        drawn = (self.rows, self.by)
        life = None if self.half_life is None else duration(self.half_life)
        if isinstance(self.of, str):
            end = until - self._age()
            return [Part(Span(first, end), *drawn, self.arms, life, self.balance)] if first < end else []
        windows = self.of.parts(until=until, first=first)
        arms = [self.arms if window.arms == "all" else window.arms for window in windows]
        return [Part(w.span, *drawn, arm, life, self.balance) for w, arm in zip(windows, arms, strict=True)]

    def __add__(self, other: Data) -> Data:
        return Both(self, other)


def _check_stratum(by: object) -> None:
    if by is None or by == "label" or (isinstance(by, str) and by in TIMES):
        return
    if not isinstance(by, str) or not by.startswith(FEATURE) or by == FEATURE:
        told = 'Use "month", "week", "day", "label" or "feature:NAME".'
        raise BadDefinition("Sample(by=…)", f"{by!r} is no stratum", told)
