"""Do the commands that look at the registry tell what is in it, to people and to programs?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leaven import Feature
from leaven.cli import main
from leaven.gates import Sane
from leaven.registry import aliases, loops, snapshots
from leaven.registry.decisions import Decision, record
from leaven.registry.snapshots import SnapshotRecord
from leaven.registry.written import written_parts
from leaven.storage.control.database import ControlDatabase
from leaven.training.surgery import Difference, Proof
from tests.control_databases import a_loop, a_version, migrated

HOUR = 3_600_000_000
Said = Callable[..., Any]
CHANGED = a_loop(features=[Feature("x", "float"), Feature("z", "int")], gates=[Sane()])


def fill(database: ControlDatabase) -> None:
    """Two versions of one loop: the first served for an hour, the second was refreshed, gated, promoted."""
    with database.write() as connection:
        loops.put(connection, a_loop(), path="flights.py", source="…", at=0)
        a_version(connection, definition_digest=a_loop().digest, artifact="a" * 64, at=0, lineage={"rows": 100})
        aliases.set_alias(connection, "flights", "champion", 1, decision="d1", at=HOUR)
        loops.put(connection, CHANGED, path="flights.py", source="…", at=HOUR)
        stretch = {"start": 0, "end": HOUR, "rows": None, "by": None}
        definition = {"as_of": 2 * HOUR, "stretches": [stretch], "served": {"canary": 234, "champion": 1000}}
        snapshots.put(connection, SnapshotRecord("r2-snapshot", "flights", definition, 1234, "beef", 2 * HOUR))
        a_version(
            connection, definition_digest=CHANGED.digest, artifact="b" * 64, parent=1, snapshot="r2-snapshot",
            refresh="r2", at=2 * HOUR, mode="update",
            lineage={"cause": {"trigger": 'Every("1h")', "why": "an hour has passed"}, "rows": 1234,
                     "training": {"rows": 1234, "cpu_seconds": 0.51234}},
        )  # fmt: skip
        fresh = {"log_loss": {"estimate": 0.5, "low": 0.45, "high": 0.55, "level": 0.95, "n": 50}}
        for decided in (
            Decision("r2-trigger", "flights", 2 * HOUR, "trigger", "refresh", why="an hour has passed", refresh="r2"),
            Decision("r2-gate", "flights", 2 * HOUR, "gate", "pass", version=2, rule={"gates": ["Sane()"]},
                     evidence={"fresh": fresh}, why="[sane] answers", by="gates", refresh="r2"),
            Decision("r2-promote", "flights", 2 * HOUR, "promote", "promote", version=2, by="gates", refresh="r2"),
        ):  # fmt: skip
            record(connection, decided)
        aliases.set_alias(connection, "flights", "previous", 1, decision="r2-promote", at=2 * HOUR)
        aliases.set_alias(connection, "flights", "champion", 2, decision="r2-promote", at=2 * HOUR)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    database = migrated(f"sqlite:///{tmp_path / 'control.db'}")
    fill(database)
    database.dispose()
    return tmp_path


@pytest.fixture
def said(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Return a function that runs a command on the filled database and gives what it printed, JSON where asked."""
    for name in ("LEAVEN_DATABASE", "LEAVEN_CLOCK"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, exit_code: int = 0) -> Any:
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--home", str(home)])
        printed = capsys.readouterr()
        assert (left.value.code or 0) == exit_code, printed.err
        return json.loads(printed.out) if "--json" in arguments else printed.out + printed.err

    return run


def test_versions_are_listed_with_the_names_they_go_by(said: Said):
    first, second = said("versions", "--json")
    assert (first["number"], first["aliases"], second["aliases"]) == (1, ["previous"], ["champion"])
    assert (second["parent"], second["snapshot"], second["refresh"]) == (1, "r2-snapshot", "r2")
    assert said("versions", "flights", "--json") == [first, second]
    shown = said("versions")
    assert all(
        word in shown for word in ("champion", "version 1, 1,234 rows", "an hour has passed", "1970-01-01 02:00")
    )


def test_a_version_tells_its_whole_story(said: Said):
    story = said("show", "flights", "champion", "--json")
    assert said("show", "flights", "2", "--json") == said("show", "flights", "v2", "--json") == story
    assert (story["version"]["number"], story["aliases"], story["ancestors"]) == (2, ["champion"], [1])
    assert (story["snapshot"]["rows"], story["definition"]) == (1234, repr(CHANGED))
    assert story["metrics"]["log_loss"]["estimate"] == 0.5
    assert [decided["id"] for decided in story["decisions"]] == ["r2-trigger", "r2-gate", "r2-promote"]
    earlier = said("show", "flights", "1", "--json")
    assert [(s["alias"], s["since"], s["until"], s["decision"], s["ended_by"]) for s in earlier["served"]] == [
        ("champion", HOUR, 2 * HOUR, "d1", "r2-promote"),
        ("previous", 2 * HOUR, None, "r2-promote", None),
    ]
    shown = said("show", "flights")
    for text in ("flights version 2 (champion)", "continued from version 1", "1,234 rows, digest beef",
                 "canary 234, champion 1,000",
                 "0.5000 (0.4500 to 0.5500)", "cpu_seconds 0.512", "[sane] answers", "now"):  # fmt: skip
        assert text in shown


def test_what_was_done_to_a_parent_is_shown_with_its_proof(home: Path, said: Said):
    proof = Proof('AddFeatures(["w"])', "its text", 512, "c0ffee", (Difference("float32", 0.0, 0.0, 1e-6),), True, True)
    database = ControlDatabase(f"sqlite:///{home / 'control.db'}")
    with database.write() as connection:
        a_version(connection, definition_digest=CHANGED.digest, artifact="c" * 64, parent=2, refresh="r3", at=3 * HOUR,
                  mode="update", lineage={"surgery": msgspec.to_builtins(proof)})  # fmt: skip
    database.dispose()
    shown = " ".join(said("show", "flights", "3").split())
    assert f"surgery {proof}" in shown
    assert "surgery" not in said("show", "flights", "2")


def test_a_difference_is_named_part_by_part_and_only_where_there_is_one(said: Said):
    told = said("diff", "flights", "previous", "champion", "--json")
    found = {(each["part"], each["name"]): (each["a"], each["b"]) for each in told["differences"]}
    assert (told["a"], told["b"]) == (1, 2)
    assert found["definition", "features"] == (None, 'Feature("z", "int")')
    assert found["definition", "gates"] == (None, "Sane()")
    assert found["version", "parent"] == (None, 1)
    assert found["snapshot", "rows"] == (None, 1234)
    assert found["metrics", "log_loss"][1]["estimate"] == 0.5
    assert ("version", "format") not in found
    assert not {name for part, name in found if part == "definition"} - {"features", "gates"}
    shown = said("diff", "flights", "1", "2")
    assert all(text in shown for text in ('Feature("z", "int")', "1970-01-01 00:00:00 to 1970-01-01 01:00:00"))
    assert said("diff", "flights", "2", "2", "--json")["differences"] == []
    assert "versions 2 and 2 are the same" in said("diff", "flights", "2", "champion")


def test_a_definition_is_taken_apart_as_it_was_written():
    assert written_parts('Loop("a", unit="u, [v]", gates=[Sane(), NotWorse("é", on="past")], holdout="1d")') == {
        "unit": '"u, [v]"',
        "gates\0Sane()": "Sane()",
        'gates\0NotWorse("é", on="past")': 'NotWorse("é", on="past")',
        "holdout": '"1d"',
    }


def test_decisions_are_listed_and_one_is_shown_whole(said: Said):
    assert [each["id"] for each in said("decisions", "--json")] == ["r2-trigger", "r2-gate", "r2-promote"]
    assert [each["id"] for each in said("decisions", "flights", "--limit", "1", "--json")] == ["r2-promote"]
    assert [each["id"] for each in said("decisions", "--kind", "gate", "--json")] == ["r2-gate"]
    whole = said("decisions", "--id", "r2-gate", "--json")
    assert (whole["rule"], whole["evidence"]["fresh"]["log_loss"]["n"]) == ({"gates": ["Sane()"]}, 50)
    assert all(text in said("decisions") for text in ("trigger", "[sane] answers", "r2-promote"))
    assert all(text in said("decisions", "--id", "r2-gate") for text in ("gate of version 2: pass", '"gates"', "0.45"))


def test_pausing_and_resuming_are_decisions_too(said: Said):
    paused = said("pause", "flights", "--why", "holiday", "--by", "ada", "--json")
    assert (paused["paused"], paused["changed"]) == (True, True)
    assert said("pause", "flights", "--json") == {"loop": "flights", "paused": True, "changed": False, "decision": None}
    kept = said("decisions", "--id", paused["decision"], "--json")
    assert (kept["kind"], kept["why"], kept["by"], kept["loop"]) == ("pause", "holiday", "ada", "flights")
    assert "acts by itself again" in said("resume", "flights")
    assert "was not paused" in said("resume", "flights")
    assert [each["kind"] for each in said("decisions", "--json")][-2:] == ["pause", "resume"]
    assert said("resume", "flights", "--json")["paused"] is False


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("versions", "trains"), "no loop 'trains' is registered. There are flights."),
        (("show", "trains"), "no loop 'trains'"),
        (("show", "flights", "9"), "loop 'flights' has no version '9'. It has 1, 2."),
        (("diff", "flights", "1", "canary"), "no version 'canary'. It has 1, 2, champion, previous."),
        (("decisions", "--id", "nope"), "no decision 'nope' was recorded"),
        (("pause", "trains"), "no loop 'trains'"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(said: Said, arguments: tuple[str, ...], text: str):
    assert text in said(*arguments, exit_code=3)
    assert text in said(*arguments, "--json", exit_code=3)["error"]


def test_looking_at_an_installation_that_is_not_there_makes_none(leaven, tmp_path: Path):
    answered = leaven("versions", "--home", tmp_path / "none", "--json")
    assert answered.returncode == 3
    assert "unable to open database file" in json.loads(answered.stdout)["error"]
    assert not (tmp_path / "none").exists()


def test_an_empty_installation_says_so(leaven, tmp_path: Path):
    migrated(f"sqlite:///{tmp_path / 'control.db'}").dispose()
    assert leaven("versions", "--home", tmp_path).stdout == "There are no versions yet.\n"
    assert leaven("decisions", "--home", tmp_path).stdout == "Nothing was decided yet.\n"
