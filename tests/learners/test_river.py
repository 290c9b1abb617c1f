"""River: one example at a time, and storage that makes nothing which nobody named."""

import pickle
from collections import Counter

import numpy as np
import pytest
import skops.io
from river import compose, drift, ensemble, forest, linear_model, naive_bayes, optim, preprocessing, tree
from river.compose import Pipeline  # noqa: F401  # for eval of a learner's repr

from leaven.errors import BadDefinition
from leaven.learners import River
from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import INPUTS_FILE
from leaven.learners.river import load_model
from leaven.learners.river_storage import UntrustedModel
from leaven.training.learner import CannotLearn, TrainingSet
from tests.learners.builders import a_training_set, some_columns

PICKLED = {"trusted": ["river-pickle"]}
LOGISTIC = River(linear_model.LogisticRegression(optim.SGD(0.05)), categories="one-hot")
TREE = River(tree.HoeffdingTreeClassifier(grace_period=50), **PICKLED)


def as_rows(columns, *, one_hot):
    """The dictionaries that somebody who uses River alone would make of these columns."""
    for colour, *numbers in zip(*columns.values(), strict=True):
        named = zip(("size", "count", "new"), map(float, numbers), strict=True)
        known = {} if colour is None else {f"colour={colour}": 1.0} if one_hot else {"colour": colour}
        yield known | {name: given for name, given in named if not np.isnan(given)}


@pytest.mark.parametrize(
    ("learner", "theirs"),
    [
        (LOGISTIC, linear_model.LogisticRegression(optim.SGD(0.05))),
        (TREE, tree.HoeffdingTreeClassifier(grace_period=50)),
    ],
    ids=["logistic", "tree"],
)
def test_a_fit_equals_river_shown_the_same_rows_by_hand(learner, theirs):
    columns = some_columns(400)
    data = a_training_set(columns=columns)
    rows = list(as_rows(columns, one_hot=learner.categories == "one-hot"))
    for row, label in zip(rows, data.label, strict=True):
        theirs.learn_one(row, bool(label))
    ours = load_model(learner.fit(data, seed=1), trusted=learner.trusted).predict(data.matrix)
    np.testing.assert_array_equal(ours, [theirs.predict_proba_one(row)[True] for row in rows])


@pytest.mark.parametrize(
    "learner",
    [LOGISTIC, TREE, River(forest.ARFClassifier(n_models=3), **PICKLED)],
    ids=["logistic", "tree", "forest"],
)
def test_two_stretches_one_after_the_other_are_both_at_once(learner):
    """Resume equality, bitwise: the whole state is kept, chance included."""
    both = a_training_set(400)
    first, second = (
        TrainingSet(both.matrix[part], both.label[part], both.encoder, both.schema)
        for part in (slice(None, 250), slice(250, None))
    )
    in_turn = learner.update(learner.fit(first, seed=3), second, seed=99)
    at_once = learner.fit(both, seed=3)
    fresh = a_training_set(200, seed=8, parent=both.encoder).matrix
    ours, theirs = (load_model(files, trusted=learner.trusted).predict(fresh) for files in (in_turn, at_once))
    np.testing.assert_array_equal(ours, theirs)


def test_the_order_of_the_rows_is_the_order_of_learning():
    data = a_training_set(300)
    turned = TrainingSet(data.matrix[::-1], data.label[::-1], data.encoder, data.schema)
    answers = [load_model(LOGISTIC.fit(given, seed=1)).predict(data.matrix[:5]) for given in (data, turned)]
    assert (answers[0] != answers[1]).any()


def test_empty_seeds_are_set_from_the_loops_wherever_they_are_and_others_kept():
    def seeds(model, *, seed):
        files = River(model, categories="one-hot", **PICKLED).fit(a_training_set(60), seed=seed)
        return load_model(files, trusted=["river-pickle"])._model

    assert seeds(forest.ARFClassifier(n_models=2), seed=7).seed == 7
    assert seeds(forest.ARFClassifier(n_models=2, seed=5), seed=7).seed == 5
    assert seeds(preprocessing.StandardScaler() | forest.ARFClassifier(n_models=2), seed=7)["ARFClassifier"].seed == 7


def test_the_owners_model_learns_nothing_itself():
    model = linear_model.LogisticRegression()
    River(model, categories="one-hot").fit(a_training_set(), seed=1)
    assert model.weights == {}


def test_a_number_is_learnt_as_well():
    data = a_training_set(500, task="regression")
    learner = River(preprocessing.StandardScaler() | linear_model.LinearRegression(), categories="one-hot")
    answers = load_model(learner.fit(data, seed=1)).predict(data.matrix)
    assert np.corrcoef(answers, data.label)[0, 1] > 0.4


@pytest.mark.parametrize(
    "model",
    [
        preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        preprocessing.MinMaxScaler() | linear_model.LogisticRegression(optim.Adam(0.1)),
        linear_model.LogisticRegression(optim.FTRLProximal()),
        linear_model.LogisticRegression(optim.SGD(optim.schedulers.InverseScaling(0.1))),
        naive_bayes.BernoulliNB(),
    ],
    ids=str,
)
def test_linear_models_and_their_pipelines_are_stored_without_pickle(model):
    learner, data = River(model, categories="one-hot"), a_training_set()
    files = learner.fit(data, seed=1)
    assert files.keys() == {"model.skops", "rows.json", INPUTS_FILE}
    child = learner.update(files, data, seed=1)
    assert np.isfinite(load_model(child).predict(data.matrix)).all()


@pytest.mark.parametrize(
    "model", [tree.HoeffdingTreeClassifier(grace_period=20), forest.ARFClassifier(n_models=2)], ids=["tree", "forest"]
)
def test_what_only_pickle_can_hold_is_refused_until_that_is_allowed_by_name(model):
    columns = some_columns(300)
    with pytest.raises(CannotLearn, match=r'only pickle beside it.*trusted=\["river-pickle"\].*LEAVEN_TRUSTED_TYPES'):
        River(model).fit(a_training_set(columns=columns), seed=1)
    learner = River(model, **PICKLED)
    assert learner.format == "river-pickle"
    files = learner.fit(a_training_set(columns=columns), seed=1)
    with pytest.raises(UntrustedModel, match="is a pickle, and nobody allowed that"):
        load_model(files)
    assert load_model(files, trusted=["river-pickle"]).predict(a_training_set().matrix).shape == (400,)


class Trap:
    """Unpickled by the usual way, it calls the system."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def test_a_pickle_that_calls_the_system_is_refused_even_where_pickle_is_allowed(tmp_path):
    import os

    mark = tmp_path / "mark"
    for call, arguments in ((os.system, (f"touch {mark}",)), (eval, ("1",)), (getattr, (Counter, "mro"))):
        files = {"model.pickle": pickle.dumps(Trap(call, *arguments)), "rows.json": b"[]", INPUTS_FILE: b"{}"}
        with pytest.raises(UntrustedModel, match=r"is made of (posix\.system|builtins\.eval|builtins\.getattr)"):
            load_model(files, trusted=["river-pickle"])
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("river.base.base", "copy"),
        ("river.base.base", "copy.deepcopy"),
        ("river.datasets.base", "pathlib.Path"),
        ("river.stream", "iter_csv"),
        ("riverside", "Model"),
    ],
)
def test_what_rivers_own_modules_import_or_do_cannot_be_reached_through_them(module, name):
    """Their classes may be made; functions of theirs, and what they import, may not be called."""
    call = f"\x80\x04\x8c{chr(len(module))}{module}\x8c{chr(len(name))}{name}\x93)R.".encode("latin-1")
    files = {"model.pickle": call, "rows.json": b"[]", INPUTS_FILE: b"{}"}
    with pytest.raises(UntrustedModel, match="nobody named as safe"):
        load_model(files, trusted=["river-pickle"])


def test_an_archive_of_unnamed_types_is_refused():
    files = {"model.skops": skops.io.dumps(drift.binary.DDM()), "rows.json": b"[]", INPUTS_FILE: b"{}"}
    with pytest.raises(UntrustedModel, match=r"river\.drift\.binary\.ddm\.DDM"):
        load_model(files)


@pytest.mark.parametrize("damage", ["gone", "cut", "rows", "inputs"])
@pytest.mark.parametrize("learner", [LOGISTIC, TREE], ids=["logistic", "tree"])
def test_damaged_files_are_refused(learner, damage):
    files = dict(learner.fit(a_training_set(200), seed=1))
    name = next(name for name in files if name.startswith("model."))
    if damage == "gone":
        del files[name]
    elif damage == "cut":
        files[name] = files[name][: len(files[name]) // 2]
    else:
        files["rows.json" if damage == "rows" else INPUTS_FILE] = b"{"
    with pytest.raises(ModelDamaged, match="cannot be read"):
        load_model(files, trusted=learner.trusted)


def test_text_that_a_linear_model_cannot_take_is_refused_with_what_to_do():
    with pytest.raises(CannotLearn, match=r'stumbles over a row.*categories="one-hot"'):
        River(linear_model.LogisticRegression()).fit(a_training_set(), seed=1)


def test_a_model_that_diverged_is_refused():
    data = a_training_set(400, task="regression")
    huge = TrainingSet(data.matrix * [1, 1e6, 1e6, 1], data.label, data.encoder, data.schema)
    learner = River(linear_model.LinearRegression(optim.SGD(1.0), clip_gradient=1e300), categories="one-hot")
    with pytest.raises(CannotLearn, match=r"the model diverged.*Scale the features"):
        learner.fit(huge, seed=1)


def test_a_model_of_another_task_or_without_probabilities_is_refused():
    with pytest.raises(CannotLearn, match="LinearRegression is no classifier, which a binary label needs"):
        River(linear_model.LinearRegression(), categories="one-hot").fit(a_training_set(), seed=1)
    with pytest.raises(CannotLearn, match="LogisticRegression is no regressor"):
        LOGISTIC.fit(a_training_set(task="regression"), seed=1)


def test_a_parent_that_is_another_model_or_reads_rows_in_another_way_is_refused():
    data = a_training_set()
    parent = LOGISTIC.fit(data, seed=1)
    for other in (linear_model.LogisticRegression(optim.SGD(0.5)), linear_model.Perceptron()):
        with pytest.raises(CannotLearn, match=r"the parent was made by LogisticRegression\(optimizer=SGD"):
            River(other, categories="one-hot").update(parent, data, seed=1)
    with pytest.raises(CannotLearn, match=r"one-hot, this is .*text"):
        River(linear_model.LogisticRegression(optim.SGD(0.05))).update(parent, data, seed=1)


def test_a_category_that_came_later_is_learnt_after_the_old_ones():
    old = a_training_set()
    grown = a_training_set(columns=some_columns(400, seed=3, colours="amber red violet"), parent=old.encoder)
    model = load_model(LOGISTIC.update(LOGISTIC.fit(old, seed=1), grown, seed=1))._model
    assert {"colour=red", "colour=blue", "colour=amber", "colour=violet"} <= model.weights.keys()


@pytest.mark.parametrize(
    "model",
    [
        linear_model.LogisticRegression(optim.SGD(0.05), l2=0.1),
        preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        compose.Pipeline(("scale", preprocessing.StandardScaler()), tree.HoeffdingTreeClassifier(grace_period=50)),
        (compose.SelectType(str) | preprocessing.OneHotEncoder()) + compose.SelectType(float)
        | linear_model.LogisticRegression(),
        ensemble.LeveragingBaggingClassifier(tree.HoeffdingTreeClassifier(max_depth=4), n_models=3),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_learner_prints_the_expression_that_makes_it_again(model):
    from river.compose import SelectType, TransformerUnion  # noqa: F401
    from river.ensemble import LeveragingBaggingClassifier  # noqa: F401
    from river.linear_model import LogisticRegression  # noqa: F401
    from river.optim import SGD  # noqa: F401
    from river.optim.schedulers import Constant  # noqa: F401
    from river.preprocessing import OneHotEncoder, StandardScaler  # noqa: F401
    from river.tree import HoeffdingTreeClassifier  # noqa: F401

    learner = River(model, **PICKLED)
    again = eval(repr(learner), globals() | locals())
    assert repr(again) == repr(learner)
    assert again == learner
    assert "\n" not in repr(learner)
    assert repr(River(model)) != repr(River(linear_model.LogisticRegression(l2=0.2)))


@pytest.mark.parametrize("wrong", [linear_model.LogisticRegression, "LogisticRegression", drift.ADWIN()])
def test_what_is_no_model_is_refused_when_written(wrong):
    with pytest.raises(BadDefinition, match="no model of River"):
        River(wrong)


def test_an_unknown_way_to_pass_categories_is_refused():
    with pytest.raises(BadDefinition, match='"text" or "one-hot"'):
        River(linear_model.LogisticRegression(), categories="codes")
