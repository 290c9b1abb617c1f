"""A feature is added to a loop in the middle of its life: does the champion go on with it, through gates and trial?"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import SGDClassifier

from leaven import Feature
from leaven.controller.reproducing import reproduce
from leaven.controller.surgery import can_grow
from leaven.events.source import Span
from leaven.learners import LightGBM, ScikitLearn, XGBoost
from leaven.learners.artifact import ModelArtifact
from leaven.learners.residual import parents_in
from leaven.loop import Loop
from leaven.registry.versions import VersionRecord, version, versions
from leaven.stats.intervals import Interval
from leaven.stats.metrics import METRICS
from leaven.storage.history_file import History
from leaven.training import Hybrid, Stateful
from leaven.training.surgery import Proof
from tests.controller.pasts import Watched, a_loop, a_past, day

X, Z, W = (Feature(name, "float") for name in "xzw")
GROWERS = {
    "xgboost": XGBoost(20, max_depth=2, threads=1),
    "lightgbm": LightGBM(20, num_leaves=4, threads=1),
    "sgd": ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.02), categories="one-hot"),
}
EDITED = 10.25
STATEFUL, RESIDUAL = Stateful(), Stateful(grow_by="residual")


def a_past_in_which_w_matters(days: int = 25) -> History:
    """As the usual past, but buying follows a third number as well, which the application sends from day 9 on."""
    past, rng = a_past(days), np.random.default_rng(5)
    w = rng.normal(size=len(past))
    bought = rng.random(len(past)) < 1 / (1 + np.exp(-2.5 * past.features["x"] - 3 * w))
    told = np.where(past.at >= np.datetime64(day(9).replace(tzinfo=None), "us"), w, np.nan)
    return replace(past, outcome=bought.astype(float), features={**past.features, "w": told})


def a_shop(learner: Any, *features: Feature, plan: Any = STATEFUL) -> Loop:
    return a_loop(learner=learner, features=list(features), plan=plan)


def edited_in_the_middle(learner: Any, *features: Feature, until: float = 24, plan: Any = STATEFUL) -> Watched:
    """A replay in which the loop file gets other features on day 10, as `leaven up` would take the new file."""
    driver = Watched(a_shop(learner, X, Z, plan=plan), a_past_in_which_w_matters()).run(EDITED)
    driver.loop = a_shop(learner, *features, plan=plan)
    driver.parts.loop = lambda name: driver.loop
    driver.enter(driver.now)
    return driver.run(until)


def begun_by(before: Any, after: Any, *features: Feature, until: float = 24, plan: Any = RESIDUAL) -> Watched:
    """As above, with another learner in the new file."""
    driver = Watched(a_shop(before, X, Z, plan=plan), a_past_in_which_w_matters()).run(EDITED)
    driver.loop = a_shop(after, *features, plan=plan)
    driver.parts.loop = lambda name: driver.loop
    driver.enter(driver.now)
    return driver.run(until)


def grown(driver: Watched) -> list[VersionRecord]:
    with driver.database.read() as connection:
        return [each for each in versions(connection, "shop") if "surgery" in each.lineage]


@pytest.mark.parametrize(
    ("learner", "plan", "operation"),
    [(GROWERS["xgboost"], STATEFUL, 'AddFeatures(["w"])'), (GROWERS["lightgbm"], STATEFUL, 'AddFeatures(["w"])'),
     (GROWERS["sgd"], STATEFUL, 'AddFeatures(["w"])'), (GROWERS["xgboost"], RESIDUAL, 'CorrectParent(["w"])'),
     (GROWERS["lightgbm"], RESIDUAL, 'CorrectParent(["w"])')],
    ids=["xgboost", "lightgbm", "sgd", "xgboost, residual", "lightgbm, residual"],
)  # fmt: skip
def test_a_champion_is_grown_proven_updated_and_promoted_and_then_answers_better(learner, plan, operation):
    driver = edited_in_the_middle(learner, Z, W, X, plan=plan)  # in another order as well
    (made,) = grown(driver)  # once: later updates continue a model that has the feature
    proof = msgspec.convert(made.lineage["surgery"], Proof)
    assert proof.passed
    assert proof.operation == operation
    assert made.mode == "update"
    assert made.refresh in [one.id for one in driver.refreshes() if one.state == "promoted"]
    again = reproduce(driver.parts, driver.loop, made.number)
    assert again.equal, again.why
    champion = driver.alias("champion")
    assert champion is not None
    assert champion >= made.number
    without = Watched(a_shop(learner, X, Z, plan=plan), a_past_in_which_w_matters()).run(24)
    ours, theirs = (_served_from(each, day(20)) for each in (driver, without))
    assert ours.high < theirs.low


def _served_from(driver: Watched, moment: datetime) -> Interval:
    """Log loss of what was served from a moment on."""
    examples = driver.log.examples(Span(moment, driver.now), driver.loop.label, as_of=driver.now).predicted().mature()
    return METRICS["log_loss"].measure(examples.labels.value, examples.predictions.answer)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_booster_goes_on_from_a_champion_of_another_learner_which_it_keeps_whole(name):
    driver = begun_by(ScikitLearn(HistGradientBoostingClassifier(max_iter=10)), GROWERS[name], X, Z, W, until=20)
    (made,) = grown(driver)
    files = ModelArtifact.from_files(driver.parts.artifacts.get(made.artifact)).files
    assert "base/model/model.skops" in files
    assert made.format == GROWERS[name].format
    assert made.refresh in [one.id for one in driver.refreshes() if one.state == "promoted"]
    assert made.lineage["plan"]["grow_by"] == "residual"
    whys = " ".join(decision.why for decision in driver.decisions("plan"))
    assert f"as the kind of model changed from skops to {made.format} and the features gained w (float)" in whys
    with driver.database.read() as connection:
        later = [one for one in versions(connection, "shop") if one.parent == made.number]
    assert later  # what came then continues the two of them
    assert parents_in(ModelArtifact.from_files(driver.parts.artifacts.get(later[-1].artifact)).files) == 1
    again = reproduce(driver.parts, driver.loop, made.number)
    assert again.equal, again.why


def test_a_hybrid_plan_keeps_a_champion_whole_and_rebuilds_once_it_cannot_be_corrected(monkeypatch):
    plan = Hybrid(rebuild=None, rebuild_on=["size"], grow_by="residual")
    monkeypatch.setattr("leaven.learners.residual.MOST_PARENTS", 1)
    driver = begun_by(GROWERS["lightgbm"], GROWERS["xgboost"], X, Z, plan=plan, until=16)
    assert len(grown(driver)) == 1
    driver.loop = a_shop(GROWERS["xgboost"], X, Z, W, plan=plan)
    driver.parts.loop = lambda name: driver.loop
    driver.enter(driver.now)
    driver.run(22)
    why = driver.decisions("plan")[-1].why
    assert (
        "rebuilt, as the features gained w (float) since the champion, which cannot be corrected: 1 models"
        in " ".join(decision.why for decision in driver.decisions("plan"))
    ), why


def test_a_hybrid_plan_rebuilds_on_a_new_feature_or_grows_and_says_which():
    whys = {}
    for name, occasions in (("rebuilds", ["schema"]), ("grows", ["gap"])):
        plan = Hybrid(rebuild="60d", rebuild_on=occasions)
        driver = edited_in_the_middle(GROWERS["xgboost"], X, Z, W, until=19, plan=plan)
        whys[name] = " ".join(decision.why for decision in driver.decisions("plan"))
        assert bool(grown(driver)) == (name == "grows")
    assert 'gained w (float) since the champion (it would be grown if rebuild_on had no "schema")' in whys["rebuilds"]
    assert "and is grown first, as the features gained w (float)" in whys["grows"]


def test_a_learner_that_cannot_grow_fails_the_refresh_and_says_why():
    refreshing = XGBoost(20, max_depth=2, update_by="refresh", threads=1)
    driver = edited_in_the_middle(refreshing, X, Z, W, until=19)
    assert not grown(driver)
    failed = [one for one in driver.refreshes() if one.state == "failed"]
    assert failed
    assert "gained w (float) since the champion" in str(failed[0].error)


def test_it_is_known_beforehand_whether_a_champion_could_be_grown():
    driver = Watched(a_shop(GROWERS["xgboost"], X, Z), a_past_in_which_w_matters()).run(7)
    with driver.database.read() as connection:
        kept = version(connection, "shop", 1).artifact
    encoder = ModelArtifact.from_files(driver.parts.artifacts.get(kept)).encoder
    assert can_grow(a_shop(GROWERS["xgboost"], W, Z, X), encoder, "xgboost-ubj")
    assert not can_grow(a_shop(GROWERS["xgboost"], W, X), encoder, "xgboost-ubj")  # z is gone
    assert not can_grow(a_shop(GROWERS["xgboost"], X, Feature("z", "int"), W), encoder, "xgboost-ubj")
    assert not can_grow(a_shop(XGBoost(5, update_by="refresh"), X, Z, W), encoder, "xgboost-ubj")
    assert not can_grow(a_shop(ScikitLearn(SGDClassifier(loss="log_loss")), X, Z, W), encoder, "xgboost-ubj")
