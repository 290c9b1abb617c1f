"""Do the commands about a trial that runs do what they say, and tell it to people and to programs?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from leaven.cli import main
from leaven.clock import SystemClock
from leaven.controller import state
from leaven.controller.promotion import publish_routes
from leaven.experiments.evidence import ArmEvidence, CanaryEvidence
from leaven.experiments.showing import Shown
from leaven.experiments.trial import Trial
from leaven.loopfile import load_loop
from leaven.registry import aliases, decisions, loops, routing
from leaven.registry.decisions import Decision
from leaven.stats.moments import moments
from leaven.storage.control.database import ControlDatabase
from tests.control_databases import a_version, migrated

LOOP_FILE = """
from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.experiments import Approval, Canary, Pause, Watch
from leaven.learners import XGBoost
from leaven.training import Stateless

loop = Loop(
    "flights", features=[Feature("x", "float")], unit="tail", label=Label("late", above=15, within="6h"),
    learner=XGBoost(), data=Recent("4d"), plan=Stateless(),
    rollout=[Canary(0.1, 0.4), Pause("6h"), Approval("owner"), Watch("3d", holdback=0.2)],
)
"""
HOUR = 3_600_000_000
NOW = SystemClock().micros()
PLAN = ["Canary(0.1, 0.4)", "Canary(0.1, 0.4)", 'Pause("6h")', 'Approval("owner")', 'Watch("3d", holdback=0.2)']
Said = Callable[..., tuple[int, Any]]


def seen() -> CanaryEvidence:
    loss = np.random.default_rng(3).gamma(2.0, 0.2, 400)
    champion = ArmEvidence(300, 2, 900, 4, moments(loss[:300]))
    return CanaryEvidence(champion, ArmEvidence(100, 1, 300, 1, moments(loss[300:])))


@pytest.fixture
def database(tmp_path: Path):
    """A loop with two versions; an installation that nothing runs on."""
    file = tmp_path / "flights.py"
    file.write_text(LOOP_FILE)
    opened = migrated(f"sqlite:///{tmp_path / 'control.db'}")
    with opened.write() as connection:
        loops.put(connection, load_loop(file), path=str(file), source=LOOP_FILE, at=0)
        for artifact in "ab":
            a_version(connection, definition_digest=load_loop(file).digest, artifact=64 * artifact, at=0, lineage={})
        aliases.set_alias(connection, "flights", "champion", 1, decision="d1", at=HOUR)
        publish_routes(connection, "flights", trial=None, now=HOUR)
    yield opened
    opened.dispose()


@pytest.fixture
def said(tmp_path: Path, database: ControlDatabase, capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*arguments: str) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--home", str(tmp_path)])
        out = capsys.readouterr()
        shown = json.loads(out.out) if "--json" in arguments else out.out + out.err
        return int(left.value.code or 0), shown

    return run


def at_step(database: ControlDatabase, step: int, *, promoted: bool = False) -> Trial:
    """A trial that reached this step two hours ago, and was looked at an hour ago."""
    begun = Trial(
        "flights-t2", "flights", "2", "1", NOW - 50 * HOUR, NOW - 2 * HOUR, step=step, looks=3,
        promoted_at=NOW - 2 * HOUR if promoted else None,
    )  # fmt: skip
    with database.write() as connection:
        rollout = load_loop(Path(loops.loop(connection, "flights").path)).rollout
        state.open_trial(connection, begun, rollout=repr(list(rollout)))
        written = [repr(each) for each in rollout]
        decisions.record(connection, Decision("flights-t2-begin", "flights", begun.opened_at, "trial", "begin", 2,
                                              rule={"rollout": written, "from": 0}, trial=begun.id))  # fmt: skip
        for passed in range(step):
            state.keep_evidence(connection, begun_at(begun, passed), seen(), now=NOW - 40 * HOUR)
            decisions.record(connection, Decision(f"flights-t2-{passed}-advance", "flights", NOW - 40 * HOUR, "trial",
                                                  "advance", 2, why="within the margin", by="rule", trial=begun.id,
                                                  rule={"look": 2}, evidence=as_kept(seen())))  # fmt: skip
        if not promoted:
            state.keep_evidence(connection, begun, seen(), now=NOW - HOUR)
        row = Shown("log_loss", "canary", 0.4, 0.41, (300, 100), 0.01, -0.05, 0.07, 0.99)
        for look in (1, 2, 3):
            at = begun.since + look * HOUR // 2
            state.keep_look(connection, begun, state.Look(step, at, look, "hold", (row,)))
        if promoted:
            aliases.set_alias(connection, "flights", "champion", 2, decision="d2", at=begun.since)
            aliases.set_alias(connection, "flights", "previous", 1, decision="d2", at=begun.since)
        publish_routes(connection, "flights", trial=begun, rollout=tuple(rollout), now=begun.since)
    return begun


def begun_at(trial: Trial, step: int) -> Trial:
    return msgspec.structs.replace(trial, step=step)


def as_kept(evidence: Any) -> dict[str, Any]:
    kept: dict[str, Any] = msgspec.to_builtins(evidence)
    return kept


def arms(database: ControlDatabase) -> dict[str, str]:
    with database.read() as connection:
        table = routing.latest(connection, "flights")
    assert table is not None
    return {arm.arm: arm.version for arm in table.arms}


def test_status_tells_programs_everything_by_names_that_stay(said: Said, database: ControlDatabase):
    at_step(database, 2)
    code, told = said("trial", "status", "flights", "--json")
    trial = told["trial"]
    assert (code, told["loop"]) == (0, "flights")
    assert set(trial) == {
        "id", "loop", "state", "challenger", "champion", "refresh", "opened_at", "watching", "paused", "step", "steps",
        "stage", "kind", "share", "since", "elapsed_days", "at_least_days", "at_most_days", "looks", "looked_at",
        "verdict", "evidence", "seen", "plan", "past", "history",
    }  # fmt: skip
    assert (trial["state"], trial["step"], trial["steps"], trial["stage"]) == ("open", 3, 5, 'Pause("6h")')
    assert (trial["kind"], trial["share"], trial["looks"]) == ("canary", 0.4, 3)  # it holds what the canary routes
    assert trial["verdict"]["outcome"] == "hold"
    assert [each["stage"] for each in trial["plan"]] == PLAN
    assert [each["stands"] for each in trial["plan"]] == ["passed", "passed", "present", "to come", "to come"]
    assert [(one["step"], one["outcome"]) for one in trial["past"]] == [(1, "advance"), (2, "advance")]
    row = trial["evidence"][0]
    assert set(row) == {"metric", "arm", "control", "value", "n", "difference", "low", "high", "level", "slice"}
    assert (row["metric"], row["arm"], row["n"]) == ("log_loss", "canary", [300, 100])
    assert row["low"] < row["difference"] < row["high"]
    assert len(trial["history"]) == 3


def test_status_tells_people_the_plan_the_numbers_and_what_is_missing(said: Said, database: ControlDatabase):
    at_step(database, 3)
    code, told = said("trial", "status", "flights")
    assert code == 0
    for part in ("version 2 against 1", '▸ 4. Approval("owner")', "canary 0.4", "waits for the approval of owner",
                 "log_loss", "failed units", "3 looks spent", "step 2, Canary(0.1, 0.4): advance"):  # fmt: skip
        assert part in told, told


def test_status_of_a_loop_without_a_trial_says_so(said: Said):
    assert said("trial", "status", "flights", "--json") == (0, {"loop": "flights", "trial": None})
    assert "has had no trial" in said("trial", "status", "flights")[1]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_history_of_looks_is_drawn(said: Said, database: ControlDatabase, tmp_path: Path, ending: str):
    pytest.importorskip("matplotlib")
    at_step(database, 2)
    file = tmp_path / f"trial.{ending}"
    assert said("trial", "status", "flights", "--plot", str(file))[0] == 0
    drawn = file.read_bytes()
    assert drawn.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    assert said("trial", "status", "flights", "--plot", str(tmp_path / "trial.gif"))[0] == 2


@pytest.mark.parametrize("command", [("trial", "start"), ("prove",)])
def test_a_trial_is_started_from_the_stage_that_a_person_names(
    said: Said, database: ControlDatabase, command: tuple[str, ...]
):
    code, opened = said(*command, "flights", "2", "--from", "pause", "--json")
    assert (code, opened["challenger"], opened["step"]) == (0, "2", 2)
    assert arms(database) == {"canary": "2", "champion": "1"}
    code, told = said("trial", "status", "flights", "--json")
    assert [each["stands"] for each in told["trial"]["plan"]][:3] == ["skipped", "skipped", "present"]
    assert said(*command, "flights", "2", "--from", "interleaving")[0] == 2


def test_a_trial_is_paused_and_resumed_once(said: Said, database: ControlDatabase):
    at_step(database, 2)
    assert said("trial", "pause", "flights", "--why", "a holiday", "--json")[1]["changed"] is True
    assert said("trial", "pause", "flights", "--json")[1] == {
        "loop": "flights", "paused": True, "changed": False, "decision": None,
    }  # fmt: skip
    assert "a holiday" in said("trial", "status", "flights")[1]
    assert "paused since" in said("status", "flights")[1]
    assert said("trial", "resume", "flights", "--json")[1]["changed"] is True
    assert said("trial", "status", "flights", "--json")[1]["trial"]["paused"] is None


def test_an_approval_is_given_on_behalf_of_who_is_asked_and_promotes(said: Said, database: ControlDatabase):
    at_step(database, 3)
    code, told = said("trial", "approve", "flights")
    assert (code, "--for owner" in told) == (2, True)
    code, decided = said("trial", "approve", "flights", "--for", "owner", "--why", "it is fine", "--json")
    assert (code, decided["outcome"], decided["by"].startswith("person:")) == (0, "promote", True)
    assert "for owner: it is fine" in decided["why"]
    assert arms(database) == {"champion": "2", "holdback": "1"}
    assert said("trial", "status", "flights", "--json")[1]["trial"]["watching"] is True
    assert "watched as champion, before it 1" in said("status", "flights")[1]


@pytest.mark.parametrize("step", [1, 4])
def test_an_aborted_trial_gives_all_units_to_the_champion_it_began_with(
    said: Said, database: ControlDatabase, step: int
):
    at_step(database, step, promoted=step == 4)
    code, told = said("trial", "abort", "flights", "--why", "no more")
    assert (code, "version 1 serves flights" in told) == (0, True)
    assert arms(database) == {"champion": "1"}
    code, told = said("trial", "status", "flights", "--json")
    assert told["trial"]["state"] == ("rolled_back" if step == 4 else "stopped")
    assert said("trial", "abort", "flights")[0] == 3


def test_rollback_in_a_watch_gives_all_traffic_back(said: Said, database: ControlDatabase):
    at_step(database, 4, promoted=True)
    assert arms(database) == {"champion": "2", "holdback": "1"}
    assert said("rollback", "flights")[0] == 0
    assert arms(database) == {"champion": "1"}
