"""The graph of versions, as text, JSON and SVG; a version made again, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from leaven.cli import main
from leaven.cli.lineage_svg import drawn, lanes_of
from leaven.controller.lineage import Lineage, Node, lineage_of
from leaven.registry import aliases, loops
from leaven.registry.decisions import Decision, record
from leaven.training import Hybrid
from leaven.training.rebuilding import RebuildAdvice
from tests.control_databases import a_loop, a_version, migrated
from tests.controller.pasts import Watched, a_past
from tests.controller.pasts import a_loop as a_shop
from tests.controller.test_plans import QUICK, made_of

Said = Callable[..., Any]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Return a function that runs a command on an installation with two versions, the second one an update."""
    for name in ("LEAVEN_DATABASE", "LEAVEN_CLOCK"):
        monkeypatch.delenv(name, raising=False)
    database = migrated(f"sqlite:///{tmp_path / 'control.db'}")
    with database.write() as connection:
        loops.put(connection, a_loop(), path="flights.py", source="…", at=0)
        a_version(connection, definition_digest=a_loop().digest, at=0, refresh="r1", lineage={
            "cause": {"trigger": "manual", "why": "to <begin> with"}, "training": {"rows": 900, "cpu_seconds": 4.0},
            "environment": {"leaven": "0.1.0", "numpy": "2.4"}, "code": "c0de",
        })  # fmt: skip
        a_version(connection, definition_digest=a_loop().digest, at=10, refresh="r2", mode="update", parent=1, lineage={
            "plan": {"mode": "update", "why": "goes on from the champion"}, "replaces": 1,
            "training": {"rows": 30, "cpu_seconds": 0.25},
            "otherwise": {"mode": "fit", "rows": 900, "cpu_seconds": 4.0, "version": 1},
            "energy": {"kwh": 0.001, "co2_g": 0.3, "watts": 20.0, "grid_intensity": 300.0},
        })  # fmt: skip
        aliases.set_alias(connection, "flights", "champion", 1, decision="d", at=0)
        change = {"estimate": 0.02, "low": 0.01, "high": 0.03, "level": 0.95, "n": 40}
        losses = {"rows": 50, "challenger": 0.52, "champion": 0.5, "difference": change}
        forgot = {"metric": "log_loss", "fresh": losses, "past": losses, "backward_transfer": change,
                  "churn_decisions": 0.12, "churn_answers": 0.05}  # fmt: skip
        record(connection, Decision("r2-gate", "flights", 9, "gate", "fail", 2, evidence={"forgetting": forgot},
                                    why="worse on past rows", by="gates", refresh="r2"))  # fmt: skip
        record(connection, Decision("r2-plan", "flights", 8, "plan", "update", why="goes on", refresh="r2"))
    database.dispose()

    def run(*arguments: object, exit_code: int = 0) -> Any:
        with pytest.raises(SystemExit) as left:
            main([*map(str, arguments), "--home", str(tmp_path)])
        printed = capsys.readouterr()
        assert (left.value.code or 0) == exit_code, printed.err
        return json.loads(printed.out) if "--json" in arguments else printed.out + printed.err

    return run


def test_the_graph_tells_of_each_version_what_it_came_of(said: Said):
    told = said("lineage", "flights", "--json")
    first, second = told["versions"]
    assert (told["loop"], first["parent"], second["parent"], second["replaces"]) == ("flights", None, 1, 1)
    assert (first["code"], first["environment"]["numpy"], first["cause"]["why"]) == ("c0de", "2.4", "to <begin> with")
    assert [each["id"] for each in second["decisions"]] == ["r2-plan", "r2-gate"]
    assert (second["gate"]["outcome"], second["forgetting"]["churn_decisions"]) == ("fail", 0.12)
    assert second["otherwise"]["cpu_seconds"] == 4.0
    assert [one["version"] for one in said("lineage", "flights", "champion", "--json")["versions"]] == [1]
    assert [one["version"] for one in said("lineage", "flights", "2", "--json")["versions"]] == [1, 2]


def test_people_read_it_as_a_tree(said: Said):
    shown = said("lineage", "flights")
    for text in ("version 1 · champion · fitted · 900 rows · 4 s CPU", "└── version 2 · updated", "gates: fail",
                 "to <begin> with", "would have taken 900 rows and 4 s CPU (estimate: as version 1 did)",
                 "leaven 0.1.0, numpy 2.4", "rebuilding: no updated model was compared"):  # fmt: skip
        assert text in shown


def test_show_tells_cost_estimates_and_what_was_forgotten(said: Said):
    shown = said("show", "flights", "2")
    for text in ("estimate: as version 1 did", "0.001 kWh, 0.3 g CO2e (estimate: 20 W per busy core, 300 g/kWh)",
                 "0.5200, champion 0.5000, change 0.0200 (0.0100 to 0.0300)", "0.12 of decisions"):  # fmt: skip
        assert text in shown


def test_the_drawing_is_an_svg_with_every_version_and_what_it_came_of(said: Said, tmp_path: Path):
    file = tmp_path / "lineage.svg"
    said("lineage", "flights", "--svg", file)
    tree = ElementTree.fromstring(file.read_text())
    texts = " ".join(text.text or "" for text in tree.iter(f"{SVG}text"))
    assert len(list(tree.iter(f"{SVG}circle"))) == 2
    assert [("stroke-dasharray" in path.attrib) for path in tree.iter(f"{SVG}path")] == [False]
    assert "version 2 · updated" in texts
    assert "to <begin> with" in texts
    assert "does not end in .svg" in said("lineage", "flights", "--svg", "lineage.png", exit_code=2)


def a_node(version: int, parent: int | None = None, replaces: int | None = None) -> Node:
    blank: dict[str, Any] = dict.fromkeys(Node.__struct_fields__, "")
    given = {"version": version, "aliases": [], "parent": parent, "replaces": replaces, "environment": {}, "gate": None}
    lists = {"trials": [], "decisions": [], "cause": {}, "plan": {}, "training": {}}
    nothing = dict.fromkeys(("snapshot", "code", "forgetting", "otherwise", "energy", "compared"))
    return Node(**(blank | given | lists | nothing))


@pytest.mark.parametrize(
    ("above", "lanes"),
    [
        ({2: 1, 3: 2, 4: 3}, [0, 0, 0, 0]),
        ({2: 1, 3: 1, 4: 1}, [0, 1, 1, 0]),  # two that were refused stand beside the line
        ({2: 1, 3: 2, 4: 1}, [0, 1, 1, 0]),
        ({}, [0, 0, 0, 0]),
    ],
)
def test_no_line_runs_through_a_version_that_it_is_not_of(above, lanes):
    nodes = [a_node(number, above.get(number)) for number in (1, 2, 3, 4)]
    assert lanes_of(nodes) == lanes
    assert lanes_of([a_node(number, None, above.get(number)) for number in (1, 2, 3, 4)]) == lanes
    assert ElementTree.fromstring(drawn(Lineage("<loop>", nodes, RebuildAdvice(None, None, None, None, ""))))


def test_a_real_line_of_versions_is_drawn_with_its_comparisons_and_advice():
    plan = Hybrid(rebuild="9d", update="1d", compare_every=3)
    driver = Watched(a_shop(**QUICK, plan=plan, triggers=[]), a_past(16)).run(11)
    with driver.database.read() as connection:
        found = lineage_of(connection, "shop", value=100.0, cpu_price=0.01)
        line = lineage_of(connection, "shop", 3)
    assert [node.version for node in found.versions] == [one.number for one in made_of(driver)]
    assert [node.version for node in line.versions] == [1, 2, 3]
    assert sum(node.compared is not None for node in found.versions) == 1
    assert all(node.snapshot is not None and node.gate is not None for node in found.versions)
    assert found.rebuild.growth is not None
    assert msgspec.json.decode(msgspec.json.encode(found), type=Lineage)


LOOP = """
from sklearn.linear_model import SGDClassifier

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.learners import ScikitLearn
from leaven.training import Stateful

loop = Loop(
    "shop",
    features=[Feature("x", "float")],
    unit="user",
    label=Label("bought", above=0.5, within="1h"),
    learner=ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01)),
    data=AllHistory(),
    plan=Stateful(),
    holdout="1d",
    tick="1d",
)
"""


@pytest.mark.slow
def test_versions_of_an_installation_come_out_again_until_their_rows_are_erased(tmp_path, leaven):
    """All through the command line: import, two refreshes, both made again in the training process, an erasure."""
    (tmp_path / "shop.py").write_text(LOOP)
    (tmp_path / "past.csv").write_text("\n".join(["at,user,x,bought", *map(a_row, range(800))]))
    home = ("--home", tmp_path / "home")
    assert (
        leaven("events", "import", tmp_path / "shop.py", tmp_path / "past.csv", "--time", "at", *home).returncode == 0
    )
    for day in (12, 18):
        refresh(tmp_path, leaven, as_of=1_767_225_600_000_000 + day * 86_400_000_000)
    versions = json.loads(leaven("lineage", "shop", "--json", *home).stdout)["versions"]
    assert [(one["mode"], one["parent"]) for one in versions] == [("fit", None), ("update", 1)]
    assert all(one["code"] and one["environment"]["sklearn"] for one in versions)
    for number in (1, 2):
        again = leaven("reproduce", "shop", number, "--json", *home)
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["largest_difference"] == 0.0
    assert leaven("events", "erase", "shop", "--unit", "u3", "--now", *home).returncode == 0
    erased = leaven("reproduce", "shop", 1, *home)
    assert erased.returncode == 3
    assert "rows erased since a snapshot of 'shop' was taken" in erased.stderr


def a_row(i: int) -> str:
    x = (i * 7) % 11 - 5
    return f"2026-01-{1 + i // 40:02d}T{i % 24:02d}:00:00Z,u{i % 50},{x},{int(x > i % 3 - 1)}"


def refresh(folder: Path, leaven: Any, *, as_of: int) -> None:
    """Run the steps of a refresh, one by one."""
    given = folder / "begin.json"
    given.write_text(json.dumps({"loop": "shop", "as_of": as_of}))
    for step in ("snapshot", "train", "register", "gate", "trial", "promote"):
        out = folder / f"{step}.json"
        ran = leaven("step", step, "--in", given, "--out", out, "--home", folder / "home")
        assert ran.returncode == 0, ran.stderr
        given = out
