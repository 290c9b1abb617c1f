"""What does a loop need now?

The controller is level-triggered: `tick` looks at the state as of a moment and does what is due. Everything it decides
follows from the log and the database as of that moment, so a tick that comes twice, late, or from another process after
a crash does no harm, and a replay of history through the same ticks comes to the same decisions.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from leaven.controller import state
from leaven.controller.parts import Parts
from leaven.controller.promotion import publish_routes
from leaven.controller.trials import reconcile_trial
from leaven.duration import instant, micros
from leaven.events.source import Span
from leaven.experiments.trial import Trial
from leaven.loop import Loop
from leaven.monitoring.performance import matured_span, performance
from leaven.monitoring.signal import Signal
from leaven.registry import aliases, decisions, loops, routing, versions
from leaven.registry.decisions import Decision, record
from leaven.stats.intervals import Interval
from leaven.triggers import Cause, Facts


class Runner(Protocol):
    """Carries out the steps of a refresh that has been opened."""

    def start(self, refresh: state.Refresh, *, now: datetime) -> None:
        """Begin, or go on with, a refresh; asking twice is harmless."""
        ...


class Controller:
    """Ticks loops: reconciles trials, asks triggers, starts refreshes."""

    def __init__(self, parts: Parts, runner: Runner) -> None:
        self._parts, self._runner = parts, runner

    def tick(self, loop: Loop, now: datetime) -> None:
        """Do what is due for `loop` as of `now`."""
        with self._parts.database.read() as connection:
            active = state.active_refresh(connection, loop.name)
            trial = state.active_trial(connection, loop.name)
            known = loops.loop(connection, loop.name)
            routed = routing.latest(connection, loop.name)
        if routed is not None and routed.at < known.registered_at:
            self._route_anew(loop, trial, now=now)
        paused = known.paused
        if trial is not None:
            stands = reconcile_trial(self._parts, loop, trial, now=now)
            if not (trial.watching and stands.watching):
                return
        # Beside a trial nothing else goes on; beside a watch, whose challenger was promoted, the loop does.
        if active is not None:
            self._go_on(active, now=now)
            return
        if not paused:
            self._ask_triggers(loop, now)

    def _route_anew(self, loop: Loop, trial: Trial | None, *, now: datetime) -> None:
        """Let the gateways take, and log, the features of a definition that is newer than their routing table."""
        with self._parts.write() as connection:
            self._parts.fence(connection)
            if state.active_trial(connection, loop.name) != trial:
                return  # somebody has just published
            if trial is not None and state.trial_rollout(connection, trial.id) != repr(list(loop.rollout)):
                return  # the trial is about to end, and that will publish
            publish_routes(connection, loop.name, trial=trial, rollout=tuple(loop.rollout), now=micros(now))

    def _go_on(self, active: state.Refresh, *, now: datetime) -> None:
        """Begin a refresh that a person asked for, or take up one that an earlier life of the controller left."""
        if active.state == "requested":
            with self._parts.write() as connection:
                self._parts.fence(connection)
                as_of = active.payload.get("as_of", micros(now))  # a person may name the moment to learn from
                taken = msgspec.structs.replace(active, state="running", as_of=as_of)
                active = state.save_refresh(connection, taken, now=micros(now))
        self._runner.start(active, now=now)

    def _ask_triggers(self, loop: Loop, now: datetime) -> None:
        facts = self._facts(loop, now)
        if not facts.has_champion and not facts.matured_since_refresh():
            return  # nothing to make a first version of; a refresh now would only use up the schedule's turn
        for trigger in loop.pace:
            cause = trigger.fires(facts)
            if cause is not None:
                self._begin(loop, facts, cause, now)
                return

    def _begin(self, loop: Loop, facts: Facts, cause: Cause, now: datetime) -> None:
        at = micros(now)
        with self._parts.write() as connection:
            self._parts.fence(connection)
            opened = state.open_refresh(connection, loop.name, cause, as_of=at, now=at)
            record(connection, _trigger_decision(loop, opened, facts))
        self._runner.start(opened, now=now)

    def _facts(self, loop: Loop, now: datetime) -> Facts:
        with self._parts.database.read() as connection:
            champion = aliases.alias(connection, loop.name, "champion")
            last = state.last_refresh_as_of(connection, loop.name)
            version = None if champion is None else versions.version(connection, loop.name, champion)
        source = self._parts.source(loop.name)
        seen: dict[tuple[str, timedelta], Signal] = {}

        def matured() -> int:
            window = loop.label.window
            since = now - window - timedelta(days=3650) if last is None else instant(last) - window
            return len(source.examples(Span(since, now - window), loop.label, as_of=now).predicted().mature())

        def measured(metric: str, over: timedelta) -> Signal:
            if (metric, over) not in seen:
                span = matured_span(now, over=over, window=loop.label.window)
                reference = self._reference(loop.name, champion, metric)
                examples = source.examples(span, loop.label, as_of=now)
                seen[metric, over] = performance(examples, metric, version=str(champion), now=now, reference=reference)
            return seen[metric, over]

        return Facts(
            now=now,
            has_champion=champion is not None,
            last_refresh=None if last is None else instant(last),
            learnt_rows=0 if version is None else int(version.lineage.get("learnt", 0)),
            matured_since_refresh=matured,
            performance=measured,
        )

    def _reference(self, loop: str, champion: int | None, metric: str) -> Interval | None:
        """The champion's metric on the fresh rows that its gates judged it by."""
        with self._parts.database.read() as connection:
            gated = decisions.decisions(connection, loop, kind="gate", version=champion, limit=1)
        measured = gated[0].evidence.get("fresh", {}).get(metric) if gated else None
        return None if measured is None or None in measured.values() else msgspec.convert(measured, Interval)


def _trigger_decision(loop: Loop, opened: state.Refresh, facts: Facts) -> Decision:
    evidence: dict[str, Any] = {
        "now": opened.as_of,
        "has_champion": facts.has_champion,
        "last_refresh": None if facts.last_refresh is None else micros(facts.last_refresh),
        "learnt_rows": facts.learnt_rows,
        "signal": None if opened.cause.signal is None else msgspec.to_builtins(opened.cause.signal),
    }
    if opened.cause.trigger.startswith("LabelsGrow"):
        evidence["matured"] = facts.matured_since_refresh()
    return Decision(
        id=f"{opened.id}-trigger", loop=loop.name, at=opened.as_of, kind="trigger", outcome="refresh",
        rule={"trigger": opened.cause.trigger}, evidence=evidence, why=opened.cause.why, by="rule", refresh=opened.id,
    )  # fmt: skip
