import json
import warnings

import numpy as np
import pytest
import xgboost as xgb

from leaven.errors import BadDefinition
from leaven.learners import XGBoost, load
from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import check_prefix
from leaven.learners.xgboost import load_model
from leaven.training.learner import CannotLearn
from tests.learners.builders import a_training_set, some_columns


def a_booster(files):
    booster = xgb.Booster()
    booster.load_model(bytearray(files["model.ubj"]))
    return booster


@pytest.mark.parametrize(("task", "objective"), [("binary", "binary:logistic"), ("regression", "reg:squarederror")])
def test_a_fit_equals_the_library_called_directly(task, objective):
    """Oracle: a pandas frame with category columns, through the library's own handling of categories."""
    import pandas as pd

    columns = some_columns(500)
    data = a_training_set(task=task, columns=columns)
    frame = pd.DataFrame(columns).astype({"colour": "category"})
    theirs = xgb.train(
        {"objective": objective, "max_depth": 4, "eta": 0.2, "tree_method": "hist", "seed": 3, "nthread": 1},
        xgb.DMatrix(frame, label=data.label, enable_categorical=True),
        num_boost_round=20,
    ).predict(xgb.DMatrix(frame, enable_categorical=True))
    ours = load("xgboost-ubj", XGBoost(20, 4, 0.2, threads=1).fit(data, seed=3)).predict(data.matrix)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_seed_decides_the_sample():
    data, learner = a_training_set(), XGBoost(10, subsample=0.5, threads=1)
    first, same, other = (learner.fit(data, seed=seed)["model.ubj"] for seed in (1, 1, 2))
    assert first == same != other


def test_an_update_appends_trees_and_keeps_the_parents_answers():
    learner = XGBoost(12, update_rounds=5, threads=1)
    old = a_training_set()
    new = a_training_set(seed=5, parent=old.encoder)
    parent = learner.fit(old, seed=1)
    child = a_booster(learner.update(parent, new, seed=2))
    assert child.num_boosted_rounds() == 17
    kept = child[:12].inplace_predict(new.matrix, validate_features=False)
    np.testing.assert_array_equal(kept, a_booster(parent).inplace_predict(new.matrix, validate_features=False))


def test_an_update_leaves_the_parents_files_alone():
    learner, data = XGBoost(5, threads=1), a_training_set()
    parent = dict(learner.fit(data, seed=1))
    before = dict(parent)
    learner.update(parent, data, seed=2)
    assert parent == before


def test_a_model_cannot_grow_for_ever():
    learner, data = XGBoost(10, update_rounds=6, max_rounds=20, threads=1), a_training_set()
    once = learner.update(learner.fit(data, seed=1), data, seed=2)
    with pytest.raises(CannotLearn, match=r"22 trees, more than max_rounds=20\. Fit a version from scratch"):
        learner.update(once, data, seed=3)


def test_a_parent_of_another_objective_is_refused_even_where_its_description_lies():
    data = a_training_set()
    parent = dict(XGBoost(3, threads=1).fit(data, seed=1))
    squared = xgb.train({"objective": "reg:squarederror"}, xgb.DMatrix(data.matrix, data.label), 2)
    parent["model.ubj"] = bytes(squared.save_raw("ubj"))
    with pytest.raises(CannotLearn, match="objective is reg:squarederror"):
        XGBoost(3, threads=1).update(parent, data, seed=2)


def test_a_parents_early_stopping_does_not_hide_new_trees():
    learner, data = XGBoost(10, update_rounds=10, threads=1), a_training_set()
    parent = dict(learner.fit(data, seed=1))
    stopped = a_booster(parent)
    stopped.set_attr(best_iteration="2", best_score="0.5")
    parent["model.ubj"] = bytes(stopped.save_raw("ubj"))
    assert a_booster(learner.update(parent, data, seed=2)).attributes() == {}


def refreshed(parent, data, *, rounds=100):
    """What the library itself makes of a refresh with so many rounds."""
    settings = {"objective": "binary:logistic", "nthread": 1, "process_type": "update", "updater": "refresh"}
    rows = xgb.DMatrix(
        data.matrix,
        label=data.label,
        feature_names=["0_colour", "1_size", "2_count", "3_new"],
        feature_types=["c", "float", "int", "i"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xgb.train(settings, rows, rounds, xgb_model=a_booster(parent))


def test_a_refresh_keeps_every_split_and_fits_the_leaves_as_the_library_does():
    learner, old = XGBoost(12, update_by="refresh", threads=1), a_training_set()
    new = a_training_set(seed=5, parent=old.encoder)
    parent = learner.fit(old, seed=1)
    child = learner.update(parent, new, seed=2)
    assert [tree.count("yes=") for tree in a_booster(child).get_dump()] == (
        [tree.count("yes=") for tree in a_booster(parent).get_dump()]
    )
    ours, theirs = (load_model(files).predict(new.matrix) for files in (child, parent))
    expected = refreshed(parent, new, rounds=12).inplace_predict(new.matrix, validate_features=False)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert np.abs(ours - theirs).max() > 0.05


def test_a_refresh_of_a_model_that_has_grown_loses_no_tree():
    """With fewer rounds than there are trees, the library drops the rest without a word."""
    learner, data = XGBoost(12, update_rounds=5, threads=1), a_training_set()
    grown = learner.update(learner.fit(data, seed=1), data, seed=2)
    assert refreshed(grown, data, rounds=12).num_boosted_rounds() == 12  # of 17
    again = XGBoost(12, update_rounds=5, update_by="refresh", max_rounds=17, threads=1).update(grown, data, seed=3)
    assert a_booster(again).num_boosted_rounds() == 17


def test_reordered_columns_inside_a_parents_file_are_refused():
    """Unnamed rows are taken by position: the library counts columns and looks no further."""
    data = a_training_set()
    parent = dict(XGBoost(3, threads=1).fit(data, seed=1))
    order = [1, 0, 2, 3]
    names = ["1_size", "0_colour", "2_count", "3_new"]
    rows = xgb.DMatrix(data.matrix[:, order], data.label, feature_names=names)
    parent["model.ubj"] = bytes(xgb.train({"objective": "binary:logistic"}, rows, 2).save_raw("ubj"))
    for way in ("continue", "refresh"):
        with pytest.raises(CannotLearn, match="own columns are 1_size, 0_colour"):
            XGBoost(3, update_by=way, threads=1).update(parent, data, seed=2)


def test_a_class_that_was_never_seen_is_refused():
    learner, data = XGBoost(3, threads=1), a_training_set()
    strange = a_training_set(label=np.where(data.label > 0, 2.0, 0.0))
    with pytest.raises(CannotLearn, match="a binary label has the values"):
        learner.update(learner.fit(data, seed=1), strange, seed=2)


def test_a_changed_old_part_is_noticed():
    with pytest.raises(CannotLearn, match=r"changed the parent's part of the model \(by up to 0\.25\)"):
        check_prefix("XGBoost", before=np.array([0.5, 0.1]), after=np.array([0.5, 0.35]))


def test_columns_and_their_types_are_written_into_the_model():
    booster = a_booster(XGBoost(2, threads=1).fit(a_training_set(), seed=1))
    assert booster.feature_names == ["0_colour", "1_size", "2_count", "3_new"]
    assert booster.feature_types == ["c", "float", "int", "i"]


def test_a_file_that_is_no_model_is_refused():
    files = XGBoost(2, threads=1).fit(a_training_set(), seed=1)
    with pytest.raises(ModelDamaged, match=r"there is no model\.ubj"):
        load_model({})
    with pytest.raises(ModelDamaged):
        load_model({**files, "model.ubj": files["model.ubj"][:50]})
    with pytest.raises(ModelDamaged):
        load_model({**files, "model.ubj": json.dumps({"a": 1}).encode()})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0}, {"rounds": 1.5}, {"rounds": True}, {"rounds": "many"}, {"rounds": 50, "max_rounds": 40},
        {"max_depth": -1}, {"eta": 0}, {"eta": 1.2}, {"subsample": 0}, {"threads": -1},
        {"update_by": "refit"}, {"reg_lambda": -1}, {"reg_lambda": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range_are_refused_when_written(wrong):
    with pytest.raises(BadDefinition, match="XGBoost"):
        XGBoost(**wrong)
