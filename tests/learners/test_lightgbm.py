"""LightGBM, and every way in which it goes wrong without a word: refused here."""

import lightgbm as lgb
import msgspec
import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.learners import LightGBM, load
from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import INPUTS_FILE, inputs_in, inputs_of
from leaven.learners.lightgbm import load_model
from leaven.loop import Schema
from leaven.training.learner import CannotLearn, TrainingSet
from tests.learners.builders import a_schema, a_training_set, some_columns

QUIET = {"verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}


def a_booster(files):
    return lgb.Booster(model_str=bytes(files["model.txt"]).decode())


def stored(booster, data, *, made_by="LightGBM binary"):
    """Files as ours would be, around a booster that was made elsewhere."""
    text = booster.model_to_string(num_iteration=-1).encode()
    return {"model.txt": text, INPUTS_FILE: inputs_of(data, made_by=made_by, content=text).to_bytes()}


def theirs(data, *, rounds=5, names=("0_colour", "1_size", "2_count", "3_new"), **settings):
    rows = lgb.Dataset(data.matrix, data.label, feature_name=list(names), categorical_feature=[0])
    return lgb.train(QUIET | {"objective": "binary"} | settings, rows, rounds)


def continued(data, *, seed=5, rows=400):
    return a_training_set(rows, seed=seed, parent=data.encoder)


@pytest.mark.parametrize(("task", "objective"), [("binary", "binary"), ("regression", "regression")])
def test_a_fit_equals_the_library_called_directly(task, objective):
    """Oracle: a pandas frame with category columns, through the library's own handling of categories."""
    import pandas as pd

    columns = some_columns(500)
    data = a_training_set(task=task, columns=columns)
    frame = pd.DataFrame(columns).astype({"colour": "category"})
    settings = QUIET | {"objective": objective, "num_leaves": 15, "learning_rate": 0.2, "seed": 3}
    expected = lgb.train(settings, lgb.Dataset(frame, data.label), 20).predict(frame)
    ours = load("lightgbm-text", LightGBM(20, 15, 0.2, threads=1).fit(data, seed=3)).predict(data.matrix)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_the_seed_decides_the_sample():
    data, learner = a_training_set(), LightGBM(10, subsample=0.5, threads=1)
    first, same, other = (learner.fit(data, seed=seed)["model.txt"] for seed in (1, 1, 2))
    assert first == same
    assert a_booster({"model.txt": first}).predict(data.matrix).tolist() != (
        a_booster({"model.txt": other}).predict(data.matrix).tolist()
    )


def test_an_update_appends_trees_and_keeps_the_parents_answers():
    learner, old = LightGBM(12, update_rounds=5, threads=1), a_training_set()
    new = continued(old)
    parent = learner.fit(old, seed=1)
    child = a_booster(learner.update(parent, new, seed=2))
    assert child.num_trees() == 17
    kept = child.predict(new.matrix, num_iteration=12)
    np.testing.assert_array_equal(kept, a_booster(parent).predict(new.matrix))


def test_two_halves_are_the_whole_where_nothing_is_drawn():
    """Resume equality: 12 and then 8 trees on the same rows are the same 20."""
    data = a_training_set()
    halves = LightGBM(12, update_rounds=8, threads=1)
    both = load_model(halves.update(halves.fit(data, seed=1), data, seed=1)).predict(data.matrix)
    at_once = load_model(LightGBM(20, threads=1).fit(data, seed=1)).predict(data.matrix)
    np.testing.assert_allclose(both, at_once, rtol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_a_refit_keeps_every_split_and_moves_the_leaves_as_the_library_does(decay):
    learner, old = LightGBM(12, update_by="refit", decay=decay, threads=1), a_training_set()
    new = continued(old)
    parent = learner.fit(old, seed=1)
    child = a_booster(learner.update(parent, new, seed=1))
    before = a_booster(parent)
    np.testing.assert_array_equal(child.predict(new.matrix, pred_leaf=True), before.predict(new.matrix, pred_leaf=True))
    before.params.update(QUIET)
    expected = before.refit(new.matrix, new.label, decay_rate=decay).predict(new.matrix)
    np.testing.assert_allclose(child.predict(new.matrix), expected, rtol=1e-12)
    moved = np.abs(child.predict(new.matrix) - before.predict(new.matrix)).max()
    assert (moved > 0.01) == (decay < 1)


def test_a_refit_uses_the_learners_own_settings():
    """The library takes them from the model it refits, which was loaded from a file and has none."""
    data = a_training_set()
    parent = LightGBM(12, threads=1).fit(data, seed=1)
    heavy = LightGBM(12, update_by="refit", decay=0.0, reg_lambda=1e6, threads=1).update(parent, data, seed=1)
    np.testing.assert_allclose(load_model(heavy).predict(data.matrix), 0.5, atol=0.01)


# Traps: what the library does without a word, shown to be so, and refused by us.


def test_reordered_columns_are_taken_by_the_library_and_refused_here():
    old = a_training_set()
    new = continued(old)
    order = [1, 0, 2, 3]
    names = tuple(("0_colour", "1_size", "2_count", "3_new")[i] for i in order)
    swapped = lgb.Dataset(new.matrix[:, order], new.label, feature_name=list(names), free_raw_data=False)
    assert lgb.train(QUIET | {"objective": "binary"}, swapped, 3, init_model=theirs(old)).num_trees() == 8
    parent = stored(theirs(old, names=names), old)  # its own text has the columns in another order than it says
    with pytest.raises(CannotLearn, match="own columns are 1_size, 0_colour, 2_count, 3_new, not 0_colour"):
        LightGBM(5, threads=1).update(parent, new, seed=1)


def test_a_new_category_shifts_the_librarys_codes_and_none_of_ours():
    """`amber` sorts before `red`: with a pandas frame the old trees then read other colours than they learnt."""
    import pandas as pd

    rng = np.random.default_rng(0)
    colour = rng.choice(np.array(["green", "red"], dtype=object), 600)
    label = (colour == "red").astype(float)
    later = rng.choice(np.array(["amber", "green", "red"], dtype=object), 600)
    later_label = (later == "red").astype(float)
    frame, then = (pd.DataFrame({"colour": pd.Categorical(given)}) for given in (colour, later))
    rows = lgb.Dataset(frame, label, free_raw_data=False)
    grown = lgb.train(QUIET | {"objective": "binary"}, rows, 5)
    child = lgb.train(QUIET | {"objective": "binary"}, lgb.Dataset(then, later_label), 1, init_model=grown)
    known = pd.DataFrame({"colour": pd.Categorical(colour, categories=["amber", "green", "red"])})
    assert accuracy(child.predict(known, num_iteration=5), label) < 0.6

    schema = a_schema([("colour", "category", False)])
    old = a_training_set(columns={"colour": colour}, label=label, schema=schema)
    new = a_training_set(columns={"colour": later}, label=later_label, schema=schema, parent=old.encoder)
    learner = LightGBM(5, update_rounds=1, threads=1)
    ours = a_booster(learner.update(learner.fit(old, seed=1), new, seed=1))
    assert accuracy(ours.predict(old.matrix, num_iteration=5), label) == 1.0


def accuracy(answers, label):
    return float(np.mean((answers > np.mean(answers)) == label))


def test_another_objective_is_taken_by_the_library_and_refused_here():
    old = a_training_set()
    rows = lgb.Dataset(old.matrix, old.label, categorical_feature=[0], free_raw_data=False)
    squared = lgb.train(QUIET | {"objective": "regression"}, rows, 2, init_model=theirs(old, names="abcd"))
    assert squared.num_trees() == 7
    parent = stored(theirs(old, objective="regression"), old)
    with pytest.raises(CannotLearn, match=r"objective is regression, this label needs binary"):
        LightGBM(5, threads=1).update(parent, old, seed=1)


def test_a_parents_best_iteration_hides_trees_from_the_library_and_none_from_us():
    data = a_training_set()
    booster = theirs(data, rounds=9)
    booster.best_iteration = 4
    assert lgb.Booster(model_str=booster.model_to_string()).num_trees() == 4  # the library's own way to store it
    parent = stored(booster, data)
    np.testing.assert_array_equal(
        load_model(parent).predict(data.matrix), booster.predict(data.matrix, num_iteration=9)
    )
    assert a_booster(LightGBM(9, update_rounds=3, threads=1).update(parent, data, seed=1)).num_trees() == 12


def test_rows_that_fill_no_leaf_give_the_parent_back_from_the_library_and_an_error_from_us():
    old = a_training_set()
    few = continued(old, rows=15)
    rows = lgb.Dataset(few.matrix, few.label, categorical_feature=[0], free_raw_data=False)
    unchanged = lgb.train(QUIET | {"objective": "binary"}, rows, 7, init_model=theirs(old, names="abcd"))
    assert unchanged.num_trees() == 5
    learner = LightGBM(5, threads=1)
    with pytest.raises(CannotLearn, match=r"no split of the 15 rows leaves 20 on both sides.*min_child_samples"):
        learner.update(learner.fit(old, seed=1), few, seed=1)


def test_a_model_cannot_grow_for_ever():
    learner, data = LightGBM(10, update_rounds=6, max_rounds=20, threads=1), a_training_set()
    once = learner.update(learner.fit(data, seed=1), data, seed=2)
    with pytest.raises(CannotLearn, match=r"22 trees, more than max_rounds=20\. Fit a version from scratch"):
        learner.update(once, data, seed=3)


def test_raw_rows_are_kept_so_the_same_rows_can_be_learnt_from_again():
    """The library frees rows once they are binned, and then cannot continue on them."""
    data = a_training_set()
    freed = lgb.Dataset(data.matrix, data.label).construct()
    with pytest.raises(lgb.basic.LightGBMError, match="freed raw data"):
        lgb.train(QUIET | {"objective": "binary"}, freed, 3, init_model=theirs(data))
    learner, before = LightGBM(5, update_rounds=2, threads=1), data.matrix.copy()
    parent = learner.fit(data, seed=1)
    assert learner.update(parent, data, seed=1) == learner.update(parent, data, seed=1)
    np.testing.assert_array_equal(data.matrix, before)


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5])
def test_a_class_that_was_never_seen_is_refused(label):
    learner, data = LightGBM(5, threads=1), a_training_set()
    strange = data.label.copy()
    strange[3] = label
    with pytest.raises(CannotLearn, match="a binary label has the values"):
        learner.update(learner.fit(data, seed=1), TrainingSet(data.matrix, strange, data.encoder, data.schema), seed=1)


@pytest.mark.parametrize("damage", ["cut", "byte", "empty", "gone", "description"])
def test_a_damaged_parent_is_refused_before_the_library_sees_it(damage):
    """LightGBM ends the process (`terminate called`) on a text that is cut off in the middle of a tree."""
    data, learner = a_training_set(), LightGBM(5, threads=1)
    parent = dict(learner.fit(data, seed=1))
    text = bytes(parent["model.txt"])
    if damage == "gone":
        del parent["model.txt"]
    elif damage == "description":
        parent[INPUTS_FILE] = b"{"
    else:
        parent["model.txt"] = {"cut": text[: len(text) // 2], "byte": text.replace(b"Tree=3", b"Tree=4"), "empty": b""}[
            damage
        ]
    for read in (load_model, lambda files: learner.update(files, data, seed=1)):
        with pytest.raises(ModelDamaged, match=r"cannot be read.*Roll back"):
            read(parent)


def test_columns_are_written_into_the_model_and_any_name_will_do():
    schema = Schema((('a "quoted", [odd]: näme', "float", False), ("b", "bool", False)), "user", "binary")
    columns = {name: np.random.default_rng(i).normal(size=200) for i, (name, _, _) in enumerate(schema.features)}
    data = a_training_set(columns=columns, schema=schema, label=np.arange(200) % 2)
    booster = a_booster(LightGBM(2, threads=1).fit(data, seed=1))
    assert booster.feature_name() == ["0_a__quoted____odd___n_me", "1_b"]


def test_the_description_of_other_learners_stays_as_it_was():
    """Only LightGBM's file is digested, so versions that were stored before are read as before."""
    described = inputs_of(a_training_set(), made_by="somebody").to_bytes()
    assert "content" not in msgspec.json.decode(described)
    assert inputs_in({INPUTS_FILE: described}, "x").content == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0}, {"rounds": 1.5}, {"rounds": True}, {"rounds": 50, "max_rounds": 40}, {"num_leaves": 1},
        {"learning_rate": 0}, {"subsample": 1.1}, {"threads": -1}, {"reg_lambda": float("inf")},
        {"min_child_samples": 0}, {"decay": -0.1}, {"decay": 1.1}, {"decay": "none"}, {"update_by": "refresh"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range_are_refused_when_written(wrong):
    with pytest.raises(BadDefinition, match="LightGBM"):
        LightGBM(**wrong)
