"""The demo tells a true story: what it prints is what its decisions and its traffic say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

Run = Callable[..., CompletedProcess[str]]


def test_the_quick_demo_promotes_a_fresh_model_and_rolls_a_broken_one_back(leaven: Run, tmp_path: Path):
    home = tmp_path / "demo"
    ran = leaven("demo", "--quick", "--home", str(home), "--json", seconds=170)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    live = told["live"]
    facts = [(d["kind"], d["outcome"], d["version"]) for d in live["decisions"]]
    assert facts.index(("trial", "advance", 2)) < facts.index(("trial", "promote", 2))
    assert ("trial", "roll_back", live["broken_version"]) in facts
    assert live["rolled_back"]
    assert live["broken_after_rollback"] == 0
    assert live["predictions"] > 500
    quality = {version: seen["roc_auc"] for version, seen in live["auc_by_version"].items()}
    assert quality["2"] > 0.6 > 0.5 > quality[str(live["broken_version"])]
    frozen, kept_fresh = told["runs"]
    assert kept_fresh["mean_window_metrics"]["roc_auc"] > frozen["mean_window_metrics"]["roc_auc"]
    verified = leaven("decisions", "flights", "--verify", "--json", "--home", str(home))
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["differing"] == []


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(leaven: Run, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    ran = leaven("demo", "--quick", "--home", str(tmp_path))
    assert ran.returncode == 2
    assert "not empty" in ran.stderr
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"
