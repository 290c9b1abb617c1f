"""Which arm would a unit get, for callers who ask the version themselves?"""

from __future__ import annotations

import msgspec

from leaven.experiments.assignment import holder, position
from leaven.gateway.access import permit
from leaven.gateway.http import Answer, Limits, Receive, Scope, json_answer, read_body
from leaven.gateway.predicting import Predicting
from leaven.gateway.protocol import decode_json
from leaven.gateway.rows import checked_text


class _Written(msgspec.Struct):
    loop: str
    unit: str


_decoder = msgspec.json.Decoder(_Written)


class Assigning:
    """The route `/v1/assign`."""

    def __init__(self, predicting: Predicting, limits: Limits) -> None:
        self._predicting, self._limits = predicting, limits

    async def assign(self, scope: Scope, receive: Receive) -> Answer:
        """Answer with the arm of the unit, under the routing table that serves now. Nothing is logged."""
        limits = self._limits
        body = await read_body(
            dict(scope["headers"]), receive, limits.feedback_body, seconds=limits.body_seconds, room=limits.room
        )
        written: _Written = decode_json(_decoder.decode, body)
        permit(scope, written.loop)
        table = self._predicting.serving(written.loop).table
        unit = checked_text(written.unit, "unit")
        route = table.arms[holder(position(unit, salt=table.salt), table.arms)]
        return json_answer(
            200,
            {"loop": table.loop, "unit": unit, "arm": route.arm, "version": route.version,
             "propensity": route.propensity, "revision": table.revision},
        )  # fmt: skip
