"""Is a call that got no answer made again, and when?

The decisions are values and a generator: it yields what is to be done next (`Send`, `Pause`, `Work`) and is given what
came of it; the shells do it, with or without `await`. Pauses grow exponentially with full jitter.

Source:
    Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), "full jitter":
    sleep = random_between(0, min(cap, base * 2 ** attempt)).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from leaven.client.errors import GatewayUnavailable
from leaven.client.http1 import Broken, Reply, Request
from leaven.client.replies import error_of

# Not now, but perhaps soon. 502 and 504 come from proxies that cannot tell whether the gateway has done it; every
# request here may be done twice.
PASSING = frozenset({408, 425, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the result is a Reply, or Broken. `fresh`: over a new connection."""

    request: Request
    deadline: float  # by the shell's timer
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Call something that may wait for the disk; the result is what it returns."""

    call: Callable[[], Any]


Step = Send | Pause | Work
T = TypeVar("T")
Steps = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt."""

    base: float = 0.05  # seconds
    cap: float = 2.0  # seconds

    def pause(self, attempt: int, *, chance: float, told: float | None = None) -> float:
        """Return the seconds to wait after `attempt` (0 is the first) failed.

        `chance` is in [0, 1). What the server has `told` is the least; the jitter comes on top, so that those who were
        told the same do not come back at once.
        """
        return (told or 0.0) + chance * min(self.cap, self.base * 2.0 ** min(attempt, 60))


@dataclass(frozen=True, slots=True)
class Asking:
    """The terms on which a request is made: how often, for how long, by which clocks and chance."""

    url: str
    retries: int  # attempts after the first
    backoff: Backoff
    timer: Callable[[], float]  # seconds, monotonic
    now: Callable[[], datetime]  # for a Retry-After that names a date
    rng: Callable[[], float]  # uniform in [0, 1)

    def ask(self, request: Request, *, deadline: float) -> Steps[Reply]:
        """Return the first reply that is final.

        Raises:
            GatewayUnavailable: there was none before `deadline`, or in as many attempts as are allowed, or the server
                asks for a longer pause than there is time.
        """
        attempts = 0
        while True:
            outcome = yield from self._send(request, deadline)
            if isinstance(outcome, Reply) and outcome.status not in PASSING:
                return outcome
            told = retry_after(outcome, self.now()) if isinstance(outcome, Reply) else None
            pause = self.backoff.pause(attempts, chance=self.rng(), told=told)
            attempts += 1
            if attempts > self.retries or self.timer() + pause >= deadline:
                raise GatewayUnavailable(self.url, _why(outcome), attempts, told)
            yield Pause(pause)

    def _send(self, request: Request, deadline: float) -> Steps[Reply | Broken]:
        """One attempt. A kept connection that the server had closed meanwhile says nothing about the server."""
        outcome: Reply | Broken = yield Send(request, deadline)
        if isinstance(outcome, Broken) and outcome.stale:
            outcome = yield Send(request, deadline, fresh=True)
        return outcome


def retry_after(reply: Reply, now: datetime) -> float | None:
    """Return the seconds for which the server asks to be left alone: a number or a date; None if it does not say."""
    said = reply.headers.get("retry-after", "").strip()
    if said.isdigit() and said.isascii():
        return float(said[:9])
    if not said:
        return None
    from email.utils import parsedate_to_datetime  # rare, and slow to import

    try:
        then = parsedate_to_datetime(said)
        server = parsedate_to_datetime(reply.headers["date"]) if "date" in reply.headers else now
    except ValueError:
        return None
    aware = [moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in (then, server)]
    return max((aware[0] - aware[1]).total_seconds(), 0.0)


def _why(outcome: Reply | Broken) -> str:
    return outcome.why if isinstance(outcome, Broken) else f"{outcome.status}, {error_of(outcome)}".rstrip(".")
