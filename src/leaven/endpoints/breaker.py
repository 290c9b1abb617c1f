"""When is a server that fails left alone, and when is it asked again?

Values in, values out: whoever asks carries the state, and says what time it is. Closed, everything is asked. After
enough failures the breaker opens: nothing is asked for a pause. Then one question is let through; if it is answered
the breaker closes, if not the pause doubles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from leaven.errors import BadDefinition

Phase = Literal["closed", "open", "trying"]
Outcome = Literal["good", "bad", "void"]  # void: nothing is known, as when the caller gave up

_SLOTS = 10  # that a window is counted in


class BreakerRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a breaker opens, and for how long.

    Args:
        failures: In a row, after which it opens.
        rate: Of failures among the questions of the last `window`, from which on it opens; 1 needs all of them.
        least: Questions in the window, below which the rate says nothing.
        window: Seconds.
        pause: Seconds that it stays open at first; doubled with each question in between that failed as well.
        longest: Seconds that it stays open at most.

    Raises:
        BadDefinition: a number is out of its range.
    """

    failures: int = 5
    rate: float = 0.5
    least: int = 20
    window: float = 10.0
    pause: float = 1.0
    longest: float = 30.0

    def __post_init__(self) -> None:
        right = self.failures >= 1 and 0 < self.rate <= 1 and self.least >= 1 and self.window > 0
        if not right or not 0 < self.pause <= self.longest <= 3600:
            raise BadDefinition("breaker", f"{self!r} is no rule", "Give failures and least from 1, rate above 0 to 1, "
                                "window and pause above 0, longest not below pause nor above 3600.")  # fmt: skip


class Ticket(msgspec.Struct, frozen=True):
    """Leave to ask; handed back with what came of it."""

    turn: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """Where a breaker stands. Times are seconds of one clock that never goes back."""

    rule: BreakerRule
    phase: Phase = "closed"
    since: float = 0.0  # of the phase; "trying" goes on from "open"
    until: float = 0.0  # while open: when one question is let through
    pause: float = 0.0  # that it was opened for last
    turn: int = 0  # counts changes of phase, so that what was asked before one says nothing after it
    in_a_row: int = 0  # failures
    recent: tuple[tuple[int, int, int], ...] = ()  # slot of time, questions and failures in it; oldest first
    why: str = ""  # the last failure


def admit(breaker: Breaker, now: float) -> tuple[Breaker, Ticket | None]:
    """Return leave to ask at `now`, or None, and the breaker as it is then."""
    if breaker.phase == "closed":
        return breaker, Ticket(breaker.turn)
    if breaker.phase == "open" and now >= breaker.until:
        trying = replace(breaker, phase="trying", turn=breaker.turn + 1)
        return trying, Ticket(trying.turn)
    return breaker, None


def settle(breaker: Breaker, ticket: Ticket, outcome: Outcome, now: float, *, why: str = "") -> Breaker:
    """Return the breaker after a question that was let through came to its end; `why` is told of a failure."""
    if ticket.turn != breaker.turn:  # asked in another phase
        return breaker
    if breaker.phase == "trying":
        return _tried(breaker, outcome, now, why)
    if outcome == "void":
        return breaker
    recent = _counted(breaker, now, failed=outcome == "bad")
    if outcome == "good":
        return replace(breaker, in_a_row=0, recent=recent)
    counted = replace(breaker, in_a_row=breaker.in_a_row + 1, recent=recent, why=why)
    return _opened(counted, now, breaker.rule.pause) if _is_enough(counted) else counted


def _tried(breaker: Breaker, outcome: Outcome, now: float, why: str) -> Breaker:
    """What the one question that was let through means."""
    if outcome == "good":
        return Breaker(breaker.rule, since=now, turn=breaker.turn + 1)
    if outcome == "void":  # the next one may try
        return replace(breaker, phase="open", turn=breaker.turn + 1)
    again = _opened(breaker, now, min(breaker.pause * 2, breaker.rule.longest))
    return replace(again, since=breaker.since, why=why)


def _opened(breaker: Breaker, now: float, pause: float) -> Breaker:
    return replace(
        breaker, phase="open", since=now, until=now + pause, pause=pause, turn=breaker.turn + 1, in_a_row=0, recent=()
    )  # fmt: skip


def _is_enough(breaker: Breaker) -> bool:
    """Whether the failures so far open it."""
    rule = breaker.rule
    if breaker.in_a_row >= rule.failures:
        return True
    questions = sum(asked for _, asked, _ in breaker.recent)
    failures = sum(failed for _, _, failed in breaker.recent)
    return questions >= rule.least and failures >= rule.rate * questions


def _counted(breaker: Breaker, now: float, *, failed: bool) -> tuple[tuple[int, int, int], ...]:
    """The window's counts with one question more."""
    slot = int(now / breaker.rule.window * _SLOTS)
    recent = breaker.recent
    if recent and recent[-1][0] == slot:
        _, questions, failures = recent[-1]
        return (*recent[:-1], (slot, questions + 1, failures + failed))
    return (*(entry for entry in recent if entry[0] > slot - _SLOTS), (slot, 1, int(failed)))
