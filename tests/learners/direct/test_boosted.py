"""XGBoost answers directly to the last bit what it answers by its own method."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaven.learners import XGBoost, load
from leaven.learners.direct import xgboost as native
from leaven.learners.direct.xgboost import XGBoostRefused
from leaven.learners.formats import ModelDamaged
from leaven.learners.xgboost import XGBoostModel
from tests.learners.builders import a_training_set
from tests.learners.direct.models import assert_alike, both
from tests.learners.direct.test_pipelines import some_rows


@pytest.mark.parametrize("task", ["binary", "regression"])
@settings(max_examples=15)
@given(rounds=st.integers(1, 30), depth=st.integers(1, 7), seed=st.integers(0, 500), count=st.sampled_from([1, 3, 64]))
def test_boosted_trees_answer_directly_what_the_library_answers(task, rounds, depth, seed, count):
    learner = XGBoost(rounds, depth, threads=1)
    files = learner.fit(a_training_set(120, seed=seed % 5, task=task), seed=seed)
    served, library = both("xgboost-ubj", files, task)
    assert_alike(served, library, some_rows(seed, count), rtol=0)


def test_matrices_of_any_layout_are_read_alike():
    data = a_training_set()
    served, library = both("xgboost-ubj", XGBoost(5, threads=1).fit(data, seed=0), "binary")
    for rows in (np.asfortranarray(data.matrix), data.matrix[::3], data.matrix[::-1], data.matrix.astype(np.float32)):
        np.testing.assert_array_equal(served.predict(rows), library.predict(rows))


def test_threads_that_ask_at_once_each_get_their_own_answers():
    """The library hands out memory that belongs to the calling thread."""
    data = a_training_set(2000)
    served, library = both("xgboost-ubj", XGBoost(20, threads=1).fit(data, seed=0), "binary")
    expected = library.predict(data.matrix)

    def ask(start: int) -> bool:
        rows = slice(start, start + 1 + start % 50)
        return bool((served.predict(data.matrix[rows]) == expected[rows]).all())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(0, 1900)))


def test_a_served_booster_imports_nothing_of_its_package():
    """Which takes scikit-learn along: a hundred megabytes in every process of a gateway, and a second at its start."""
    files = XGBoost(3, threads=1).fit(a_training_set(), seed=0)
    program = (
        "import sys, msgspec; from leaven.learners import load; import numpy as np\n"
        "model = load('xgboost-ubj', msgspec.msgpack.decode(sys.stdin.buffer.read()))\n"
        "print(model.predict(np.zeros((2, 4))).tolist(), sorted({'xgboost', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    stored = msgspec.msgpack.encode(dict(files))
    run = subprocess.run([sys.executable, "-c", program], input=stored, capture_output=True, check=True)
    expected = both("xgboost-ubj", files, "binary")[1].predict(np.zeros((2, 4))).tolist()
    assert run.stdout.decode().strip() == f"{expected} []"


def test_without_the_library_where_it_belongs_the_package_answers(monkeypatch):
    data = a_training_set()
    files = XGBoost(3, threads=1).fit(data, seed=0)
    monkeypatch.setattr(native, "library", lambda: None)
    model = load("xgboost-ubj", files)
    assert isinstance(model, XGBoostModel)
    np.testing.assert_array_equal(
        model.predict(data.matrix), both("xgboost-ubj", files, "binary")[1].predict(data.matrix)
    )


def test_a_model_that_is_damaged_or_of_another_width_is_refused_in_words():
    data = a_training_set()
    files = dict(XGBoost(3, threads=1).fit(data, seed=0))
    with pytest.raises(XGBoostRefused, match="rows of 2 features, while the model takes 4"):
        load("xgboost-ubj", files).predict(data.matrix[:2, :2])
    for damaged in (b"", files["model.ubj"][:-40], b"{}" + files["model.ubj"][2:]):
        with pytest.raises(ModelDamaged):
            load("xgboost-ubj", files | {"model.ubj": damaged})


def test_a_booster_that_is_dropped_gives_its_memory_back():
    files = XGBoost(200, 6, threads=1).fit(a_training_set(2000), seed=0)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    for _ in range(5):
        load("xgboost-ubj", files)
    before = resident()
    for _ in range(25):
        load("xgboost-ubj", files)
    assert (resident() - before) * 4096 < 5 * len(files["model.ubj"])
