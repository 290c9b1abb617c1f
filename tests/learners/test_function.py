"""Functions of the owner's: what they get, what they must give, and who may load it."""

import importlib
import sys

import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.learners import Function
from leaven.learners.formats import ModelDamaged
from leaven.learners.function import load_model
from leaven.learners.guards import INPUTS_FILE
from leaven.learners.owned_code import UntrustedCode
from leaven.training.learner import CannotLearn
from tests.learners.builders import a_training_set, some_columns

MODULE = '''
"""Rates per colour, kept as JSON."""
import json
import numpy as np

asked = []

def train(columns, label, *, parent, seed):
    asked.append((columns, label, parent, seed))
    rates = json.loads(parent["rates.json"]) if parent else {}
    for colour, one in zip(columns["colour"].tolist(), label.tolist()):
        seen, ones = rates.get(str(colour), (0, 0))
        rates[str(colour)] = (seen + 1, ones + one)
    return {"rates.json": json.dumps(rates, sort_keys=True).encode()}

class Rates:
    def __init__(self, rates): self.rates = rates
    def predict(self, columns):
        shares = [self.rates.get(str(colour), (1, 0.5)) for colour in columns["colour"].tolist()]
        return np.array([ones / seen for seen, ones in shares])

def load(files):
    return Rates(json.loads(files["rates.json"]))

def gives(what):
    return lambda columns, label, *, parent, seed: what

nothing, a_list, text = gives({}), gives([b"a"]), gives({"model": "text"})
a_path, ours = gives({"a/b": b""}), gives({"inputs.json": b""})
odd = gives({"rates.json": b"{}"})
number = 7

def broken(files): raise OSError("the disk is on fire")
def shouts(files): return type("Shouts", (), {"predict": lambda self, columns: np.full(len(columns["size"]), 7.0)})()
def mumbles(files): return type("Mumbles", (), {"predict": lambda self, columns: np.array([0.5])})()
def knows_nothing(files): return type("Nan", (), {"predict": lambda self, columns: columns["size"] * np.nan})()
'''


@pytest.fixture(scope="module", autouse=True)
def owners_module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("owner")
    (folder / "owners_rates.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("owners_rates")
    sys.path.remove(str(folder))
    del sys.modules["owners_rates"]


def rates(**settings):
    return Function("owners_rates:train", "owners_rates:load", **settings)


TRUSTED = ["owners_rates:load"]


def test_the_function_gets_features_by_name_as_they_were(owners_module):
    columns = some_columns(50)
    data = a_training_set(columns=columns)
    rates().fit(data, seed=6)
    given, label, parent, seed = owners_module.asked[-1]
    assert list(given) == ["colour", "size", "count", "new"]
    assert given["colour"].tolist() == columns["colour"].tolist()
    for name in ("size", "count", "new"):
        np.testing.assert_array_equal(given[name], columns[name])
    np.testing.assert_array_equal(label, data.label)
    assert (parent, seed) == (None, 6)


def test_its_model_answers_what_it_was_loaded_to_answer():
    data = a_training_set()
    answers = load_model(rates().fit(data, seed=1), trusted=TRUSTED).predict(data.matrix)
    red = data.matrix[:, 0] == data.encoder.categories["colour"].index("red")
    np.testing.assert_allclose(answers[red], data.label[red].mean())


def test_a_category_that_nobody_knows_is_none_and_not_the_last_one():
    data = a_training_set()
    files = rates().fit(data, seed=1)
    unknown = data.encoder.encode({"colour": np.array(["never seen", None], dtype=object)})
    answers = load_model(files, trusted=TRUSTED).predict(unknown)
    assert answers[0] == answers[1]
    missing = np.isnan(data.matrix[:, 0])
    np.testing.assert_allclose(answers[0], data.label[missing].mean())


def test_an_update_gets_the_parents_files_and_no_others(owners_module):
    old = a_training_set()
    new = a_training_set(seed=5, parent=old.encoder)
    parent = rates(stateful=True).fit(old, seed=1)
    rates(stateful=True).update(parent, new, seed=2)
    assert owners_module.asked[-1][2].keys() == {"rates.json"}
    assert owners_module.asked[-1][2]["rates.json"] == parent["rates.json"]
    with pytest.raises(CannotLearn, match="owners_rates:train is not stateful"):
        rates().update(parent, new, seed=2)


def test_a_model_is_loaded_only_by_code_that_was_allowed_by_name(owners_module):
    files = rates().fit(a_training_set(), seed=1)
    for trusted in ([], ["owners_rates"], ["owners_rates:train"]):
        with pytest.raises(UntrustedCode, match=r"LEAVEN_TRUSTED_TYPES=owners_rates:load"):
            load_model(files, trusted=trusted)


def test_nothing_is_imported_before_that(tmp_path, monkeypatch):
    (tmp_path / "never_run.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    files = dict(rates().fit(a_training_set(), seed=1))
    files["function.json"] = files["function.json"].replace(b"owners_rates:load", b"never_run:load")
    with pytest.raises(UntrustedCode, match="never_run:load"):
        load_model(files)


def test_a_stored_model_holds_no_code():
    files = rates().fit(a_training_set(), seed=1)
    assert files.keys() == {"rates.json", "function.json", INPUTS_FILE}
    assert b"def " not in b"".join(files.values())


def test_code_that_changed_since_is_told(owners_module, caplog):
    files = dict(rates().fit(a_training_set(), seed=1))
    load_model(files, trusted=TRUSTED)
    assert not caplog.records
    files["function.json"] = files["function.json"].replace(b'"code":"', b'"code":"0')
    load_model(files, trusted=TRUSTED)
    assert "owners_rates:load has changed since this version was trained" in caplog.text


def test_a_module_that_is_not_there_where_it_serves_is_told_with_what_to_do():
    files = dict(rates().fit(a_training_set(), seed=1))
    files["function.json"] = files["function.json"].replace(b"owners_rates:load", b"gone_module:load")
    with pytest.raises(BadDefinition, match=r"'gone_module' cannot be imported.*PYTHONPATH"):
        load_model(files, trusted=["gone_module:load"])


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("nothing", "returned dict instead of files"),
        ("a_list", "returned list instead of files"),
        ("text", "file 'model' .* is str, not bytes"),
        ("a_path", "a file called 'a/b'"),
        ("ours", r"a file called 'inputs\.json'"),
    ],
)
def test_what_a_function_may_not_return_is_refused(function, reason):
    with pytest.raises(CannotLearn, match=reason):
        Function(f"owners_rates:{function}", "owners_rates:load").fit(a_training_set(), seed=1)


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        ("shouts", "answers 7, which is no probability"),
        ("mumbles", r"answers \(1,\) to 256 rows"),
        ("knows_nothing", "answers what is no number"),
    ],
)
def test_a_model_that_cannot_answer_is_refused_before_it_is_kept(load, reason):
    with pytest.raises(CannotLearn, match=reason):
        Function("owners_rates:odd", f"owners_rates:{load}").fit(a_training_set(), seed=1)


def test_an_error_of_the_owners_code_is_told_in_its_own_words():
    with pytest.raises(OSError, match="on fire"):
        Function("owners_rates:odd", "owners_rates:broken").fit(a_training_set(), seed=1)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("owners_rates", 'Write it as "module:function"'),
        ("owners_rates:", 'Write it as "module:function"'),
        ("owners_rates:absent", "has no function 'absent'"),
        ("owners_rates:number", "has no function 'number'"),
        ("no_such_module:train", r"cannot be imported.*beside the loop file"),
    ],
)
def test_a_function_that_is_not_there_is_refused_when_written(function, reason):
    for arguments in ((function, "owners_rates:load"), ("owners_rates:train", function)):
        with pytest.raises(BadDefinition, match=reason):
            Function(*arguments)


def test_damaged_files_are_refused():
    files = dict(rates().fit(a_training_set(), seed=1))
    for damaged in ({}, files | {"function.json": b"{"}):
        with pytest.raises(ModelDamaged, match=r"function\.json"):
            load_model(damaged, trusted=TRUSTED)
