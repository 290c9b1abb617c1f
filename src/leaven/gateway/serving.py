"""Who answers a row, and what is written down about it?

A loop is served by one immutable value, `Serving`: a routing table and the models it names. A request takes it once and
keeps it, so a change of the table in the middle of a request changes nothing for that request; models that no table
names any more go when the last request that holds them has been answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.events.records import PredictionServed
from leaven.experiments.assignment import POSITIONS, holder, position
from leaven.experiments.routing import ArmRoute, RoutingTable, ShadowRoute
from leaven.gateway.answering import Answerer, Columns
from leaven.gateway.refusals import ModelFailed, Overloaded, UnknownVersion
from leaven.gateway.rows import Rows
from leaven.stats.answers import given, none, padded

ANSWER_SECONDS = 7.0  # that arm and champion may take together: records that come later are not waited for
PINNED = "pinned"  # the arm of requests that name their version themselves; no evidence comes from it


@dataclass(frozen=True, slots=True)
class Serving:
    """One loop as it is served: its routing table, and what answers for every version that the table names."""

    table: RoutingTable
    models: Mapping[str, Answerer]


@dataclass(frozen=True, slots=True)
class Chance:
    """Where fresh names and elapsed seconds come from."""

    new_id: Callable[[], str]
    timer: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One request, answered. Sequences hold one item per row."""

    answers: NDArray[np.float64]  # shape (rows,), or (rows, classes)
    ids: Sequence[str]
    versions: Sequence[str]  # that gave the answers
    arms: Sequence[str]
    propensities: Sequence[float]
    records: Sequence[PredictionServed]
    places: Sequence[int]  # of the units; empty where nothing depends on them
    columns: Columns
    failure: ModelFailed | None  # set where there is no answer to give; the records say so too
    fallbacks: Sequence[int] = ()  # rows that the champion answered because their own arm failed


@dataclass(frozen=True, slots=True)
class Answered:
    """What an arm said to its rows; the sequences hold one item per row."""

    answers: NDArray[np.float64]  # NaN where it failed
    errors: Sequence[str | None]  # why it did
    seconds: Sequence[float]


async def predict(
    serving: Serving, rows: Rows, *, pinned: str | None, at: int, chance: Chance, key: str | None = None
) -> Prediction:
    """Return the answers to `rows` and the records of them.

    Each row goes to the arm of its own unit, or to the version `pinned`. Where an arm fails, the champion answers.

    Args:
        serving: What the loop is served with.
        rows: What is asked.
        pinned: Version that the request names, or None.
        at: Now, in microseconds since the Unix epoch.
        chance: Source of ids and of elapsed time.
        key: A name of the request's own: repeated, it gives the predictions the same ids, so that they count once.
    Raises:
        UnknownVersion: `pinned` is not loaded.
        Overloaded: too many rows wait for an answer.
    """
    table = serving.table
    units = [unit if unit is not None else chance.new_id() for unit in rows.units]
    places = _places(table, units) if pinned is None else []
    routes = _routes(table, places, rows.count) if pinned is None else [_pin(serving, pinned)] * rows.count
    began = chance.timer()
    answered = await _ask_arms(serving, rows, routes, chance.timer)
    answers, errors, seconds = answered.answers, answered.errors, answered.seconds
    versions = [route.version for route in routes]
    failure, fallbacks = None, list[int]()
    if any(errors):
        left = ANSWER_SECONDS - (chance.timer() - began)
        failure = await _stand_in(serving, rows, routes, answers, errors, versions, seconds=left)
        fallbacks = [row for row, error in enumerate(errors) if error is not None] if failure is None else []
    # Never the request's own id: clients count these from 1, and two predictions of one id would be one. A request that
    # gets no answer is sent again under its key: the failure must not take the place of what is answered then.
    fresh = key is None or failure is not None
    ids = _ids(chance.new_id() if fresh else _id_of(table.loop, str(key)), rows.count)
    records = [
        PredictionServed(
            table.loop, ids[row], at, units[row], "live", route.arm, route.version, route.propensity,
            None if errors[row] is not None else as_logged(answers[row]),
            seconds[row], table.revision, errors[row], rows.features(row),
        )
        for row, route in enumerate(routes)
    ]  # fmt: skip
    return Prediction(
        answers, ids, versions, [route.arm for route in routes], [route.propensity for route in routes],
        records, places, rows.columns, failure, fallbacks,
    )  # fmt: skip


def shadowed(prediction: Prediction, shadow: ShadowRoute) -> list[int]:
    """Return the rows that `shadow` is to answer too."""
    return [row for row, place in enumerate(prediction.places) if place < shadow.high]


def take(columns: Columns, members: Sequence[int]) -> Columns:
    """Return some rows of `columns`."""
    index = np.asarray(members, dtype=np.intp)
    return {name: column[index] for name, column in columns.items()}


def _places(table: RoutingTable, units: Sequence[str]) -> list[int]:
    if len(table.arms) == 1 and not table.shadows:
        return []
    return [position(unit, salt=table.salt) for unit in units]


def _routes(table: RoutingTable, places: Sequence[int], count: int) -> list[ArmRoute]:
    arms = table.arms
    return [arms[0]] * count if len(arms) == 1 else [arms[holder(place, arms)] for place in places]


def _pin(serving: Serving, version: str) -> ArmRoute:
    if version not in serving.models:
        raise UnknownVersion(serving.table.loop, version, list(serving.models))
    return ArmRoute(PINNED, version, serving.table.artifacts()[version], 0, POSITIONS)


def _ids(base: str, count: int) -> list[str]:
    return [base] if count == 1 else [f"{base}-{row}" for row in range(count)]


def _id_of(loop: str, key: str) -> str:
    """The prediction id that a request's own key stands for: 32 hexadecimal digits, like a fresh one."""
    return blake2b(f"{loop}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


async def _ask_arms(serving: Serving, rows: Rows, routes: Sequence[ArmRoute], timer: Callable[[], float]) -> Answered:
    """Each arm's answers to its own rows."""
    classes = len(serving.table.schema.classes)
    if len(set(map(id, routes))) == 1:  # every row has one arm: nothing to take apart
        return await ask(serving.models[routes[0].version], rows.columns, rows.count, timer, classes=classes)
    answers = none(rows.count, classes)
    errors: list[str | None] = [None] * rows.count
    seconds = [0.0] * rows.count
    members_of = [
        (route, members)
        for route in serving.table.arms
        if (members := [row for row, taken in enumerate(routes) if taken is route])
    ]
    # At once, so that nobody waits for an arm that is not theirs.
    for members, said in zip(
        [members for _, members in members_of],
        await asyncio.gather(
            *(
                ask(serving.models[route.version], take(rows.columns, members), len(members), timer, classes=classes)
                for route, members in members_of
            )
        ),
        strict=True,
    ):
        answers[members] = said.answers
        for place, row in enumerate(members):
            errors[row], seconds[row] = said.errors[place], said.seconds[place]
    return Answered(answers, errors, seconds)


async def ask(
    model: Answerer, columns: Columns, count: int, timer: Callable[[], float], *, classes: int = 0
) -> Answered:
    """Return an arm's answers, what went wrong per row (or None), and the seconds per row.

    Whatever is raised becomes the rows' error: it is the arm's failure, to be counted against it, not ours. Answers
    that are not finite are failures as well. Of the loop's `classes` (0: answers are numbers), those that the model
    does not know get a probability of 0.

    Raises:
        Overloaded: too many rows wait for the model, which is no fault of the arm's.
    """
    began = timer()
    try:
        said = await model.ask(columns, count)
    except Overloaded:
        raise
    except Exception as error:
        took = (timer() - began) / count
        return Answered(none(count, classes), [_told(error)] * count, [took] * count)
    errors: list[str | None]
    if not classes and said.answers.ndim == 1:  # as nearly always, and for each request: so without NumPy
        errors = [None if isfinite(answer) else f"answered {answer}" for answer in said.answers.tolist()]
        return Answered(said.answers, errors, [said.seconds] * count)
    answers = padded(said.answers, classes)
    if answers.shape != (count, classes):
        why = f"answered with shape {list(said.answers.shape)} where there are {classes or 'no'} classes"
        return Answered(none(count, classes), [why] * count, [said.seconds] * count)
    errors = [None if fine else "answered what is no number" for fine in given(answers).tolist()]
    return Answered(answers, errors, [said.seconds] * count)


def as_logged(answer: Any) -> float | tuple[float, ...]:
    """Return one row's answer as the log keeps it."""
    return float(answer) if answer.ndim == 0 else tuple(answer.tolist())


def _told(error: Exception) -> str:
    """An error as the log keeps it. Errors of our own say all; others need their name."""
    return (str(error) if isinstance(error, LeavenError) else f"{type(error).__name__}: {error}")[:500]


async def _stand_in(
    serving: Serving,
    rows: Rows,
    routes: Sequence[ArmRoute],
    answers: NDArray[np.float64],
    errors: Sequence[str | None],
    versions: list[str],
    *,
    seconds: float,
) -> ModelFailed | None:
    """Fill in the champion's answers where another arm failed; return why there is none, where there is none.

    The champion may take `seconds`.
    """
    table, champion = serving.table, serving.table.champion
    failed = [row for row, error in enumerate(errors) if error is not None]
    for row in failed:
        if routes[row].arm in (PINNED, champion.arm):
            return ModelFailed(table.loop, routes[row].version, str(errors[row]))
    try:
        async with asyncio.timeout(seconds):  # one in the past is one as well
            said = await ask(
                serving.models[champion.version], take(rows.columns, failed), len(failed), lambda: 0.0,
                classes=len(table.schema.classes),
            )  # fmt: skip
    except TimeoutError:
        why = f"there was no time left for it after the arm {errors[failed[0]]}"
        return ModelFailed(table.loop, champion.version, why)
    for place, row in enumerate(failed):
        if said.errors[place] is not None:
            return ModelFailed(table.loop, champion.version, str(said.errors[place]))
        answers[row], versions[row] = said.answers[place], champion.version
    return None
