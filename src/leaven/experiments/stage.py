"""What is a stage of a rollout, and what does it have to go by?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from leaven.events.columns import Column, Examples, Pairs
from leaven.events.labels import LabelRule
from leaven.events.source import ExampleSource, Span
from leaven.experiments.evidence import Evidence
from leaven.experiments.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a stage: what it routes, for how long at least and at most."""

    kind: Literal["shadow", "canary", "wait", "watch"]  # what it routes; `wait` routes nothing
    share: float  # of the units: shadowed, served by the canary, or left with the old champion
    at_least: timedelta
    at_most: timedelta
    holds: bool = False  # it routes what the step before it does: `steps_of` fills in kind and share

    @property
    def serves(self) -> bool:
        """Whether some units depend on the challenger's answers."""
        return self.kind not in ("shadow", "wait")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a step has seen so far: the log from its beginning until now."""

    source: ExampleSource
    label: LabelRule
    since: datetime  # when the step began
    now: datetime
    champion: str  # versions
    challenger: str
    metric: Any  # what is compared: the stage's own, or the task's loss
    opened: datetime | None = None  # when the trial began, before any of its steps; None stands for `since`
    answer: Callable[[str, Mapping[str, Column]], Column] | None = None  # of a version, to the features of some rows

    def served(self) -> Examples:
        """Return what champion and challenger answered, with labels as of now."""
        examples = self.source.examples(Span(self.since, self.now), self.label, as_of=self.now)
        version = examples.predictions.version  # late rows of a trial that has just ended are none of this one's
        return examples.take((version == self.challenger) | (version == self.champion))

    def exposed(self) -> int:
        """Return how many units the canary has answered since the trial began."""
        begun = self.since if self.opened is None else self.opened
        served = self.source.examples(Span(begun, self.now), self.label, as_of=self.now).predictions
        return len(set(served.unit[(served.version == self.challenger) & (served.arm == "canary")].tolist()))

    def shadowed(self) -> Pairs:
        """Return the live answers that the challenger shadowed, with labels as of now."""
        return self.source.pairs(Span(self.since, self.now), self.challenger, self.label, as_of=self.now)


class Stage(Protocol):
    """A stage of a rollout: one or more steps, the evidence that each is judged by, and the rule."""

    @property
    def metric(self) -> Any:
        """What is compared: a loss by name, or a metric of the stage's own; None stands for the task's own loss."""
        ...

    @property
    def evidence(self) -> type[Any]:
        """What `observe` returns: a frozen struct of numbers that add up."""
        ...

    def steps(self) -> tuple[Step, ...]:
        """Return the steps, in order."""
        ...

    def observe(self, step: Step, traffic: Traffic, before: Evidence | None) -> Evidence:
        """Return the evidence of a step as of now.

        Args:
            step: One of `steps`.
            traffic: The log that it can be made from.
            before: What an earlier look at this step returned, to go on from; None makes it from the log alone, and
                gives the same.
        """
        ...

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return the verdict on a step after `elapsed`; `look` is the number of this look, from 1."""
        ...
