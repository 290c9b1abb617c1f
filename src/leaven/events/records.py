"""What is written down when a prediction is served, and when something comes back?

Times are whole microseconds since the Unix epoch, UTC. Both records are msgpack arrays on disk; new fields go to the
end with a default, so older segments stay readable.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["live", "shadow", "exposure"]
FeedbackKind = Literal["label", "event", "correction"]
FeatureValue = str | float | int | bool | None


class PredictionServed(msgspec.Struct, frozen=True, array_like=True, tag="prediction"):
    """One answer that was served to a unit, or that a shadow gave beside it; or that a unit met its arm.

    A shadow's record carries the id of the live prediction it stands beside, and no features of its own. An exposure
    has no answer and no error: the caller asked which arm a unit gets, and used it. Its id follows from loop, table,
    arm and unit, so however often it is written down it is one.
    `answer` is None where the arm failed; the unit then got the champion's answer, logged under the same arm with
    `error` saying why, so that failures are counted against the arm that made them.
    """

    loop: str
    id: str
    at: int
    unit: str
    role: Role
    arm: str
    version: str  # that gave the answer
    propensity: float  # probability of this arm for this unit, (0, 1]
    answer: float | tuple[float, ...] | None  # probability of class 1, the value, or the probability of each class
    seconds: float  # spent predicting
    table: int  # revision of the routing table that chose the arm
    error: str | None = None
    features: dict[str, FeatureValue] | None = None


class FeedbackReceived(msgspec.Struct, frozen=True, array_like=True, tag="feedback"):
    """Something that came back about a prediction, or about a unit."""

    loop: str
    id: str  # repeated delivery of the same id counts once
    name: str  # what was observed: the label's or event's name in the loop file
    at: int  # when it happened
    received_at: int  # when the gateway acknowledged it
    kind: FeedbackKind = "label"
    prediction: str | None = None
    unit: str | None = None
    value: float | None = None
    source: str = ""


Event = PredictionServed | FeedbackReceived
