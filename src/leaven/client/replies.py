"""What does a reply of the gateway say?"""

from __future__ import annotations

from typing import Any

import msgspec

from leaven.client.errors import Refused, UnreadableReply
from leaven.client.http1 import Reply


class Prediction(msgspec.Struct, frozen=True):
    """One answer, and what feedback about it needs.

    `answer` is the probability of class 1, or the predicted value; of a label with classes it is the likeliest one, and
    `probabilities` holds that of each. `propensity`, in (0, 1], is the probability that
    this unit gets this arm.
    """

    id: str = msgspec.field(name="prediction_id")
    answer: float | str
    version: str
    arm: str
    propensity: float
    probabilities: dict[str, float] | None = None


class Assignment(msgspec.Struct, frozen=True):
    """The arm that a unit gets, and its version, by revision `revision` of the routing table.

    `parameters` are those of the version, or None where it is a model. `exposure` is the id to report feedback by, as
    `prediction_id`, or None where the arm was asked for without using it. `propensity`, in (0, 1], is the probability
    that this unit gets this arm.
    """

    loop: str
    unit: str
    arm: str
    version: str
    propensity: float
    revision: int
    parameters: dict[str, Any] | None = None
    exposure: str | None = None


class _Predictions(msgspec.Struct, frozen=True):
    predictions: list[Prediction]


class _Error(msgspec.Struct, frozen=True):
    error: str


_predictions = msgspec.json.Decoder(_Predictions)
_assignment = msgspec.json.Decoder(Assignment)
_error = msgspec.json.Decoder(_Error)


def read_predictions(reply: Reply, *, url: str, rows: int) -> list[Prediction]:
    """Return the predictions of `reply`, one per row.

    Raises:
        Refused: the gateway said no.
        UnreadableReply: it is no such reply.
    """
    predictions: list[Prediction] = _decoded(_predictions, reply, url).predictions
    if len(predictions) != rows:
        raise UnreadableReply(url, f"{len(predictions)} predictions for {rows} rows")
    return predictions


def read_assignment(reply: Reply, *, url: str) -> Assignment:
    """Return the assignment of `reply`; raises as `read_predictions` does."""
    found: Assignment = _decoded(_assignment, reply, url)
    return found


def check(reply: Reply) -> None:
    """Raise Refused unless `reply` says that it is done."""
    if reply.status != 200:
        raise Refused(reply.status, error_of(reply))


def error_of(reply: Reply) -> str:
    """Return what `reply` says was wrong: the gateway's words, or the beginning of somebody else's."""
    try:
        return _error.decode(reply.body).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        text = reply.body[:200].decode("utf-8", "replace").strip()
        return text or "it says no more"


def _decoded(decoder: Any, reply: Reply, url: str) -> Any:
    check(reply)
    try:
        return decoder.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableReply(url, str(error)) from None
