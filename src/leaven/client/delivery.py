"""How does spooled feedback reach the gateway, in order, and past what the gateway will never take?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from leaven.client.errors import GatewayUnavailable, Refused
from leaven.client.http1 import Reply
from leaven.client.replies import error_of
from leaven.client.requests import SentReport, feedback_request, parts_of
from leaven.client.retries import Asking, Pause, Steps, Work
from leaven.client.spool import FinishedFile, Spool
from leaven.client.spool_format import SetAside, SpoolContent
from leaven.errors import LeavenError

logger = logging.getLogger(__name__)

# It is the report that is wrong. Anything else (a token, a proxy, a fault of the gateway) may be mended meanwhile.
POISON = frozenset({400, 413, 422})
_LOOK_AGAIN = 0.05  # seconds, while another process delivers


@dataclass(frozen=True, slots=True)
class Delivery:
    """Empties a spool into a gateway."""

    spool: Spool
    asking: Asking
    timeout: float  # seconds for one request

    def deliver(self) -> Steps[bool]:
        """Deliver everything; False where another process is at it.

        Raises:
            GatewayUnavailable, Refused: the gateway takes nothing now; what was not delivered stays.
        """
        with self.spool.delivering() as mine:
            while mine and (files := (yield Work(self.spool.finish))):
                for file in files:
                    yield from self._deliver_file(file)
        return mine

    def deliver_before(self, deadline: float) -> Steps[None]:
        """Deliver everything, by this process or another.

        Raises:
            GatewayUnavailable, Refused: as `deliver`, or something is left at the deadline.
        """
        while True:
            yield from self.deliver()
            if not self.spool.waiting():
                return
            if self.asking.timer() >= deadline:
                raise GatewayUnavailable(self.asking.url, f"{self.spool.count()} reports are still in the spool", 1)
            yield Pause(_LOOK_AGAIN)

    def _deliver_file(self, file: FinishedFile) -> Steps[None]:
        content: SpoolContent = yield Work(lambda: self.spool.read(file))
        set_aside = [SetAside("damaged: this is no line of a spool", None, _text(line)) for line in content.damaged]
        for part in parts_of(content.reports):
            set_aside += yield from self._deliver_part(part)
        yield Work(lambda: self.spool.delivered(file, set_aside))

    def _deliver_part(self, reports: Sequence[SentReport]) -> Steps[list[SetAside]]:
        """Deliver `reports`; the gateway takes all or none, so a refusal is halved until it is one report's own."""
        deadline = self.asking.timer() + self.timeout
        reply: Reply = yield from self.asking.ask(feedback_request(reports), deadline=deadline)
        if reply.status == 200:
            return []
        if reply.status not in POISON:
            raise Refused(reply.status, error_of(reply))
        if len(reports) == 1:
            return [SetAside(error_of(reply), reply.status, reports[0])]
        middle = len(reports) // 2
        first = yield from self._deliver_part(reports[:middle])
        return first + (yield from self._deliver_part(reports[middle:]))


class Troubles:
    """Why a spool is not being delivered: counted, and logged where it begins, changes, and ends."""

    def __init__(self) -> None:
        """Begin without any."""
        self._count, self._said = 0, ""

    def one(self, error: LeavenError) -> int:
        """Note one more; return how many there were in a row before it."""
        if str(error) != self._said:
            logger.warning("spooled feedback waits: %s", error)
        self._count, self._said = self._count + 1, str(error)
        return self._count - 1

    def none(self) -> None:
        """Note that it went well."""
        if self._count:
            logger.info("spooled feedback is being delivered again")
        self._count, self._said = 0, ""


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")
