"""How does a caller ask with rows as they are, without tensors?

`POST /v1/models/LOOP/predict` takes `{"rows": [{feature: value, ...}], "unit": ...}` and answers each row with its
prediction. What a missing, unknown or unfitting value becomes is the loop file's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from leaven.gateway.features import columns_of
from leaven.gateway.http import Answer, Limits, Receive, Scope, json_answer, read_body
from leaven.gateway.inference import prediction_headers, said_key, said_unit
from leaven.gateway.predicting import Predicting
from leaven.gateway.protocol import decode_json
from leaven.gateway.refusals import BadRequest, shown
from leaven.gateway.rows import MAX_ROWS, Rows, checked_text
from leaven.gateway.serving import Prediction
from leaven.loop import Schema
from leaven.stats.answers import decided
from leaven.training.encoding import as_category

Row = dict[str, Any]


class _Written(msgspec.Struct):
    rows: list[Row]
    unit: str | int | None = None
    units: list[str | int | None] | None = None
    version: str | int | None = None


_decoder = msgspec.json.Decoder(_Written)


class Tabular:
    """The route `/v1/models/LOOP/predict`."""

    def __init__(self, predicting: Predicting, limits: Limits) -> None:
        self._predicting, self._limits = predicting, limits

    async def predict(self, model: str, scope: Scope, receive: Receive) -> Answer:
        """Answer the rows of a request."""
        headers = dict(scope["headers"])
        body = await read_body(
            headers, receive, self._limits.body, seconds=self._limits.body_seconds, room=self._limits.room
        )
        serving = self._predicting.model(model)
        schema = serving.table.schema
        written: _Written = decode_json(_decoder.decode, body)
        rows = rows_of(written.rows, schema, units=_units(written, schema, said_unit(headers)))
        version = None if written.version is None else str(written.version)
        prediction = await self._predicting.answer(serving, rows, version=version, key=said_key(headers))
        reply = _reply(model, prediction, _ignored(written.rows, schema), schema.classes)
        headers_out = [*reply.headers, *prediction_headers(prediction)]
        then = self._predicting.afterwards(serving, prediction)
        return Answer(200, reply.body, headers_out, then, prediction.records)


def rows_of(written: list[Row], schema: Schema, *, units: list[str | None]) -> Rows:
    """Return rows that were written as objects as the gateway asks models for them.

    Raises:
        BadRequest: there are none, or too many.
        BadFeature: a value does not fit its feature, and the loop file refuses such values.
    """
    if not written:
        raise BadRequest("rows", "there are none", f"Send objects with {', '.join(schema.names)}.")
    if len(written) > MAX_ROWS:
        raise BadRequest("rows", f"{len(written)} are more than {MAX_ROWS}", "Send them in several requests.")
    given = {name: [row.get(name) for row in written] for name in schema.names if any(name in row for row in written)}
    if not given:
        raise BadRequest("rows", f"none of {', '.join(map(shown, list(written[0])[:8])) or 'its names'} is a feature",
                         f"The features are {', '.join(schema.names)}.")  # fmt: skip
    sent = {name: (_sent_as(name, values), values) for name, values in given.items()}
    columns, values = columns_of(sent, schema, len(written))
    return Rows(len(written), columns, values, units)


def _sent_as(name: str, values: list[Any]) -> str:
    """The kind of tensor that these JSON values would have come in."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds & {list, dict}:
        raise BadRequest(f"rows: feature {name!r}", "a list or an object is no value", "Send a number, text or null.")
    return "text" if kinds == {str} else "number" if kinds and str not in kinds else "mixed"


def _units(written: _Written, schema: Schema, header: str | None) -> list[str | None]:
    count = len(written.rows)
    if written.units is not None:
        if len(written.units) != count:
            raise BadRequest("units", f"{len(written.units)} do not fit {count} rows", "Send one per row.")
        said = written.units
    elif written.unit is not None or header is not None:
        said = [written.unit if written.unit is not None else header] * count
    else:
        said = [row.get(schema.unit) for row in written.rows]
    named = (None if unit is None else as_category(unit) for unit in said)
    return [checked_text(unit, "unit") if unit else None for unit in named]


def _ignored(written: list[Row], schema: Schema) -> list[str]:
    """Names in the rows that mean nothing to this loop: perhaps a slip of the pen, so the reply tells."""
    known = {*schema.names, schema.unit}
    return sorted({name for row in written for name in row} - known)[:32]


def _answers(prediction: Prediction, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What each row is told: the value or probability; of several classes the likeliest, and each probability."""
    given = prediction.answers.tolist()
    if not classes:
        return [{"answer": answer} for answer in given]
    names = [classes[place] for place in decided(prediction.answers).tolist()]
    return [
        {"answer": name, "probabilities": dict(zip(classes, each, strict=True))}
        for name, each in zip(names, given, strict=True)
    ]


def _reply(model: str, prediction: Prediction, ignored: list[str], classes: Sequence[str]) -> Answer:
    said: dict[str, Any] = {
        "model": model,
        "predictions": [
            {"prediction_id": name, **answer, "version": version, "arm": arm, "propensity": propensity}
            for name, answer, version, arm, propensity in zip(
                prediction.ids, _answers(prediction, classes), prediction.versions, prediction.arms,
                prediction.propensities, strict=True,
            )
        ],
    }  # fmt: skip
    return json_answer(200, said | {"ignored": ignored} if ignored else said)
