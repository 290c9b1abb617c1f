"""A trial of parameters is the trial of a version: it counts exposures, and nothing asks for a model."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from leaven.app import App
from leaven.controller.controller import Controller
from leaven.controller.people import promote_by_hand, prove
from leaven.controller.state import active_trial, find_trial
from leaven.controller.trials import _evidence, reconcile_trial
from leaven.duration import instant, micros
from leaven.errors import BadDefinition
from leaven.events.records import PredictionServed
from leaven.experiments.parameters import encoded
from leaven.loop import PARAMETERS
from leaven.loopfile import load_loop
from leaven.registry import routing, versions
from leaven.settings import settings_from
from tests.storage.builders import a_label, a_prediction, commit

LOOP = """
from leaven import Happens, Loop
from leaven.experiments import Canary
from leaven.learners import Parameters

loop = Loop("prompts", unit="reader", label=Happens("liked", within="1h"), learner=Parameters(),
            rollout=[Canary(0.5, each="1h", patience="2d")])
"""


def with_stage(stage: str) -> str:
    text = LOOP.replace('Canary(0.5, each="1h", patience="2d")', stage)
    return text.replace("import Canary", "import ABTest, Latency, Outcome")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "prompts.py").write_text(LOOP)
    yield from an_app(tmp_path)


def an_app(tmp_path: Path) -> Iterator[App]:
    made = App(settings_from({}, home=tmp_path / "home"))
    made.enter(tmp_path / "prompts.py")
    for prompt in ("plain", "warm"):
        digest = made.artifacts.put(encoded({"prompt": prompt}))
        with made.database.write() as connection:
            versions.register(connection, "prompts", artifact=digest, format=PARAMETERS, mode="fit",
                              definition_digest="d", at=1)  # fmt: skip
    promote_by_hand(made.database, "prompts", 1, by="ada", why="the first", now=made.clock.now())
    yield made
    made.close()


class NoRefresh:
    """A runner that must not be asked."""

    def start(self, refresh: object, *, now: object) -> None:
        raise AssertionError("a refresh was to be carried out")


def an_exposure(arm: str, unit: str, *, at: int, trial_table: int, id: str = "") -> PredictionServed:
    version = "2" if arm == "canary" else "1"
    return a_prediction(
        id or f"{arm} {unit}", at=instant(at), loop="prompts", unit=unit, role="exposure", arm=arm, version=version,
        answer=None, seconds=0.0, propensity=0.5, table=trial_table, features=None,
    )  # fmt: skip


def test_exposures_are_counted_once_and_are_no_failures(app: App):
    loop, parts = app.loop("prompts"), app.parts()
    trial = prove(parts, loop, 2, start_with=None, by="ada", now=app.clock.now())
    with app.database.read() as connection:
        table = routing.latest(connection, "prompts")
    assert table is not None
    begun = trial.opened_at + 1
    met = [an_exposure("canary", f"u{i}", at=begun + i, trial_table=table.revision) for i in range(30)]
    met += [an_exposure("champion", f"v{i}", at=begun + i, trial_table=table.revision) for i in range(20)]
    again = [an_exposure("canary", f"u{i}", at=begun + 10**6, trial_table=table.revision) for i in range(30)]
    heard = {"loop": "prompts", "name": "liked", "kind": "event", "at": instant(begun + 10**7)}
    liked = [a_label(f"canary u{i}", 1.0, **heard) for i in range(9)]
    commit(app.lake, *met, *liked)
    commit(app.lake, *again)
    late = instant(begun) + timedelta(hours=3)
    source = app.source("prompts")
    assert source.first() == instant(begun)
    _, evidence = _evidence(parts, loop, trial, metric="log_loss", now=late)
    for arm, units in ((evidence.canary, 30), (evidence.champion, 20)):
        assert (arm.units, arm.requests, arm.failures, arm.failed_units, arm.loss.count) == (units, units, 0, 0, 0)
    assert reconcile_trial(parts, loop, trial, now=late).state == "open"  # a canary compares answers, of which are none
    assert reconcile_trial(parts, loop, trial, now=late + timedelta(days=2)).state == "rolled_back"
    with app.database.read() as connection:
        back = routing.latest(connection, "prompts")
    assert [(arm.arm, arm.version) for arm in back.arms] == [("champion", "1")]


def test_the_prompt_that_is_liked_more_is_promoted_by_an_ab_test(tmp_path: Path):
    text = LOOP.replace('Canary(0.5, each="1h", patience="2d")', AB).replace("import Canary", "import ABTest, Outcome")
    (tmp_path / "prompts.py").write_text(text)
    for made in an_app(tmp_path):
        loop, parts = made.loop("prompts"), made.parts()
        trial = prove(parts, loop, 2, start_with=None, by="ada", now=made.clock.now())
        begun, events = trial.opened_at + 1, []
        for number in range(600):
            arm = ("canary", "champion")[number % 2]
            events.append(an_exposure(arm, f"u{number}", at=begun + number, trial_table=2))
            if number % 10 < (6 if arm == "canary" else 3):
                heard = {"loop": "prompts", "name": "liked", "kind": "event", "at": instant(begun + 10**7)}
                events.append(a_label(f"{arm} u{number}", 1.0, **heard))
        commit(made.lake, *events)
        assert reconcile_trial(parts, loop, trial, now=instant(begun) + timedelta(hours=2)).state == "open"
        assert reconcile_trial(parts, loop, trial, now=instant(begun) + timedelta(hours=4)).state == "promoted"


AB = 'ABTest(Outcome(Happens("liked", within="1h")), units=500, over="1h", every="1h", at_least="1h")'


@pytest.mark.parametrize("test", ["ABTest()", 'ABTest("f1")', "ABTest(Latency())"])
def test_what_only_answers_have_cannot_be_compared_of_parameters(tmp_path: Path, test: str):
    text = LOOP.replace('Canary(0.5, each="1h", patience="2d")', test).replace(
        "import Canary", "import ABTest, Latency"
    )
    (tmp_path / "prompts.py").write_text(text)
    with pytest.raises(BadDefinition, match="sets of parameters give none"):
        load_loop(tmp_path / "prompts.py")


def test_the_controller_ticks_such_a_loop_and_begins_no_refresh(app: App):
    controller, loop = Controller(app.parts(), NoRefresh()), app.loop("prompts")
    now = app.clock.now()
    commit(app.lake, an_exposure("champion", "u", at=micros(now) - 10**10, trial_table=1))
    controller.tick(loop, now)
    trial = prove(app.parts(), loop, 2, start_with="canary", by="ada", now=now)
    controller.tick(loop, now + timedelta(hours=1))
    with app.database.read() as connection:
        assert active_trial(connection, "prompts") == find_trial(connection, trial.id)


def test_shadows_of_parameters_cannot_be_asked_for(app: App):
    with pytest.raises(BadDefinition, match="the loop's rollout is"):
        prove(app.parts(), app.loop("prompts"), 2, start_with="shadow", by="ada", now=app.clock.now())
