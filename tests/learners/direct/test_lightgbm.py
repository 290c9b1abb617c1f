"""LightGBM is asked without its Python package, and answers to the last bit what that answers."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm as lgb
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaven.learners import LightGBM, load
from leaven.learners.direct import lightgbm as native
from leaven.learners.direct.lightgbm import LightGBMRefused, NativeLightGBM
from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import INPUTS_FILE, inputs_of
from leaven.learners.lightgbm import LightGBMModel, booster_in
from tests.learners.builders import a_training_set
from tests.learners.direct.test_pipelines import some_rows


def both(files):
    return load("lightgbm-text", files), LightGBMModel(booster_in(files))


@pytest.mark.parametrize("task", ["binary", "regression"])
@settings(max_examples=15)
@given(
    rounds=st.integers(1, 30), leaves=st.integers(2, 31), seed=st.integers(0, 500), count=st.sampled_from([1, 3, 64])
)
def test_it_answers_what_the_package_answers(task, rounds, leaves, seed, count):
    files = LightGBM(rounds, leaves, threads=1).fit(a_training_set(120, seed=seed % 5, task=task), seed=seed)
    served, package = both(files)
    assert isinstance(served, NativeLightGBM)
    rows = some_rows(seed, count)
    np.testing.assert_array_equal(served.predict(rows), package.predict(rows))


def test_matrices_of_any_layout_are_read_alike():
    data = a_training_set()
    served, package = both(LightGBM(5, threads=1).fit(data, seed=0))
    for rows in (np.asfortranarray(data.matrix), data.matrix[::3], data.matrix[::-1], data.matrix.astype(np.float32)):
        np.testing.assert_array_equal(served.predict(rows), package.predict(rows))
    assert served.predict(data.matrix[:0]).shape == (0,)


def test_threads_that_ask_at_once_each_get_their_own_answers():
    data = a_training_set(2000)
    served, package = both(LightGBM(20, threads=1).fit(data, seed=0))
    expected = package.predict(data.matrix)

    def ask(start: int) -> bool:
        rows = slice(start, start + 1 + start % 50)
        return bool((served.predict(data.matrix[rows]) == expected[rows]).all())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(0, 1900)))


def test_a_served_model_imports_nothing_of_its_package():
    files = LightGBM(3, threads=1).fit(a_training_set(), seed=0)
    program = (
        "import sys, msgspec, numpy as np\n"
        "from leaven.learners import load\n"
        "files = msgspec.msgpack.decode(sys.stdin.buffer.read())\n"
        "assert load('lightgbm-text', files).predict(np.zeros((1, 4))).shape == (1,)\n"
        "print(sorted({'lightgbm', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        input=msgspec.msgpack.encode(dict(files)),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert said.stdout.decode().strip() == "[]"


def test_rows_of_another_width_are_refused(capfd):
    served, _ = both(LightGBM(3, threads=1).fit(a_training_set(), seed=0))
    for width in (3, 5):
        with pytest.raises(LightGBMRefused, match="number of features"):
            served.predict(np.zeros((2, width)))


def test_a_model_of_many_classes_is_refused_before_it_writes_where_there_is_no_room():
    data = a_training_set()
    rows = lgb.Dataset(data.matrix, np.arange(400) % 3)
    three = lgb.train({"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}, rows, 2)
    text = three.model_to_string().encode()
    files = {"model.txt": text, INPUTS_FILE: inputs_of(data, made_by="test", content=text).to_bytes()}
    with pytest.raises(ModelDamaged, match="3 answers per row"):
        load("lightgbm-text", files)


def test_where_the_library_is_not_found_the_package_answers(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    data = a_training_set()
    assert isinstance(load("lightgbm-text", LightGBM(3, threads=1).fit(data, seed=0)), LightGBMModel)
