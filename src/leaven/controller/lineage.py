"""Where does every version of a loop come from, what was decided about it, and what did it cost?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection

from leaven.controller import state
from leaven.duration import instant
from leaven.experiments.trial import Trial
from leaven.registry import aliases, snapshots, versions
from leaven.registry.decisions import Decision, decisions
from leaven.registry.versions import VersionRecord
from leaven.training.rebuilding import Compared, RebuildAdvice, advise_rebuilds

_DAY = 86_400_000_000


class Taken(msgspec.Struct, frozen=True):
    """The examples that a version was made of."""

    id: str
    rows: int
    digest: str


class Node(msgspec.Struct, frozen=True):
    """One version in the graph of its parents."""

    version: int
    aliases: list[str]
    mode: str
    format: str
    parent: int | None  # that it continues
    replaces: int | None  # the champion of then
    created_at: str  # RFC 3339
    artifact: str
    definition: str  # digest of the loop's definition
    snapshot: Taken | None
    code: str | None  # digest of the loop file's text
    environment: dict[str, str]  # Leaven, Python, libraries
    cause: dict[str, Any]
    plan: dict[str, Any]
    gate: dict[str, Any] | None
    forgetting: dict[str, Any] | None
    trials: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    training: dict[str, Any]
    otherwise: dict[str, Any] | None  # an estimate of what the other way would have cost
    energy: dict[str, Any] | None  # an estimate, from what the owner declares
    compared: dict[str, Any] | None  # with a model from scratch


class Lineage(msgspec.Struct, frozen=True):
    """All versions of a loop, or one with those that it goes back to, oldest first."""

    loop: str
    versions: list[Node]
    rebuild: RebuildAdvice


def lineage_of(
    connection: Connection, loop: str, number: int | None = None, *, value: float | None = None,
    cpu_price: float | None = None,
) -> Lineage:  # fmt: skip
    """Return the graph of a loop's versions; with a number, that version and those that it continues.

    Args:
        connection: To the control database.
        loop: A registered loop.
        number: One of its versions.
        value: Of one unit of loss for one day, for the advice on rebuilding.
        cpu_price: Of one CPU second, in the same currency.
    """
    made = versions.versions(connection, loop)
    line = None if number is None else set(versions.ancestry(connection, loop, number))
    about = decisions(connection, loop)
    trials = state.latest_trials(connection, loop, limit=1_000_000)
    named: dict[int, list[str]] = {}
    for alias, version in aliases.aliases(connection, loop).items():
        named.setdefault(version, []).append(alias)
    taken = {one.id: Taken(one.id, one.rows, one.digest) for one in snapshots.snapshots(connection, loop)}
    nodes = [
        _node(version, named.get(version.number, []), taken, about, trials)
        for version in made
        if line is None or version.number in line
    ]
    return Lineage(loop, nodes, advice_for(made, value=value, cpu_price=cpu_price))


def advice_for(made: Sequence[VersionRecord], *, value: float | None, cpu_price: float | None) -> RebuildAdvice:
    """Return how many updates between two rebuilds cost least, by what these versions measured."""
    compared = [version.lineage["compared"] for version in made if "compared" in version.lineage]
    apart = np.diff([version.created_at for version in made]) / _DAY
    days = float(np.median(apart)) if len(apart) else None
    return advise_rebuilds(
        msgspec.convert(compared[-1], Compared) if compared else None,
        rebuild_cpu_s=_latest_cpu(made, "fit"),
        update_cpu_s=_latest_cpu(made, "update"),
        value=None if value is None or days is None else value * days,
        cpu_price=cpu_price,
    )


def _latest_cpu(made: Sequence[VersionRecord], mode: str) -> float | None:
    """CPU seconds of the newest model made so, whether or not it was taken."""
    for version in reversed(made):
        training = version.lineage.get("training", {})
        if version.mode != mode:
            training = version.lineage.get("compared", {}).get("other", {})
        if "cpu_seconds" in training:
            return float(training["cpu_seconds"])
    return None


def _node(
    version: VersionRecord, named: list[str], taken: dict[str, Taken], about: Sequence[Decision],
    trials: Sequence[Trial],
) -> Node:  # fmt: skip
    kept = version.lineage
    mine = sorted((each for each in about if _is_about(each, version)), key=lambda each: (each.at, each.id))
    gate = next((each for each in reversed(mine) if each.kind == "gate"), None)
    return Node(
        version=version.number, aliases=named, mode=version.mode, format=version.format, parent=version.parent,
        replaces=kept.get("replaces"), created_at=instant(version.created_at).isoformat(), artifact=version.artifact,
        definition=version.definition_digest, snapshot=taken.get(version.snapshot or ""), code=kept.get("code"),
        environment=kept.get("environment", {}), cause=kept["cause"] if isinstance(kept.get("cause"), dict) else {},
        plan=kept.get("plan", {}), gate=None if gate is None else {"outcome": gate.outcome, "why": gate.why},
        forgetting=None if gate is None else gate.evidence.get("forgetting"),
        trials=[_trial(trial) for trial in reversed(trials) if trial.challenger == str(version.number)],
        decisions=[_decided(each) for each in mine], training=kept.get("training", {}),
        otherwise=kept.get("otherwise"), energy=kept.get("energy"), compared=kept.get("compared"),
    )  # fmt: skip


def _is_about(decision: Decision, version: VersionRecord) -> bool:
    same_refresh = version.refresh is not None and decision.refresh == version.refresh
    return decision.version == version.number or (same_refresh and decision.version is None)


def _trial(trial: Trial) -> dict[str, Any]:
    return {"id": trial.id, "champion": trial.champion, "state": trial.state, "looks": trial.looks}


def _decided(decision: Decision) -> dict[str, Any]:
    names = ("id", "at", "kind", "outcome", "why", "by")
    return {name: getattr(decision, name) for name in names}
