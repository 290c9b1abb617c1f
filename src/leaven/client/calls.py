"""What is a call of the client: which requests, which answers, what is kept for later?

Each call is a generator of steps that a shell carries out, so that `Client` and `AsyncClient` cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from leaven.client.errors import GatewayUnavailable
from leaven.client.http1 import Reply
from leaven.client.replies import Assignment, Prediction, check, error_of, read_assignment, read_predictions
from leaven.client.requests import (
    Report,
    SentReport,
    assign_request,
    feedback_request,
    parts_of,
    predict_requests,
    sent_report,
)
from leaven.client.retries import Asking, Steps, Work
from leaven.duration import micros

if TYPE_CHECKING:
    from leaven.client.delivery import Delivery
    from leaven.client.spool import Spool


@dataclass(frozen=True, slots=True)
class Calls:
    """What can be asked of a gateway and told to it; deadlines are by the timer of `asking`."""

    asking: Asking
    new_id: Callable[[], str]
    spool: Spool | None
    delivery: Delivery | None

    def predict(
        self, loop: str, row: Mapping[str, Any], unit: str | None, key: str | None, end: float
    ) -> Steps[Prediction]:
        """Return the prediction for one row."""
        (prediction,) = yield from self.predict_many(loop, [row], [unit], key, end)
        return prediction

    def predict_many(
        self,
        loop: str,
        rows: Sequence[Mapping[str, Any]],
        units: Sequence[str | None] | None,
        key: str | None,
        end: float,
    ) -> Steps[list[Prediction]]:
        """Return the predictions for `rows`, in order; for none, without asking."""
        predictions: list[Prediction] = []
        for request, count in predict_requests(loop, rows, units, self.new_id() if key is None else key):
            reply: Reply = yield from self.asking.ask(request, deadline=end)
            predictions += read_predictions(reply, url=self.asking.url, rows=count)
        return predictions

    def assign(
        self, loop: str, unit: str, context: Mapping[str, Any] | None, expose: bool, end: float
    ) -> Steps[Assignment]:
        """Return the arm of `unit`."""
        reply: Reply = yield from self.asking.ask(
            assign_request(loop, unit, context=context, expose=expose), deadline=end
        )
        return read_assignment(reply, url=self.asking.url)

    def feedback(self, loop: str, reports: Iterable[Report], end: float) -> Steps[list[str]]:
        """Return the ids of `reports`, all of which the gateway has acknowledged or the spool has kept, in order."""
        sent = [
            sent_report(loop, report, where=f"reports[{index}]", fresh_id=self.new_id())
            for index, report in enumerate(reports)
        ]
        # All are written before the first is sent: what cannot be written is refused before anything has happened.
        parts = [(part, feedback_request(part)) for part in parts_of(sent)]
        for index, (_, request) in enumerate(parts):
            if self.spool is not None and self.spool.waiting():
                yield from self._keep(self.spool, [report for part, _ in parts[index:] for report in part])
                break
            try:
                reply: Reply = yield from self.asking.ask(request, deadline=end)
                if reply.status >= 500:
                    raise GatewayUnavailable(self.asking.url, f"{reply.status}, {error_of(reply)}", 1)
            except GatewayUnavailable:
                if self.spool is None:
                    raise
                yield from self._keep(self.spool, [report for part, _ in parts[index:] for report in part])
                break
            check(reply)
        return [report.id for report in sent]

    def flush(self, end: float) -> Steps[None]:
        """Deliver what is in the spool."""
        if self.delivery is not None:
            yield from self.delivery.deliver_before(end)

    def _keep(self, spool: Spool, reports: Sequence[SentReport]) -> Steps[None]:
        # What happened now is not to look as if it had happened when the gateway was back.
        now = micros(self.asking.now())
        stamped = [replace(report, at=now) if report.at is None else report for report in reports]
        yield Work(lambda: spool.append(stamped))
