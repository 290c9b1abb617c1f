"""A version is made again, bit by bit where the learner is exact; what cannot be made again says why."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from leaven.controller.reproducing import NotReproducible, reproduce
from leaven.curation.snapshot import SnapshotChanged
from leaven.endpoints.description import Endpoint, encoded
from leaven.endpoints.oip import Matrix, OipMapping
from leaven.learners import LightGBM, ScikitLearn, XGBoost
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Feature
from leaven.registry import versions
from leaven.training import Stateful
from tests.controller.pasts import Scripted, Watched, a_loop, a_past
from tests.controller.test_plans import ONWARDS, QUICK, made_of, update

EXACT = [
    pytest.param(XGBoost(10, 3, subsample=0.7, threads=1), True, id="XGBoost"),
    pytest.param(LightGBM(10, 7, subsample=0.7, threads=1), True, id="LightGBM"),
    pytest.param(ScikitLearn(LogisticRegression()), False, id="LogisticRegression"),
    pytest.param(ScikitLearn(HistGradientBoostingClassifier(max_iter=10)), False, id="HistGradientBoosting"),
    pytest.param(ScikitLearn(RandomForestClassifier(10), categories="one-hot"), False, id="RandomForest"),
]


@pytest.mark.parametrize(("learner", "files"), EXACT)
def test_a_fitted_version_comes_out_again_bit_by_bit(learner, files):
    if not isinstance(learner, ScikitLearn):
        pytest.importorskip(type(learner).__name__.lower())
    driver = Watched(a_loop(**QUICK | {"learner": learner}, triggers=[], seed=7), a_past(12)).run(8)
    found = reproduce(driver.parts, driver.loop, 1)
    assert (found.equal, found.largest_difference, found.libraries) == (True, 0.0, {})
    assert found.rows == made_of(driver)[0].lineage["rows"]
    assert found.same_files or not files  # skops writes the time into its archives
    assert len(made_of(driver)) == 1  # nothing was kept


@pytest.mark.parametrize("replay", [0.0, 0.5])
@pytest.mark.parametrize(
    "learner",
    [ONWARDS, XGBoost(10, 3, subsample=0.7, threads=1), LightGBM(10, 7, subsample=0.7, threads=1)],
    ids=["SGD", "XGBoost", "LightGBM"],
)
def test_an_updated_version_comes_out_again_from_its_parent(learner, replay):
    if not isinstance(learner, ScikitLearn):
        pytest.importorskip(type(learner).__name__.lower())
    loop = a_loop(**QUICK | {"learner": learner}, plan=Stateful(replay=replay), triggers=[])
    driver = Watched(loop, a_past(16)).run(8)
    update(driver, days=2)
    update(driver, days=2)
    assert driver.modes == ["fit", "update", "update"]
    for number in (1, 2, 3):
        assert reproduce(driver.parts, loop, number).equal


def test_a_learner_that_does_not_come_out_again_is_found_out():
    loop = a_loop(**QUICK | {"learner": Scripted("good", "reversed")}, triggers=[])
    driver = Watched(loop, a_past(12)).run(8)
    found = reproduce(driver.parts, loop, 1)
    assert not found.equal
    assert found.largest_difference > 0.5
    assert "answers differ by up to" in found.why
    assert "the libraries are the same" in found.why


def test_a_learner_may_promise_less_than_bits():
    class Nearly(Scripted):
        reproduces_within = 1e9

    loop = a_loop(**QUICK | {"learner": Nearly("good", "reversed")}, triggers=[])
    driver = Watched(loop, a_past(12)).run(8)
    found = reproduce(driver.parts, loop, 1)
    assert found.equal
    assert "within the promised" in found.why


def test_versions_of_libraries_that_differ_are_named_where_the_answers_do():
    loop = a_loop(**QUICK | {"learner": Scripted("good", "reversed")}, triggers=[])
    driver = Watched(loop, a_past(12)).run(8)
    files = driver.parts.artifacts.get(made_of(driver)[0].artifact)
    older = ModelArtifact.from_files(files)
    older = ModelArtifact(
        older.format, older.encoder, older.learner, older.files, dict(older.libraries) | {"numpy": "1.0"}
    )
    files.clear()
    files.update(older.to_files())
    found = reproduce(driver.parts, loop, 1)
    assert found.libraries == {"numpy": ("1.0", np.__version__)}
    assert f"numpy 1.0 then, {np.__version__} now" in found.why


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"learner": ScikitLearn(LogisticRegression(C=0.5))}, "learner"),
        ({"features": [Feature("x", "float")]}, "features"),
        ({"seed": 3}, "seed"),
    ],
)
def test_a_loop_file_that_says_otherwise_by_now_is_refused(changed, what):
    given = QUICK | {"learner": ScikitLearn(LogisticRegression()), "triggers": []}
    driver = Watched(a_loop(**given), a_past(12)).run(8)
    with pytest.raises(NotReproducible, match=rf"its {what} was .*, and the loop file says"):
        reproduce(driver.parts, a_loop(**given | changed), 1)
    assert reproduce(driver.parts, a_loop(**given | {"holdout": "2d"}), 1).equal  # what makes no other model


def test_rows_that_read_otherwise_by_now_are_refused():
    driver = Watched(a_loop(**QUICK, triggers=[]), a_past(12)).run(8)
    driver.log._history.features["x"][100:110] += 1.0
    with pytest.raises(SnapshotChanged):
        reproduce(driver.parts, driver.loop, 1)


def test_what_was_not_trained_here_is_refused():
    driver = Watched(a_loop(**QUICK, triggers=[]), a_past(12)).run(8)
    files = encoded(Endpoint("http://127.0.0.1:1", OipMapping("m", matrix=Matrix(("x", "z")))))
    facts = {"mode": "fit", "definition_digest": driver.loop.digest, "at": driver.micros}
    with driver.database.write() as connection:
        first = versions.version(connection, "shop", 1)
        digest = driver.parts.artifacts.put(files)
        versions.register(connection, "shop", artifact=digest, format="endpoint", **facts)
        versions.register(connection, "shop", artifact=first.artifact, format=first.format, **facts)
        onwards = facts | {"mode": "update", "parent": 2, "snapshot": first.snapshot}
        versions.register(connection, "shop", artifact=first.artifact, format=first.format, **onwards)
    for number, why in ((2, "an endpoint elsewhere answers"), (3, "no snapshot"), (4, "it continues version 2")):
        with pytest.raises(NotReproducible, match=why):
            reproduce(driver.parts, driver.loop, number)
    assert msgspec.json.encode(reproduce(driver.parts, driver.loop, 1))
