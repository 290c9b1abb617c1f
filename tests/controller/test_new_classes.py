"""A class comes in the middle of a loop's life: does the champion learn it, through gates and trial?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from leaven.controller import state
from leaven.controller.history import HistoryLog
from leaven.controller.planning import changes
from leaven.controller.surgery import can_grow
from leaven.errors import BadDefinition
from leaven.events import Happens, Label
from leaven.events.source import Span
from leaven.experiments import ABTest, Canary, Outcome, Shadow
from leaven.gates import NotWorse, Sane
from leaven.learners import LightGBM, XGBoost
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Loop
from leaven.registry.versions import versions
from leaven.storage.history_file import History
from leaven.training import Hybrid, Stateful
from leaven.training.surgery import Proof
from tests.controller.pasts import Watched, a_loop, a_past, day

KINDS = ("cat", "dog", "fox")
COMES = 9


def a_past_with_foxes(days: int = 22, *, comes: int = COMES) -> History:
    """Cats and dogs by their weight; from the ninth day on foxes as well, which are redder."""
    past, rng = a_past(days), np.random.default_rng(3)
    late = past.at >= np.datetime64(day(comes).replace(tzinfo=None), "us")
    place = np.where(late & (rng.random(len(past)) < 0.4), 2, rng.integers(0, 2, len(past)))
    x = np.array([-1.0, 1.0, 0.0])[place] + rng.normal(0, 0.7, len(past))
    z = np.array([0.0, 0.0, 3.0])[place] + rng.normal(0, 0.7, len(past))
    return replace(past, outcome=place.astype(float), features={"x": x, "z": z})


def a_zoo(learner: Any, *classes: str, plan: Any) -> Loop:
    return a_loop(
        learner=learner, plan=plan, label=Label("bought", classes=classes, within="6h"),
        gates=[NotWorse("log_loss", margin=0.5, min_rows=50), Sane()],
        rollout=[Shadow("12h", margin=0.5, min_units=20), Canary(0.5, each="12h", margin=1.0, min_units=10)],
    )  # fmt: skip


def a_class_came(learner: Any, *, plan: Any, until: float = 21) -> Watched:
    past = a_past_with_foxes()
    driver = Watched(a_zoo(learner, "cat", "dog", plan=plan), past)
    driver.log = HistoryLog(past, classes=3)
    driver.parts.source = lambda name: driver.log
    driver.run(10.25)
    driver.loop = a_zoo(learner, *KINDS, plan=plan)
    driver.parts.loop = lambda name: driver.loop
    driver.enter(driver.now)
    return driver.run(until)


def test_a_champion_is_given_the_class_by_surgery_proven_and_promoted_and_answers_it():
    driver = a_class_came(XGBoost(20, max_depth=2, threads=1), plan=Stateful())
    with driver.database.read() as connection:
        (made,) = [each for each in versions(connection, "shop") if "surgery" in each.lineage]
    proof = msgspec.convert(made.lineage["surgery"], Proof)
    assert proof.operation == "AddClasses(1, 0.01)"
    assert proof.passed
    assert made.mode == "update"
    champion = driver.alias("champion")
    assert champion is not None
    assert champion >= made.number
    examples = driver.log.examples(Span(day(18), driver.now), driver.loop.label, as_of=driver.now).mature()
    foxes = examples.take(examples.labels.value == 2)
    assert len(foxes) > 50
    assert (foxes.predictions.answer.argmax(axis=1) == 2).mean() > 0.8


@pytest.mark.parametrize("plan", [Hybrid(update="4d"), Hybrid(update="4d", rebuild_on="schema")], ids=str)
def test_trees_that_cannot_be_given_a_class_are_fitted_from_scratch(plan):
    driver = a_class_came(LightGBM(20, num_leaves=4, threads=1), plan=plan, until=16)
    with driver.database.read() as connection:
        made = versions(connection, "shop")
    first = next(each for each in made if len(_classes(driver, each.artifact)) == 3)
    assert first.mode == "fit"


def _classes(driver: Watched, artifact: str) -> tuple[str, ...]:
    return ModelArtifact.from_files(driver.parts.artifacts.get(artifact)).encoder.classes


def test_an_ab_test_compares_classes_by_the_loss_and_takes_no_score():
    loop = a_zoo(XGBoost(10, max_depth=2, threads=1), *KINDS, plan=Stateful())
    stage = ABTest("log_loss", units=400, over="6h", every="12h", at_least="1d", patience="10d", adjust="before")
    past = a_past_with_foxes(15, comes=0)
    driver = Watched(replace(loop, rollout=[stage]), past).run(14)
    with driver.database.read() as connection:
        kept = state.kept_evidence(connection, driver.trial().id, 0)
    means = [arm["centres"][0] for arm in kept["sums"]["cells"][0]["arms"].values()]
    assert all(0 < mean < 1.5 for mean in means), means  # less than guessing among three
    scored = replace(stage, metric=Outcome(Happens("returned", within="1h")), adjust="score")
    with pytest.raises(BadDefinition, match="a score is one number"):
        replace(loop, rollout=[scored])


def test_what_became_of_the_classes_is_said():
    plan = Stateful()
    two, three = (a_zoo(XGBoost(), *KINDS[:count], plan=plan) for count in (2, 3))
    turned = a_zoo(XGBoost(), "dog", "cat", plan=plan)
    encoder = Watched(two, a_past_with_foxes()).run(6.5)
    with encoder.database.read() as connection:
        artifact = versions(connection, "shop")[0].artifact
    known = ModelArtifact.from_files(encoder.parts.artifacts.get(artifact)).encoder
    said = [changes(known, loop.schema, "xgboost-ubj", "xgboost-ubj") for loop in (two, three, turned)]
    assert said == ["", "the classes gained fox", "the classes changed their order"]
    assert [can_grow(loop, known, "xgboost-ubj") for loop in (two, three, turned)] == [True, True, False]
    assert not can_grow(a_zoo(LightGBM(), *KINDS, plan=plan), known, "lightgbm-text")
