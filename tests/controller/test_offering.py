"""The loop file no longer fits the champion: is it said what will be done, what else could be, and why?"""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from leaven import Feature
from leaven.controller.offering import Offer, offer
from leaven.learners import LightGBM, ScikitLearn, XGBoost
from leaven.training import Distill, Hybrid, Stateful, Stateless
from tests.controller.pasts import Watched, a_loop, a_past

X, Z, W = (Feature(name, "float") for name in "xzw")
XGB, LGB, SKL = XGBoost(5, threads=1), LightGBM(5, threads=1), ScikitLearn(HistGradientBoostingClassifier(max_iter=5))


@pytest.fixture(scope="module")
def drivers() -> dict[str, Watched]:
    """A champion of each learner, of x and z."""
    return {
        name: Watched(a_loop(learner=learner, gates=[], rollout=[]), a_past(8)).run(7)
        for name, learner in (("xgboost", XGB), ("scikit-learn", SKL))
    }


def offered(driver: Watched, **other: Any) -> Offer | None:
    loop = a_loop(**({"learner": XGB, "gates": [], "rollout": []} | other))
    with driver.database.read() as connection:
        return offer(connection, driver.parts.artifacts, loop, now=driver.now)


@pytest.mark.parametrize(
    ("made_by", "now", "chosen", "best", "told"),
    [
        ("xgboost", {"features": [X, Z, W], "plan": Stateful()}, "surgery", "surgery", "Stateful() goes on from the"),
        ("xgboost", {"features": [X, Z, W], "plan": Stateful(grow_by="residual")}, "residual", "surgery",
         "Least is lost by surgery. Otherwise: surgery: plan=Stateful() gives it the features that came"),
        ("xgboost", {"features": [X, Z, W], "plan": Hybrid()}, "rebuild", "surgery", "Hybrid() fits from scratch"),
        ("xgboost", {"features": [X, Z, W], "plan": Distill()}, "distil", "surgery", "50% are what version 1 (ch"),
        ("scikit-learn", {"features": [X, Z, W], "plan": Stateful()}, None, "residual",
         'the next refresh will fail (Stateful cannot learn: the kind of model changed from skops to xgboost-ubj'),
        ("scikit-learn", {"plan": Stateful(grow_by="residual")}, "residual", "residual",
         "surgery: cannot be, as it is of another kind (skops)"),
        ("xgboost", {"features": [X], "plan": Stateless()}, "rebuild", "distil",
         "residual: cannot be, as it takes z (float), which the loop no longer has"),
        ("xgboost", {"features": [X], "plan": Stateless(), "learner": LGB}, "rebuild", "rebuild",
         "distil: cannot be, as LightGBM takes no labels between 0 and 1"),
    ],
)  # fmt: skip
def test_it_says_which_and_why(drivers, made_by, now, chosen, best, told):
    found = offered(drivers[made_by], **now)
    assert found is not None
    assert (found.chosen, found.best, found.champion) == (chosen, best, 1)
    assert told in str(found)
    assert str(found).startswith(f"{found.changed} since version 1, the champion: ")
    assert set(found.ways) == {"surgery", "residual", "distil", "rebuild"}


def test_nothing_is_said_where_the_loop_fits_or_nothing_serves(drivers):
    assert offered(drivers["xgboost"]) is None
    assert offered(drivers["xgboost"], tick="1h") is None  # another definition, which makes the same model
    empty = Watched(a_loop(learner=XGB, gates=[], rollout=[]), a_past(8))
    assert offered(empty, features=[X, Z, W], plan=Stateful()) is None
