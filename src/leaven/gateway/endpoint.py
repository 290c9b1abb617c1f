"""How does a server elsewhere answer for an arm, and what becomes of its trouble?

It is asked over kept connections, each question within a time limit. What it does wrong is the arm's failure: the
champion answers those rows, as it does for any other arm. A breaker leaves a server alone that keeps failing, so that
nobody waits for it. Rows are not merged: such servers merge what comes at the same time themselves.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from leaven.endpoints.asking import Asking
from leaven.endpoints.breaker import Breaker, Outcome, Ticket, admit, settle
from leaven.endpoints.failures import EndpointFailed
from leaven.gateway.answering import ArmDown, Asked, Columns
from leaven.gateway.serving import Serving

logger = logging.getLogger(__name__)

_LEFT_ALONE = "left alone"  # the outcome of a question that the breaker did not let through


class EndpointArm:
    """Asks an endpoint for an arm; used by one event loop, but may be made on any thread."""

    def __init__(self, asking: Asking, *, timer: Callable[[], float], clock: Callable[[], int]) -> None:
        """Make an arm of what asks.

        Args:
            asking: Asks the endpoint.
            timer: Seconds that pass, from any start.
            clock: Now, in microseconds since the Unix epoch, as `facts` shows it.
        """
        self.calls: Counter[str] = Counter()  # by outcome: answered, or why not
        self._asking, self._timer, self._clock = asking, timer, clock
        self._breaker = Breaker(asking.endpoint.breaker)

    async def ask(self, columns: Columns, count: int) -> Asked:
        """Return the answers to `count` rows, and the seconds that each took.

        Raises:
            ArmDown: the breaker is open; the endpoint was not asked.
            EndpointFailed: it was, and did not answer.
        """
        began = self._timer()
        self._breaker, ticket = admit(self._breaker, began)
        if ticket is None:
            self.calls[_LEFT_ALONE] += 1
            raise ArmDown(f"the endpoint is left alone since it failed ({self._breaker.why})")
        try:
            answers = await self._asking.answers(columns, count, seconds=self._asking.endpoint.timeout)
        except EndpointFailed as failed:
            self.calls[failed.reason] += 1
            self._settle(ticket, failed.outcome, failed.what)
            raise
        except BaseException:  # nobody waits any more
            self.calls["given up"] += 1
            self._settle(ticket, "void", "")
            raise
        self.calls["answered"] += 1
        self._settle(ticket, "good", "")
        return Asked(answers, (self._timer() - began) / count)

    def close(self) -> None:
        """Close the connections that wait for a request, and keep no more."""
        self._asking.pool.close()

    def facts(self) -> dict[str, Any]:
        """Return how the endpoint is, as JSON-able values."""
        breaker, now = self._breaker, self._timer()
        is_open = breaker.phase != "closed"
        return {
            "url": self._asking.endpoint.url,
            "breaker": "closed" if not is_open else "open" if breaker.phase == "open" else "half-open",
            "open_since": self._clock() - int((now - breaker.since) * 1e6) if is_open else None,
            "asked_again_in": round(max(0.0, breaker.until - now), 3) if breaker.phase == "open" else None,
            "last_failure": breaker.why or None,
            "requests_under_way": self._asking.pool.under_way,
            "requests_waiting": self._asking.pool.waiting,
            "connections_idle": self._asking.pool.idle,
            "requests": dict(self.calls),
        }

    def _settle(self, ticket: Ticket, outcome: Outcome, what: str) -> None:
        before = self._breaker.phase
        self._breaker = settle(self._breaker, ticket, outcome, self._timer(), why=what)
        url = self._asking.endpoint.url
        if before == "closed" and self._breaker.phase == "open":
            logger.error("the endpoint %s is left alone for %g s: it %s", url, self._breaker.pause, what)
        elif before == "trying" and self._breaker.phase == "closed":
            logger.warning("the endpoint %s answers again", url)


def close_endpoints(serving: Mapping[str, Serving]) -> None:
    """Close the connections of all endpoints."""
    for arm in (arm for served in serving.values() for arm in served.models.values()):
        if isinstance(arm, EndpointArm):
            arm.close()


def endpoint_facts(serving: Mapping[str, Serving]) -> list[dict[str, Any]]:
    """Return how each endpoint is that a routing table names, with the loop and version that it answers for."""
    return [
        {"loop": loop, "version": version, **arm.facts()}
        for loop, served in sorted(serving.items())
        for version, arm in sorted(served.models.items())
        if isinstance(arm, EndpointArm)
    ]
