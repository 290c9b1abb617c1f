"""Which arm does a unit get, for callers who use it themselves, and how is it known that it was used?

The answer is the arm with its version, and the parameters where the version is a set of these. With it an exposure is
written down: the unit met its arm. That is what feedback is joined to, and what a trial counts. Its id follows from the
routing table, the arm and the unit alone, so every worker gives it the same one and readers count it once; a worker
also remembers which it has written, so as not to write them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from leaven.events.records import FeatureValue, PredictionServed
from leaven.experiments.assignment import holder, position
from leaven.experiments.routing import ArmRoute, RoutingTable
from leaven.gateway.access import permit
from leaven.gateway.counters import Counters
from leaven.gateway.features import Sent, columns_of
from leaven.gateway.http import JSON, Answer, Limits, Receive, Scope, read_body
from leaven.gateway.parameters import parameters_of
from leaven.gateway.predicting import Predicting
from leaven.gateway.protocol import decode_json
from leaven.gateway.refusals import BadRequest, shown
from leaven.gateway.rows import checked_text
from leaven.loop import Schema

REMEMBERED = 50_000  # exposures at least; twice as many, some 15 MB, at most

Context = Mapping[str, Any]  # what is known of a unit, by feature


class _Written(msgspec.Struct):
    loop: str
    unit: str
    context: dict[str, Any] = {}
    expose: bool = True


class _Said(msgspec.Struct, omit_defaults=True):
    loop: str
    unit: str
    arm: str
    version: str
    propensity: float
    revision: int
    parameters: msgspec.Raw
    exposure: str | None
    ignored: list[str] = []


_decoder = msgspec.json.Decoder(_Written)
_encode = msgspec.json.Encoder().encode
_NONE = msgspec.Raw(b"null")


class Assigning:
    """The route `/v1/assign`."""

    def __init__(self, predicting: Predicting, limits: Limits, counters: Counters) -> None:
        self._predicting, self._limits, self._counters = predicting, limits, counters
        self._written, self._dropped = Seen(REMEMBERED), 0

    async def assign(self, scope: Scope, receive: Receive) -> Answer:
        """Answer with the arm of the unit, under the routing table that serves now, and write the exposure down."""
        limits = self._limits
        body = await read_body(
            dict(scope["headers"]), receive, limits.feedback_body, seconds=limits.body_seconds, room=limits.room
        )
        asked: _Written = decode_json(_decoder.decode, body)
        permit(scope, asked.loop)
        serving = self._predicting.serving(asked.loop)
        table, unit = serving.table, _checked_unit(asked.unit)
        context = _checked_context(asked.context, table.schema) if asked.context else {}
        route = table.arms[holder(position(unit, salt=table.salt), table.arms)]
        records = [await self._exposed(table, route, unit, context)] if asked.expose else []
        said = _Said(
            table.loop, unit, route.arm, route.version, route.propensity, table.revision,
            parameters_of(serving, route.version) or _NONE, records[0].id if records else None,
            sorted(asked.context.keys() - {*table.schema.names})[:32] if asked.context else [],
        )  # fmt: skip
        return Answer(200, _encode(said), [JSON], records=records)

    async def _exposed(
        self, table: RoutingTable, route: ArmRoute, unit: str, context: dict[str, FeatureValue]
    ) -> PredictionServed:
        """The exposure of a unit to its arm, written down unless this worker did that before."""
        if (dropped := self._counters.dropped()) != self._dropped:
            # The log lost records after it had taken them, and nobody knows which: what comes again is written again.
            self._written, self._dropped = Seen(REMEMBERED), dropped
        id, now = exposure_id(table, route.arm, unit), self._predicting.clock.micros()
        exposure = PredictionServed(
            table.loop, id, now, unit, "exposure", route.arm, route.version, route.propensity, None, 0.0,
            table.revision, None, context or None,
        )  # fmt: skip
        if id not in self._written and await self._predicting.write_down([exposure]):
            self._written.add(id)
            self._counters.exposures[table.loop, route.arm, route.version] += 1
        return exposure


def exposure_id(table: RoutingTable, arm: str, unit: str) -> str:
    """Return the id of the exposure of `unit` to `arm` under `table`: 32 hexadecimal digits, like a prediction's.

    A table with another revision gives another one: each step of a trial counts the units that it has met itself.
    """
    # The unit last: what stands before it holds no NUL.
    facts = f"exposure\0{table.loop}\0{table.salt}\0{table.revision}\0{arm}\0{unit}"
    return blake2b(facts.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Seen:
    """Remembers the latest ids: at least `least` of them, at most twice as many."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._young, self._old = set[str](), set[str]()

    def __contains__(self, id: str) -> bool:
        if id in self._young:
            return True
        if id not in self._old:
            return False
        self.add(id)  # it is in use
        return True

    def add(self, id: str) -> None:
        """Remember this one."""
        self._young.add(id)
        if len(self._young) >= self._least:
            self._young, self._old = set(), self._young


def _checked_unit(unit: str) -> str:
    if not unit:
        raise BadRequest("unit", "it is empty, and everybody without a name would be one unit", "Name the unit.")
    return checked_text(unit, "unit")


def _checked_context(context: Context, schema: Schema) -> dict[str, FeatureValue]:
    """What is known of the unit, as it is logged; names that are no feature are left out.

    Raises:
        BadRequest: a value is none.
        BadFeature: a value does not fit its feature.
    """
    sent: dict[str, Sent] = {}
    for name, value in context.items():
        if isinstance(value, list | dict):
            raise BadRequest(f"context: feature {shown(name)}", "a list or an object is no value",
                             "Send a number, text or null.")  # fmt: skip
        sent[name] = ("text" if isinstance(value, str) else "mixed" if value is None else "number", [value])
    told = tuple((name, kind, False) for name, kind, _ in schema.features if name in sent)
    _, values = columns_of(sent, msgspec.structs.replace(schema, features=told), 1)
    return {name: column[0] for name, column in values.items()}
