"""A command of the owner's: what it finds in its folder, and what is refused of what it leaves."""

import json
import sys

import duckdb
import numpy as np
import pytest
import skops.io
import xgboost as xgb
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from leaven.errors import BadDefinition
from leaven.learners import Command, LightGBM, ScikitLearn, XGBoost, load
from leaven.loop import Schema
from leaven.training.learner import CannotLearn
from tests.learners.builders import a_training_set, some_columns

PROGRAM = '''
"""What an owner has already: reads rows, trains, writes a model."""
import json, shutil, sys
from pathlib import Path

import duckdb
import numpy as np
import xgboost as xgb

folder = Path(sys.argv[-1])
job = json.loads((folder / "job.json").read_text())
rows = duckdb.sql(f"select * from '{folder / job['rows']}'").fetchnumpy()
names = [feature["name"] for feature in job["features"]]
matrix = np.column_stack([np.ma.filled(rows[name].astype(float), np.nan) for name in names])
rows = xgb.DMatrix(matrix, np.asarray(rows[job["label"]]), feature_names=names)
parent = xgb.Booster(model_file=str(folder / job["parent"])) if job["parent"] else None
settings = {"objective": "binary:logistic", "nthread": 1, "seed": job["seed"]}
xgb.train(settings, rows, 5, xgb_model=parent).save_model(folder / job["model"])
shutil.copytree(folder, sys.argv[1], dirs_exist_ok=True)
'''


def leaving(folder, content, *, format="xgboost-ubj", name="model.ubj", **settings):
    """A command that leaves a model which was made elsewhere: a quick program, and one in another language."""
    (folder / "made").write_bytes(content)
    return Command(["sh", "-c", f'cp {folder / "made"} "$0/model/{name}"'], format=format, **settings)


def boosted(data, names, *, objective="binary:logistic"):
    columns = [[name for name, _, _ in data.encoder.features].index(name) for name in names]
    rows = xgb.DMatrix(data.matrix[:, columns], data.label, feature_names=list(names))
    return bytes(xgb.train({"objective": objective, "nthread": 1}, rows, 5).save_raw("ubj"))


NAMES = ("colour", "size", "count", "new")


def test_an_owners_program_trains_and_goes_on_from_its_parent(tmp_path):
    (tmp_path / "train.py").write_text(PROGRAM)
    learner = Command(
        ["python", str(tmp_path / "train.py"), str(tmp_path / "kept")], format="xgboost-ubj", stateful=True
    )
    columns = some_columns(60)
    old = a_training_set(columns=columns)
    parent = learner.fit(old, seed=11)
    job = json.loads((tmp_path / "kept" / "job.json").read_text())
    assert (job["mode"], job["seed"], job["task"], job["parent"]) == ("fit", 11, "binary", None)
    assert job["features"][0] == {"name": "colour", "type": "category"}
    assert job["categories"] == {"colour": ["blue", "green", "red"]}
    rows = duckdb.sql(f"select * from '{tmp_path / 'kept' / 'train.parquet'}'").fetchnumpy()
    assert list(rows) == [*NAMES, "label"]
    filled = np.column_stack([np.ma.filled(rows[name].astype(float), np.nan) for name in NAMES])
    np.testing.assert_array_equal(filled, old.matrix)
    np.testing.assert_array_equal(np.asarray(rows["label"]), old.label)
    answers = load("xgboost-ubj", parent).predict(old.matrix)
    assert np.corrcoef(answers, old.label)[0, 1] > 0.4

    child = learner.update(parent, a_training_set(seed=5, parent=old.encoder), seed=2)
    booster = xgb.Booster()
    booster.load_model(bytearray(child["model.ubj"]))
    assert booster.num_boosted_rounds() == 10
    assert json.loads((tmp_path / "kept" / "job.json").read_text())["mode"] == "update"


def test_only_its_own_parent_and_only_where_it_says_so(tmp_path):
    data = a_training_set()
    content = boosted(data, NAMES)
    child = leaving(tmp_path, content).fit(data, seed=1)
    with pytest.raises(CannotLearn, match="is not stateful"):
        leaving(tmp_path, content).update(child, data, seed=2)
    with pytest.raises(CannotLearn, match=r"the parent was made by XGBoost"):
        leaving(tmp_path, content, stateful=True).update(XGBoost(2, threads=1).fit(data, seed=1), data, seed=1)


@pytest.mark.parametrize(
    ("format", "name", "learner"),
    [
        ("lightgbm-text", "model.txt", LightGBM(5, threads=1)),
        ("skops", "model.skops", ScikitLearn(LogisticRegression(), categories="one-hot")),
    ],
    ids=["lightgbm", "skops"],
)
def test_what_it_leaves_is_answered_by_our_reader(tmp_path, format, name, learner):
    data = a_training_set()
    made = learner.fit(data, seed=1)
    files = leaving(tmp_path, made[name], format=format, name=name).fit(data, seed=1)
    np.testing.assert_array_equal(load(format, files).predict(data.matrix), load(format, made).predict(data.matrix))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("new", "count", "size", "colour"), "takes its columns in another order: new, count, size, colour"),
        (NAMES[:3], "takes 3 columns, while there are 4 features"),
    ],
    ids=["reordered", "narrow"],
)
def test_columns_that_are_not_the_features_in_their_order_are_refused(tmp_path, names, reason):
    data = a_training_set()
    with pytest.raises(CannotLearn, match=reason):
        leaving(tmp_path, boosted(data, names)).fit(data, seed=1)


def test_reordered_columns_are_noticed_in_lightgbm_as_well(tmp_path):
    import lightgbm as lgb

    data, names = a_training_set(), list(NAMES[::-1])
    rows = lgb.Dataset(data.matrix[:, ::-1], data.label, feature_name=names)
    text = lgb.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, rows, 3).model_to_string().encode()
    with pytest.raises(CannotLearn, match="in another order: new, count, size, colour"):
        leaving(tmp_path, text, format="lightgbm-text", name="model.txt").fit(data, seed=1)


def test_what_cannot_answer_or_be_read_is_refused(tmp_path):
    data = a_training_set()
    with pytest.raises(CannotLearn, match=r"answers .*, which is no probability"):
        leaving(tmp_path, boosted(data, NAMES, objective="binary:logitraw")).fit(data, seed=1)
    with pytest.raises(CannotLearn, match=r"what it left is refused: .*Let the command leave a model of xgboost-ubj"):
        leaving(tmp_path, b"not a model").fit(data, seed=1)


def test_types_that_the_owner_did_not_name_are_refused(tmp_path):
    made = skops.io.dumps(FunctionTransformer(some_columns))
    with pytest.raises(CannotLearn, match=r"what it left is refused.*some_columns"):
        leaving(tmp_path, made, format="skops", name="model.skops").fit(a_training_set(), seed=1)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("true", r"left no model/model\.ubj and said nothing"),
        ("echo about to fail; exit 3", r"(?s)ended with exit code 3; its last words:.*about to fail"),
        ("kill -9 $$", "ended with signal 9"),
    ],
)
def test_a_command_that_fails_is_told_with_its_last_words(script, reason, capfd):
    with pytest.raises(CannotLearn, match=reason):
        Command(["sh", "-c", script], format="xgboost-ubj").fit(a_training_set(), seed=1)
    assert capfd.readouterr().out == ""  # that of `leaven … --json` is read by machines


def test_a_feature_that_is_called_as_the_labels_are_is_refused():
    schema = Schema((("label", "float", False),), "user", "binary")
    data = a_training_set(columns={"label": np.arange(40.0)}, schema=schema, label=np.arange(40) % 2)
    with pytest.raises(CannotLearn, match="a feature is called 'label'"):
        Command(["true"], format="skops").fit(data, seed=1)


def test_a_program_that_is_not_there_is_told():
    with pytest.raises(BadDefinition, match=r"'no-such-program' cannot be run \(No such file"):
        Command(["no-such-program"], format="skops").fit(a_training_set(), seed=1)


def test_python_is_the_python_that_runs_leaven(tmp_path):
    script = f"import sys; open({str(tmp_path / 'which')!r}, 'w').write(sys.executable)"
    with pytest.raises(CannotLearn, match="left no"):
        Command(["python", "-c", script], format="skops").fit(a_training_set(), seed=1)
    assert (tmp_path / "which").read_text() == sys.executable


@pytest.mark.parametrize(
    ("arguments", "format", "reason"),
    [
        ("python train.py", "skops", "is no command"),
        ([], "skops", "is no command"),
        (["python", 3], "skops", "is no command"),
        (["python"], "pickle", '"xgboost-ubj" or "lightgbm-text" or "skops"'),
    ],
)
def test_what_is_no_command_is_refused_when_written(arguments, format, reason):
    with pytest.raises(BadDefinition, match=reason):
        Command(arguments, format=format)
