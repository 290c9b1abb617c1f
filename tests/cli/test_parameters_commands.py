"""`leaven parameters`: what people wrote is a version, proven, promoted and rolled back as any version is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from leaven.app import App
from leaven.cli import main
from leaven.experiments.parameters import MOST_BYTES
from leaven.registry import routing
from leaven.settings import settings_from

LOOP = """
from leaven import Feature, Happens, Loop
from leaven.experiments import Canary
from leaven.learners import Parameters

loop = Loop(
    "prompts",
    features=[Feature("country", "category")],
    unit="reader",
    label=Happens("liked", within="1d"),
    learner=Parameters(),
    rollout=[Canary(0.25, each="1h")],
)
"""
MODEL = """
from sklearn.linear_model import LogisticRegression
from leaven import Feature, Happens, Loop
from leaven.curation import AllHistory
from leaven.learners import ScikitLearn
from leaven.training import Stateless

loop = Loop("shop", features=[Feature("x", "float")], unit="user", label=Happens("bought", within="1d"),
            learner=ScikitLearn(LogisticRegression()), data=AllHistory(), plan=Stateless())
"""
PLAIN, WARM = {"prompt": "Answer: {question}", "temperature": 0.2}, {"prompt": "Be kind. {question} [/b]"}


class Desk:
    """An installation with a loop of parameters and one of a model, and the command line on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.app = App(settings_from({}, home=folder / "home"))
        for name, text in (("prompts.py", LOOP), ("shop.py", MODEL)):
            (folder / name).write_text(text)
            self.app.enter(folder / name)

    def leaven(self, *arguments: str, exit_code: int = 0, home: bool = True, as_json: bool = True) -> Any:
        with pytest.raises(SystemExit) as left:
            main([*arguments, *(["--home", str(self.folder / "home")] if home else []), *["--json"] * as_json])
        printed = self._capsys.readouterr()
        assert (left.value.code or 0) == exit_code, printed
        return json.loads(printed.out) if as_json else printed.out

    def add(self, parameters: Any, *options: str, exit_code: int = 0, **more: Any) -> Any:
        path = self.folder / "given.json"
        path.write_text(parameters if isinstance(parameters, str) else json.dumps(parameters))
        return self.leaven("parameters", "add", "prompts", str(path), *options, exit_code=exit_code, **more)

    def routes(self) -> list[tuple[str, str, float]]:
        with self.app.database.read() as connection:
            table = routing.latest(connection, "prompts")
        return [] if table is None else [(arm.arm, arm.version, arm.propensity) for arm in table.arms]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for name in ("LEAVEN_DATABASE", "LEAVEN_CLOCK", "LEAVEN_HOME"):
        monkeypatch.delenv(name, raising=False)
    made = Desk(tmp_path, capsys)
    yield made
    made.app.close()


def test_the_first_parameters_serve_and_later_ones_wait(desk: Desk):
    added = desk.add(PLAIN, "--name", "plain")
    assert added == {"loop": "prompts", "version": 1, "name": "plain", "champion": True, "parameters": PLAIN}
    assert desk.routes() == [("champion", "1", 1.0)]
    (decision,) = desk.leaven("decisions", "prompts")
    assert (decision["kind"], decision["why"]) == ("promote", "there was no champion before it")
    assert desk.add(WARM)["champion"] is False
    assert desk.routes() == [("champion", "1", 1.0)]
    assert desk.leaven("parameters", "show", "prompts") == {
        "loop": "prompts", "version": 1, "name": "plain", "aliases": ["champion"], "parameters": PLAIN,
    }  # fmt: skip
    assert desk.leaven("parameters", "show", "prompts", "2")["parameters"] == WARM
    assert [each["format"] for each in desk.leaven("versions", "prompts")] == ["parameters"] * 2


def test_parameters_are_proven_promoted_and_rolled_back_like_any_version(desk: Desk):
    desk.add(PLAIN)
    desk.add(WARM)
    trial = desk.leaven("prove", "prompts", "2")
    assert desk.routes() == [("canary", "2", 0.25), ("champion", "1", 0.75)]
    assert desk.leaven("status", "prompts")["loops"][0]["trial"]["id"] == trial["id"]
    desk.leaven("rollback", "prompts")
    assert desk.routes() == [("champion", "1", 1.0)]
    desk.leaven("promote", "prompts", "2")
    assert desk.routes() == [("champion", "2", 1.0)]
    desk.leaven("rollback", "prompts")
    assert desk.routes() == [("champion", "1", 1.0)]
    assert desk.add({"threshold": 0.7}, "--champion")["champion"] is True
    assert desk.routes() == [("champion", "3", 1.0)]
    assert desk.leaven("show", "prompts", "3")["version"]["format"] == "parameters"
    assert desk.leaven("diff", "prompts", "1", "3")["differences"]


def test_the_same_parameters_may_be_tried_against_themselves(desk: Desk):
    desk.add(PLAIN)
    desk.add(PLAIN)
    desk.leaven("prove", "prompts", "2")
    assert [version for _, version, _ in desk.routes()] == ["2", "1"]


def test_parameters_come_from_stdin_too(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    class Piped:
        buffer = io.BytesIO(json.dumps(WARM).encode())

    monkeypatch.setattr("sys.stdin", Piped)
    assert desk.leaven("parameters", "add", "prompts", "-")["parameters"] == WARM


def test_people_read_what_happened_and_what_to_do(desk: Desk):
    assert "version 1 of prompts is the champion, and everybody gets it" in desk.add(PLAIN, as_json=False)
    said = desk.add(WARM, "--name", "warm", as_json=False)
    assert "version 2 of prompts is registered; nobody gets it yet" in said
    assert "leaven prove prompts 2" in said
    shown = desk.leaven("parameters", "show", "prompts", "2", as_json=False)
    assert "prompts version 2 (warm)" in shown
    assert json.loads(shown.partition("\n")[2]) == WARM  # as it is: brackets are no markup
    assert "warm" in desk.leaven("versions", "prompts", as_json=False)
    assert "parameters that a person wrote" in desk.leaven("show", "prompts", as_json=False)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("[1]", "it is no JSON object"),
        ("{}", "it holds no parameter"),
        (json.dumps({"prompt": "x" * MOST_BYTES}), "bytes are more than 65536"),
    ],
    ids=range(3),
)
def test_what_is_no_set_of_parameters_is_refused_and_nothing_is_kept(desk: Desk, given: str, why: str):
    assert why in desk.add(given, exit_code=2)["error"]
    assert desk.leaven("versions", "prompts") == []


def test_what_needs_a_model_says_so(desk: Desk):
    desk.add(PLAIN)
    (desk.folder / "past.csv").write_text("country,reader,liked\nde,a,1\n")
    (desk.folder / "in.json").write_text('{"loop": "prompts"}')
    past, prompts = str(desk.folder / "past.csv"), str(desk.folder / "prompts.py")
    for refused in (
        desk.leaven("retrain", "prompts", exit_code=2),
        desk.leaven("endpoint", "add", "prompts", "--url", "http://127.0.0.1:1", "--model", "m", exit_code=2),
        desk.leaven("events", "import", "prompts", past, "--time", "country", exit_code=2),
        desk.leaven("check", prompts, "--data", past, exit_code=2, home=False),
        desk.leaven("replay", prompts, "--data", past, "--time", "country", exit_code=2, home=False),
    ):
        assert "the versions of 'prompts' are sets of parameters, which people write" in refused["error"], refused
    with pytest.raises(SystemExit) as left:
        main(["step", "snapshot", "--in", str(desk.folder / "in.json"), "--out", str(desk.folder / "out.json"),
              "--home", str(desk.folder / "home")])  # fmt: skip
    assert left.value.code == 2
    assert desk.leaven("check", prompts, home=False)["ok"] is True
    wrong = desk.leaven("parameters", "add", "shop", prompts, exit_code=2)
    assert "the versions of 'shop' are models" in wrong["error"]
    assert "learner=Parameters()" in wrong["error"]
