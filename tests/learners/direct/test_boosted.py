"""XGBoost answers directly to the last bit what it answers by its own method."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaven.learners import XGBoost
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
