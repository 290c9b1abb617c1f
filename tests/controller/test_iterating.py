"""A loop whose file was edited more than once: what do its refreshes, replayed, say of model and data iteration?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leaven import Feature
from leaven.controller import iterating
from leaven.controller.iterating import iterated
from leaven.curation import Recent
from leaven.gates import NotWorse
from leaven.learners import XGBoost
from leaven.registry.loops import UnknownLoop
from leaven.registry.written import changed_parts
from leaven.training import Stateful, Stateless
from leaven.triggers import Every
from tests.controller.pasts import Watched, a_loop, a_past

FEATURES = {name: Feature(name, "float") for name in ("x", "z", "v1", "v2", "v3", "v4")}


def a_past_of_six():
    """Buying follows x and four more numbers; each is worth as much as another."""
    past, rng = a_past(30, per_day=300), np.random.default_rng(5)
    others = {name: rng.normal(size=len(past)) for name in ("v1", "v2", "v3", "v4")}
    logit = 1.2 * past.features["x"] + 1.2 * sum(others.values())
    bought = rng.random(len(past)) < 1 / (1 + np.exp(-logit))
    return replace(past, outcome=bought.astype(float), features={**past.features, **others})


def a_shop(*names: str, **other: Any):
    given = {
        "features": [FEATURES[name] for name in names], "learner": XGBoost(30, max_depth=2, eta=0.2, threads=1),
        "data": Recent("6d"), "rollout": [], "triggers": [Every("2d")],
        "gates": [NotWorse("log_loss", margin=0.25, min_rows=50)],
    }  # fmt: skip
    return a_loop(**(given | other))


WIDER = {"gates": [NotWorse("log_loss", margin=0.3, min_rows=50)]}
EDITS: list[tuple[float, tuple[str, ...], dict[str, Any]]] = [  # until which day, and what the file says by then
    (11.25, ("x", "z"), {}),
    (16.25, ("x", "z", "v1"), {}),
    (21.25, ("x", "z", "v1", "v2"), WIDER),
    (25.25, ("x", "z", "v1", "v2", "v3"), WIDER),
    (29.0, ("x", "z", "v1", "v2", "v3", "v4"), WIDER),
]


@pytest.fixture(scope="module")
def edited():
    driver = None
    for until, names, other in EDITS:
        loop = a_shop(*names, **other)
        if driver is None:
            driver = Watched(loop, a_past_of_six())
        else:
            driver.loop, driver.parts.loop = loop, lambda name, loop=loop: loop
            driver.enter(driver.now)
        driver.run(until)
    return driver


def test_features_that_matter_have_paid_more_than_newer_data_of_the_same_world(edited):
    with edited.database.read() as connection:
        found = iterated(connection, "shop")
    assert found.metric == "log_loss"
    assert {one.changed for one in found.tried if one.kind == "model"} == {("features",), ("features", "gates")}
    assert {one.changed for one in found.tried if one.kind == "data"} == {()}
    assert found.kinds["data"].tried >= 5
    assert found.verdict == "model"
    assert found.difference.low > 0
    assert found.parts["features"].share > 0.05
    assert found.kinds["model"].promoted == 4
    assert found.kinds["model"].cpu_seconds > 0
    assert found.unmeasured == {iterating.FIRST: 1}
    gate = next(one for one in edited.decisions("gate") if one.version == found.tried[0].version)
    kept = gate.evidence["forgetting"]["fresh"]
    assert found.tried[0].gain == -kept["difference"]["estimate"]
    moments = gate.evidence["reports"][0]["difference"]  # what the gate itself kept
    assert found.tried[0].error == pytest.approx((moments["spread"] / (moments["count"] - 1) / moments["count"]) ** 0.5)


def test_a_loop_that_nobody_registered_is_named(edited):
    with edited.database.read() as connection, pytest.raises(UnknownLoop):
        iterated(connection, "nobody's")


def test_other_settings_of_a_learner_are_parameters_and_another_learner_is_not():
    one, two = (repr(a_shop("x", learner=XGBoost(rounds))) for rounds in (5, 6))
    assert changed_parts(one, two) == ("parameters",)
    assert changed_parts(one, repr(a_shop("x", learner=XGBoost(5), plan=Stateful()))) == ("plan",)
    assert changed_parts(one, repr(a_loop(plan=Stateless(), data=Recent("5d"))))[:2] == ("data", "features")
    assert "learner" in changed_parts(one, repr(a_loop()))
    assert changed_parts(one, one) == ()
