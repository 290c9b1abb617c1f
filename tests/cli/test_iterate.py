"""`leaven iterate` and the words of `leaven check` and `leaven status`, as a person types them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leaven.app import App
from leaven.cli import main
from leaven.learners import XGBoost
from leaven.learners.artifact import ModelArtifact
from leaven.loopfile import load_loop
from leaven.registry import aliases, loops, versions
from leaven.registry.decisions import Decision, record
from leaven.settings import settings_from
from tests.learners.builders import a_training_set

Said = Callable[..., Any]
FILE = """
    from leaven import Feature, Label, Loop
    from leaven.curation import AllHistory
    from leaven.learners import XGBoost
    from leaven.training import Stateful

    loop = Loop("shop", features=[Feature("colour", "category"), Feature("size", "float"), Feature("count", "int"),
                Feature("new", "bool"){more}], unit="user", label=Label("bought", above=0.5, within="1h"),
                learner=XGBoost({rounds}, threads=1), data=AllHistory(), plan=Stateful())
"""


def written(folder: Path, *, more: str = "", rounds: int = 5) -> Path:
    path = folder / "shop.py"
    path.write_text(textwrap.dedent(FILE).format(more=more, rounds=rounds))
    return path


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    for name in ("LEAVEN_DATABASE", "LEAVEN_CLOCK", "LEAVEN_HOME"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, exit_code: int = 0) -> Any:
        with pytest.raises(SystemExit) as left:
            main([*map(str, arguments), "--home", str(tmp_path / "home")])
        printed = capsys.readouterr()
        assert (left.value.code or 0) == exit_code, printed.err
        return json.loads(printed.out) if "--json" in arguments else " ".join((printed.out + printed.err).split())

    return run


@pytest.fixture
def installed(tmp_path: Path, said: Said) -> Callable[..., None]:
    """Register a version of the loop as its file says; with a gain, its gates found that against the one before."""
    app = App(settings_from(home=tmp_path / "home"))
    data = a_training_set(200)
    files = XGBoost(5, threads=1).fit(data, seed=1)
    kept = app.artifacts.put(ModelArtifact("xgboost-ubj", data.encoder, "XGBoost(5)", files).to_files())

    def enter(number: int, gain: float | None = None, *, promoted: bool = False, **other: Any) -> None:
        loop = load_loop(written(tmp_path, **other))
        refresh = f"r{number}"
        lineage = {"training": {"cpu_seconds": 3.0}, "replaces": None if gain is None else 1}
        with app.database.write() as connection:
            loops.put(connection, loop, path=str(tmp_path / "shop.py"), source="", at=number)
            versions.register(
                connection, "shop", artifact=kept, format="xgboost-ubj", mode="fit", definition_digest=loop.digest,
                at=number, refresh=refresh, lineage=lineage,
            )  # fmt: skip
            if gain is not None:
                apart = {"estimate": -gain, "low": -gain - 0.02, "high": -gain + 0.02, "level": 0.95, "n": 400}
                fresh = {"rows": 400, "challenger": 0.5 - gain, "champion": 0.5, "difference": apart}
                learnt = {"metric": "log_loss", "fresh": fresh, "past": None, "backward_transfer": None,
                          "churn_decisions": None, "churn_answers": None}  # fmt: skip
                record(connection, Decision(f"{refresh}-gate", "shop", number, "gate", "pass", number,
                                            evidence={"forgetting": learnt}, refresh=refresh))  # fmt: skip
            if promoted:
                aliases.set_alias(connection, "shop", "champion", number, decision="d", at=number)

    return enter


def test_another_model_that_paid_more_is_named_with_its_interval(installed, said):
    installed(1, promoted=True)
    for number in range(2, 6):
        installed(number, 0.01)
    for number in range(6, 10):
        installed(number, 0.08, rounds=5 + number)
    told = said("iterate", "shop", "--json")
    assert told["verdict"] == "model"
    assert (told["kinds"]["data"]["tried"], told["parts"]["parameters"]["tried"]) == (4, 4)
    assert told["difference"]["estimate"] == pytest.approx(0.07)
    assert told["kinds"]["model"]["seconds_per_share"] == pytest.approx(3 / 16)  # a gain of 16 %
    assert told["unmeasured"] == {"there was no champion to compare with": 1}
    shown = said("iterate", "shop")
    assert "Model iteration has paid more: changing the model gained +0.0700 [" in shown
    assert "promoted or not" in shown
    assert "not counted: 1 version, as there was no champion" in shown


def test_of_too_few_it_says_so_and_of_none_as_well(installed, said):
    installed(1, promoted=True)
    assert "No challenger of shop has met a champion" in said("iterate", "shop")
    installed(2, 0.01)
    assert "Not enough evidence: it takes 3 measured refreshes of each kind" in said("iterate", "shop")
    assert "no loop 'nobody' is registered" in said("iterate", "nobody", exit_code=3)


def test_check_and_status_say_what_a_changed_file_comes_to(installed, said, tmp_path):
    installed(1, promoted=True)
    path = tmp_path / "shop.py"
    assert "champion" not in {finding["about"] for finding in said("check", path, "--json")["findings"]}
    assert said("status", "shop", "--json")["loops"][0]["offer"] is None
    written(tmp_path, more=', Feature("w", "float")')
    (finding,) = [one for one in said("check", path, "--json")["findings"] if one["about"] == "champion"]
    assert finding["level"] == "note"
    assert "gained w (float) since version 1, the champion: the next refresh goes by surgery" in finding["text"]
    assert said("status", "shop", "--json")["loops"][0]["offer"]["chosen"] == "surgery"
    assert "changed the features gained w (float) since version 1" in said("status", "shop")
    path.write_text("nothing")
    assert "cannot be read" in said("status", "shop")


def test_check_makes_no_installation(said, tmp_path):
    said("check", written(tmp_path))
    assert not (tmp_path / "home").exists()
