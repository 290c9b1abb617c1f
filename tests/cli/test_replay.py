"""Does `leaven replay` refuse at once what it could not draw or run, and mark the better plan?"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from leaven.cli import main

FILE = """
from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.learners import XGBoost
from leaven.training import Stateless
from leaven.triggers import Every

loop = Loop(
    "shop", features=[Feature("x", "float")], unit="user", label=Label("spent", within="1h"),
    learner=XGBoost(rounds=5, eta=0.9), data=Recent("7d"), plan=Stateless(), triggers=[Every("7d")], holdout="1d",
    tick="1d",
)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Ten weeks of a shop in which everybody spends more every day, whatever `x` is."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(FILE)
    rng, rows = np.random.default_rng(3), 1_400
    at = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.linspace(0, 70, rows, endpoint=False), unit="D")
    x = rng.normal(size=rows)
    pd.DataFrame({"at": at, "x": x, "spent": x + np.linspace(0, 70, rows)}).to_csv(folder / "past.csv", index=False)
    return folder


@pytest.fixture
def replayed(shop, capsys):
    """Return a function that replays the shop, and gives exit code, stdout and stderr."""

    def run(*more: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["replay", str(shop / "shop.py"), "--data", str(shop / "past.csv"), "--time", "at", *map(str, more)])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, " ".join(said.err.split())

    return run


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--plan", "fresh"], "--plan: there is no plan 'fresh'"),
        (["--compare", "frozen,fresh"], "--compare: there is no plan 'fresh'"),
        (["--plan", "frozen", "--compare", "frozen,stateful"], "both say which plans to run"),
        (["--plot", "weeks.pdf"], "neither .svg nor .png"),
        (["--plot", "nowhere/weeks.svg"], "no folder nowhere"),
    ],
    ids=["plan", "compare", "both", "ending", "folder"],
)
def test_what_cannot_be_done_is_refused_before_anything_is_replayed(replayed, more, why, monkeypatch):
    monkeypatch.setattr("leaven.controller.replay.replay", lambda *given, **more: pytest.fail("it was replayed"))
    code, out, told = replayed(*more)
    assert (code, out) == (2, "")
    assert why in told


def test_a_plan_with_the_smaller_error_is_marked_as_the_better_one(replayed, shop, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, _ = replayed("--compare", "frozen,stateless", "--plot", shop / "weeks.png")
    assert code == 0
    marked = next(line for line in out.splitlines() if "2026-03" in line)
    frozen, fresh = marked.split("2026-03")[1].split("│")[1:3]
    assert float(_plain(frozen)) > float(_plain(fresh))
    assert ("\x1b[1m" in frozen, "\x1b[1m" in fresh) == (False, True)
    assert (shop / "weeks.png").read_bytes().startswith(b"\x89PNG")


def test_windows_cover_all_that_follows_the_first_model(replayed):
    code, out, _ = replayed("--plan", "frozen", "--start", "2026-01-15", "--window", "28d", "--json")
    assert code == 0
    (run,) = json.loads(out)["runs"]
    assert [window["rows"] for window in run["windows"]] == [28 * 20, 28 * 20]
    code, out, _ = replayed("--plan", "frozen", "--start", "2026-01-15", "--window", "23d", "--json")
    (run,) = json.loads(out)["runs"]
    assert [window["rows"] for window in run["windows"]] == [23 * 20, 33 * 20]


def _plain(cell: str) -> str:
    return cell.replace("\x1b[1m", "").replace("\x1b[0m", "").strip()
