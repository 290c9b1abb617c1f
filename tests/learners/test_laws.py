"""What every learner must keep, whatever it is made of."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skops.io
import xgboost as xgb
from river.linear_model import LinearRegression  # noqa: F401  # these, for eval of a learner's repr
from river.linear_model import LogisticRegression as RiverLogistic
from river.optim import SGD  # noqa: F401
from river.optim.schedulers import Constant  # noqa: F401
from river.preprocessing import StandardScaler as RiverScaler
from river.tree import HoeffdingAdaptiveTreeClassifier  # noqa: F401
from sklearn.ensemble import (  # noqa: F401
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor  # noqa: F401
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler  # noqa: F401

from leaven.errors import LeavenError
from leaven.learners import ALS, Command, Function, LightGBM, River, ScikitLearn, Torch, XGBoost  # noqa: F401
from leaven.learners.artifact import load_artifact
from leaven.training.learner import CannotLearn, TrainingSet
from tests.learners.catalogue import (
    CASES,
    FEATURES,
    RESUMES,
    STATEFUL,
    TRUSTED,
    a_schema,
    a_training_set,
    follows,
    some_columns,
)

# A command starts a process: what would start one more is for the long run.
LONG = {case: pytest.param(case, marks=pytest.mark.slow) for case in CASES if case.name == "command"}

for_every_learner = pytest.mark.parametrize("case", CASES, ids=str)
for_every_stateful = pytest.mark.parametrize("case", STATEFUL, ids=str)


@for_every_learner
def test_a_model_finds_what_there_is_and_answers_in_range(case):
    fresh = a_training_set(600, seed=50, task=case.task)
    answers = case.model(case.files).predict(case.data.encoder.encode(some_columns(600, seed=50)))
    assert answers.shape == (600,)
    assert answers.dtype == np.float64
    assert follows(answers, fresh.label) > 0.15  # 600 answers by chance: 0.04
    assert case.task == "regression" or ((answers >= 0) & (answers <= 1)).all()


@for_every_learner
def test_a_reloaded_artifact_answers_bit_for_bit_as_the_fitted_model(case):
    columns = some_columns(50, seed=9)
    fitted = case.model(case.files).predict(case.data.encoder.encode(columns))
    served = load_artifact(case.artifact(case.data, case.files), trusted=TRUSTED)
    np.testing.assert_array_equal(served.answer(columns), fitted)


@pytest.mark.parametrize("case", [LONG.get(case, case) for case in CASES], ids=str)
def test_the_same_data_and_seed_give_the_same_answers(case):
    again = case.model(case.learner.fit(case.data, seed=4)).predict(case.data.matrix)
    np.testing.assert_array_equal(again, case.model(case.files).predict(case.data.matrix))


@for_every_learner
def test_one_row_is_answered_as_among_many_and_no_row_by_nothing(case):
    model, matrix = case.model(case.files), case.data.matrix
    among_many = model.predict(matrix[:5])
    alone = np.concatenate([model.predict(matrix[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, among_many, rtol=1e-12)
    assert model.predict(matrix[:0]).shape == (0,)


@for_every_learner
def test_an_unknown_category_and_missing_features_are_answered(case):
    served = load_artifact(case.artifact(case.data, case.files), trusted=TRUSTED)
    answers = served.answer({"colour": np.array(["never seen", None], dtype=object)})
    assert np.isfinite(answers).all()
    # What is not known is missing; matrix products may differ in the last bit by where in the batch a row stands.
    assert answers[0] == pytest.approx(answers[1], rel=1e-12)


@for_every_stateful
def test_a_code_that_came_after_the_model_is_what_it_does_not_know(case):
    """Champion and challenger are asked side by side; codes of later rows must not fail an older model."""
    later = case.turned.matrix[case.turned.matrix[:, 0] >= 3][:40]
    assert len(later) == 40
    assert np.isfinite(case.model(case.files).predict(later)).all()


@for_every_learner
def test_asking_changes_nothing(case):
    model, matrix = case.model(case.files), case.data.matrix[:60]
    given = matrix.copy()
    first = model.predict(given)
    np.testing.assert_array_equal(model.predict(given), first)
    np.testing.assert_array_equal(given, matrix)


@for_every_learner
@pytest.mark.parametrize("bad", ["no rows", "unknown label", "one column short"])
def test_data_that_cannot_be_learnt_from_is_refused_with_a_reason(case, bad):
    matrix, label = case.data.matrix, case.data.label.copy()
    if bad == "no rows":
        matrix, label = matrix[:0], label[:0]
    elif bad == "unknown label":
        label[3] = np.nan
    else:
        matrix = matrix[:, :-1]
    data = TrainingSet(matrix, label, case.data.encoder, case.data.schema)
    with pytest.raises(CannotLearn, match="cannot learn"):
        case.learner.fit(data, seed=1)
    if case in STATEFUL:
        with pytest.raises(CannotLearn, match="cannot learn"):
            case.learner.update(case.files, data, seed=1)


@pytest.mark.parametrize("case", [case for case in CASES if case.task == "binary"], ids=str)
@pytest.mark.parametrize("label", [np.zeros(40), np.full(40, 2.0), np.arange(40) % 3])
def test_one_class_and_strange_classes_are_refused(case, label):
    data = a_training_set(40, label=label)
    with pytest.raises(CannotLearn, match=r"all 40 labels are 0|a binary label has the values"):
        case.learner.fit(data, seed=1)
    if case.learner.stateful:
        with pytest.raises(CannotLearn, match=r"all 40 labels are 0|a binary label has the values"):
            case.learner.update(case.files, data, seed=1)


@pytest.mark.parametrize("case", [case for case in CASES if not case.learner.stateful], ids=str)
def test_what_is_not_stateful_is_not_continued(case):
    with pytest.raises(CannotLearn, match=r"has no partial_fit|learns less with every row"):
        case.learner.update(case.files, case.data, seed=2)


@for_every_stateful
def test_an_update_moves_towards_the_new_rows(case):
    """The concept turns round: the continued model must rank the new rows better than its parent does."""
    gain = [follows(case.model(files).predict(case.turned.matrix), case.turned.label)
            for files in (case.files, case.child)]  # fmt: skip
    assert gain[1] > gain[0] + 0.1


@for_every_stateful
def test_an_update_takes_new_categories_after_the_old_ones(case):
    known = case.turned.encoder.categories["colour"]
    assert known == ("blue", "green", "red", "amber", "violet")
    answers = case.model(case.child).predict(case.turned.encoder.encode(some_columns(20, colours="amber blue")))
    assert np.isfinite(answers).all()


@pytest.mark.parametrize("case", [LONG.get(case, case) for case in STATEFUL], ids=str)
def test_an_update_depends_on_parent_rows_and_seed_alone_and_leaves_the_parent_as_it_was(case):
    parent = dict(case.files)
    again = case.learner.update(parent, case.turned, seed=5)
    assert parent == case.files
    matrix = case.turned.matrix
    np.testing.assert_array_equal(case.model(again).predict(matrix), case.model(case.child).predict(matrix))


def first_trees(case):
    """What the parent's trees answer inside the child, and by themselves."""
    matrix = case.data.matrix
    if isinstance(case.learner, ScikitLearn):
        child, parent = (skops.io.loads(files["model.skops"], trusted=skops.io.get_untrusted_types(
            data=files["model.skops"])) for files in (case.child, case.files))  # fmt: skip
        if hasattr(child, "staged_predict_proba"):
            return list(child.staged_predict_proba(matrix))[parent.n_iter_ - 1], parent.predict_proba(matrix)
        trees = [[tree.predict_proba(matrix) for tree in forest.estimators_] for forest in (child, parent)]
        return trees[0][: len(trees[1])], trees[1]
    if isinstance(case.learner, XGBoost):
        child, parent = (xgb.Booster(), xgb.Booster())
        for booster, files in ((child, case.child), (parent, case.files)):
            booster.load_model(bytearray(files["model.ubj"]))
        rows = matrix, (0, parent.num_boosted_rounds())
        return tuple(
            booster.inplace_predict(rows[0], iteration_range=rows[1], validate_features=False)
            for booster in (child, parent)
        )
    import lightgbm as lgb

    child, parent = (lgb.Booster(model_str=files["model.txt"].decode()) for files in (case.child, case.files))
    return child.predict(matrix, num_iteration=parent.num_trees()), parent.predict(matrix)


GROWING = ("xgboost", "lightgbm", "histogram boosting that grows", "forest that grows", "command")


@pytest.mark.parametrize("case", [case for case in STATEFUL if case.name in GROWING], ids=str)
def test_what_grows_keeps_its_old_part_bit_for_bit(case):
    inside, alone = first_trees(case)
    np.testing.assert_array_equal(inside, alone)


@pytest.mark.parametrize("case", [case for case in STATEFUL if case.name in RESUMES], ids=str)
def test_where_it_is_promised_two_stretches_in_turn_are_both_at_once(case):
    first, second = (
        TrainingSet(case.data.matrix[part], case.data.label[part], case.data.encoder, case.data.schema)
        for part in (slice(None, 350), slice(350, None))
    )
    in_turn = case.learner.update(case.learner.fit(first, seed=4), second, seed=9)
    np.testing.assert_array_equal(
        case.model(in_turn).predict(case.data.matrix), case.model(case.files).predict(case.data.matrix)
    )


@for_every_stateful
def test_an_update_refuses_a_category_map_that_did_not_only_grow(case):
    shifted = a_training_set(columns=some_columns(400, seed=3, colours="amber red violet"))  # without the parent's map
    with pytest.raises(CannotLearn, match=r"categories of feature 'colour'.*from scratch"):
        case.learner.update(case.files, shifted, seed=2)


COLOUR, SIZE, COUNT, NEW, PLACE = FEATURES


@for_every_stateful
@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ((SIZE, COLOUR, COUNT, NEW, PLACE), "another order"),
        ((COLOUR, SIZE, COUNT, PLACE), r"lost new \(bool\)"),
        ((COLOUR, SIZE, ("count", "float", False), NEW, PLACE), r"lost count \(int\) and gained count \(float\)"),
    ],
)
def test_an_update_refuses_features_in_another_order_number_or_type(case, features, reason):
    with pytest.raises(CannotLearn, match=reason):
        case.learner.update(case.files, a_training_set(schema=a_schema(features)), seed=2)


@for_every_stateful
def test_an_update_refuses_a_parent_of_another_task_or_learner(case):
    with pytest.raises(CannotLearn, match="binary task"):
        case.learner.update(case.files, a_training_set(task="regression"), seed=2)
    strange = next(other for other in STATEFUL if other.learner.format != case.learner.format)
    with pytest.raises(CannotLearn, match="the parent was made by"):
        case.learner.update(strange.files, case.data, seed=2)


@for_every_stateful
def test_an_update_refuses_a_parent_without_its_description_or_with_a_damaged_one(case):
    bare = {name: content for name, content in case.files.items() if name != "inputs.json"}
    for damaged in (bare, {**case.files, "inputs.json": b'{"task"'}):
        with pytest.raises(LeavenError, match=r"inputs\.json"):
            case.learner.update(damaged, case.turned, seed=2)


@for_every_learner
def test_a_model_file_that_is_cut_off_is_refused_and_ends_no_process(case):
    if case.learner.format == "python":
        pytest.skip("the owner's files are the owner's to judge")
    name = next(name for name in case.files if name.startswith("model."))
    cut = {**case.files, name: bytes(case.files[name])[: len(case.files[name]) // 3]}
    with pytest.raises(LeavenError, match="cannot be read"):
        case.model(cut)


@for_every_learner
def test_a_learner_prints_the_expression_that_makes_it_again(case):
    river = {"LogisticRegression": RiverLogistic, "StandardScaler": RiverScaler}
    names = globals() | (river if case.name.startswith("river") else {})
    if case.name.startswith("river"):
        from river.compose import Pipeline as RiverPipeline

        names["Pipeline"] = RiverPipeline
    again = eval(repr(case.learner), names)
    assert again == case.learner
    assert hash(again) == hash(case.learner)
    assert Pipeline  # scikit-learn's own, for the others


@for_every_learner
def test_threads_that_share_a_model_get_the_answers_one_alone_gets(case):
    model, matrix = case.model(case.files), case.data.matrix
    alone = [model.predict(matrix[i : i + 7]) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: model.predict(matrix[i : i + 7]), range(40)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


unpickled: list[str] | None = None  # what pickle has looked up since somebody listens


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if unpickled is not None and event == "pickle.find_class":
        unpickled.append(f"{arguments[0]}.{arguments[1]}")


sys.addaudithook(_listen)


@for_every_learner
def test_a_stored_model_is_data_and_only_the_format_that_says_so_is_a_pickle(case):
    global unpickled
    unpickled = []
    try:
        case.model(case.files)
        assert (unpickled != []) == (case.learner.format == "river-pickle")
    finally:
        unpickled = None


@for_every_learner
def test_what_runs_code_that_is_not_ours_is_refused_until_it_is_allowed_by_name(case):
    if case.learner.format in ("river-pickle", "python"):
        with pytest.raises(LeavenError, match="LEAVEN_TRUSTED_TYPES="):
            load_artifact(case.artifact(case.data, case.files))
    else:
        load_artifact(case.artifact(case.data, case.files))
