"""A version learns from the answers of the one before it: is it better than one that learns from outcomes alone?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from leaven import Feature
from leaven.controller.reproducing import reproduce
from leaven.curation import Recent
from leaven.learners import XGBoost
from leaven.learners.artifact import ModelArtifact
from leaven.registry.versions import VersionRecord, versions
from leaven.stats.intervals import mean_interval
from leaven.stats.metrics import METRICS
from leaven.stats.moments import moments
from leaven.storage.history_file import History
from leaven.training import Distill, Stateless
from tests.controller.pasts import Watched, a_loop, a_past

X, Z, W = (Feature(name, "float") for name in "xzw")
TEACHER, STUDENT = XGBoost(40, max_depth=2, eta=0.2, threads=1), XGBoost(10, max_depth=2, eta=0.5, threads=1)
EDITED = 15.25


def a_past_of_three() -> History:
    """Buying follows x and, less closely, w; z says nothing."""
    past, rng = a_past(22, per_day=240), np.random.default_rng(5)
    w = rng.normal(size=len(past))
    bought = rng.random(len(past)) < 1 / (1 + np.exp(-1.5 * past.features["x"] - 1.0 * w))
    return replace(past, outcome=bought.astype(float), features={**past.features, "w": w})


def shrunk(plan: Any) -> Watched:
    """A champion of many rows and three features; from day 15 on a smaller model of one feature and half a day."""
    straight = {"gates": [], "rollout": []}
    driver = Watched(a_loop(learner=TEACHER, features=[X, Z, W], data=Recent("12d"), **straight), a_past_of_three())
    driver.run(EDITED, start=14)
    driver.loop = a_loop(learner=STUDENT, features=[X], data=Recent("12h"), plan=plan, **straight)
    driver.parts.loop = lambda name: driver.loop
    driver.enter(driver.now)
    return driver.run(19)


def the_student(driver: Watched) -> VersionRecord:
    with driver.database.read() as connection:
        return versions(connection, "shop")[1]


def losses_of(driver: Watched, number: int, past: History) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Log loss of each of the last 1,000 rows, none of which anybody learnt from."""
    columns = {name: column[-1000:] for name, column in past.features.items()}
    row_loss = METRICS["log_loss"].row_loss
    assert row_loss is not None
    return row_loss(past.outcome[-1000:], driver.parts.model("shop", number).answer(columns))


def test_a_smaller_student_of_fewer_features_is_close_to_its_teacher_and_better_than_without():
    with_teacher, alone = shrunk(Distill(weight=0.8)), shrunk(Stateless())
    made, past = the_student(with_teacher), a_past_of_three()
    assert made.lineage["teacher"] == 1
    assert "80% are what version 1 (champion) answers" in made.lineage["plan"]["why"]
    ours, theirs = (losses_of(driver, the_student(driver).number, past) for driver in (with_teacher, alone))
    assert mean_interval(moments(ours - theirs), alpha=0.01).high < 0  # each of half a day's rows
    best = losses_of(with_teacher, 1, past)  # knows w as well
    assert (ours - best).mean() < 0.8 * (theirs - best).mean()
    sizes = [
        len(ModelArtifact.from_files(with_teacher.parts.artifacts.get(digest)).files["model.ubj"])
        for digest in (made.artifact, versions_of(with_teacher)[0].artifact)
    ]
    assert sizes[0] < 0.4 * sizes[1]
    again = reproduce(with_teacher.parts, with_teacher.loop, made.number)
    assert again.equal, again.why


def versions_of(driver: Watched) -> list[VersionRecord]:
    with driver.database.read() as connection:
        return versions(connection, "shop")


def test_without_a_teacher_yet_the_outcomes_alone_are_learnt():
    driver = Watched(a_loop(learner=STUDENT, plan=Distill(), gates=[], rollout=[]), a_past(8)).run(7)
    (first,) = versions_of(driver)
    assert "teacher" not in first.lineage
    assert driver.decisions("plan")[0].why == "fitted from scratch; there is no champion to learn from yet"
    assert np.isin(driver.trained[0].label, [0.0, 1.0]).all()
    driver.run(12)
    assert ((driver.trained[-1].label > 0) & (driver.trained[-1].label < 1)).all()
