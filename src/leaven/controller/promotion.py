"""Who is champion, and what do the gateways route?

The routing table is derived: from the champion, the open trial and the version that was champion before. Whoever
changes one of these publishes the table in the same transaction, so the three never disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection

from leaven.errors import LeavenError
from leaven.experiments.assignment import threshold
from leaven.experiments.routing import ArmRoute, RoutingTable, ShadowRoute, Standby, arms_for
from leaven.experiments.stage import Stage
from leaven.experiments.trial import Trial, steps_of
from leaven.loop import FeatureType, Schema
from leaven.registry import aliases, loops, routing, versions
from leaven.registry.changes import features_of
from leaven.registry.decisions import Decision, record
from leaven.registry.loops import LoopRecord


class NothingToRollBack(LeavenError, RuntimeError):
    """A loop has neither an open trial nor an earlier champion."""

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.loop = loop

    def __str__(self) -> str:
        return f"loop {self.loop!r} has no trial to end and no earlier champion. Promote a version: leaven promote."


def promote(connection: Connection, loop: str, version: int, decision: Decision, *, now: int) -> None:
    """Make `version` the champion by `decision`, and keep the old champion at hand as `previous`."""
    record(connection, decision)
    old = aliases.alias(connection, loop, "champion")
    if old is not None and old != version:
        aliases.set_alias(connection, loop, "previous", old, decision=decision.id, at=now)
    aliases.set_alias(connection, loop, "champion", version, decision=decision.id, at=now)
    if aliases.alias(connection, loop, "challenger") == version:
        aliases.set_alias(connection, loop, "challenger", None, decision=decision.id, at=now)


def give_back(connection: Connection, loop: str, version: int, decision: Decision, *, now: int) -> None:
    """Make `version`, which was champion before this one, champion again by `decision`.

    What was to go back to then is so again: a second rollback must not return to the version that was just found bad.
    """
    bad = aliases.alias(connection, loop, "champion")
    record(connection, decision)
    earlier = [span.version for span in aliases.history(connection, loop, "champion")]
    while earlier and earlier[-1] in (bad, version):
        earlier.pop()
    aliases.set_alias(connection, loop, "previous", earlier[-1] if earlier else None, decision=decision.id, at=now)
    aliases.set_alias(connection, loop, "champion", version, decision=decision.id, at=now)


def earlier_champion(connection: Connection, loop: str) -> int:
    """Return the version to go back to.

    Raises:
        NothingToRollBack: there is none.
    """
    earlier = aliases.alias(connection, loop, "previous")
    if earlier is None or earlier == aliases.alias(connection, loop, "champion"):
        raise NothingToRollBack(loop)
    return earlier


def publish_routes(
    connection: Connection, loop: str, *, trial: Trial | None, rollout: tuple[Stage, ...] = (), now: int
) -> RoutingTable | None:
    """Publish the routing table that the present state asks for, if it differs from the latest; return the latest.

    Without a champion there is nothing to serve, and None is returned.
    """
    champion = aliases.alias(connection, loop, "champion")
    if champion is None:
        return None
    latest = routing.latest(connection, loop)
    wanted = _derived(connection, loop, champion, trial=trial, rollout=rollout)
    if latest is not None and _same(latest, wanted):
        return latest
    table = msgspec.structs.replace(wanted, revision=1 if latest is None else latest.revision + 1, at=now)
    routing.publish(connection, table)
    return table


def _derived(
    connection: Connection, loop: str, champion: int, *, trial: Trial | None, rollout: tuple[Stage, ...]
) -> RoutingTable:
    def route(number: int) -> tuple[str, str]:
        return str(number), versions.version(connection, loop, number).artifact

    known = loops.loop(connection, loop)
    arms = arms_for(route(champion))
    shadows: tuple[ShadowRoute, ...] = ()
    standby: tuple[Standby, ...] = ()
    previous = aliases.alias(connection, loop, "previous")
    if previous is not None and previous != champion:
        standby = (Standby(*route(previous)),)
    if trial is not None:
        arms, shadows = _routed(trial, rollout, route)
    # Each trial draws its units anew: who was in the last canary is not in the next one by rule.
    salt = known.salt if trial is None else trial.salt or f"{known.salt}/{trial.id}"
    numbers = [champion, *([] if trial is None else [int(trial.challenger)]), *(int(each.version) for each in standby)]
    schema = _served_schema(connection, known, numbers)
    return RoutingTable(loop, 0, 0, schema, salt, arms, shadows, standby)


def _routed(
    trial: Trial, rollout: tuple[Stage, ...], route: Callable[[int], tuple[str, str]]
) -> tuple[tuple[ArmRoute, ...], tuple[ShadowRoute, ...]]:
    """Arms and shadows of a trial at its present step."""
    challenger, champion = route(int(trial.challenger)), route(int(trial.champion))
    _, step = steps_of(rollout)[trial.step]
    if trial.promoted_at is not None:
        return arms_for(challenger, holdback=champion, held=step.share), ()
    if step.kind == "shadow":
        return arms_for(champion), (ShadowRoute(*challenger, threshold(step.share)),)
    if step.kind == "canary":
        return arms_for(champion, challenger, share=step.share), ()
    return arms_for(champion), ()


def _served_schema(connection: Connection, known: LoopRecord, numbers: Sequence[int]) -> Schema:
    """What requests are to bring: the loop's features, and those that it dropped and a version at hand was made with.

    The latter are no longer required. Where there are any, the features stand in the order of the first of these
    versions, so that a request that sends its features as one matrix is never read in another order than it was meant.
    """
    wanted = {name: (name, kind, required) for name, kind, required in known.schema.features}
    theirs: dict[str, FeatureType] = {}
    for number in numbers:
        made_for = versions.version(connection, known.name, number).definition_digest
        written = loops.definition(connection, known.name, made_for)
        if written is not None and made_for != known.digest:
            theirs = dict(features_of(written)) | theirs
    if not theirs.keys() - wanted.keys():
        return known.schema
    kept = tuple(wanted.pop(name, (name, kind, False)) for name, kind in theirs.items())
    return msgspec.structs.replace(known.schema, features=(*kept, *wanted.values()))


def _same(latest: RoutingTable, wanted: RoutingTable) -> bool:
    return msgspec.structs.replace(latest, revision=0, at=0) == wanted
