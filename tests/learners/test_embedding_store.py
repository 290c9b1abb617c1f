"""What is kept of embeddings: the very numbers, no more than asked for, and nothing of another encoder."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.learners.embedding_store import Kept, Recent, embedded

DIGEST = "ab" * 32


class Lengths:
    """Encodes a text as its length, and counts what it was asked: stands in for any encoder."""

    width = 3

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        return np.array([[len(text), 1, 0] for text in texts], np.float32).reshape(-1, 3)


@pytest.fixture(params=["recent", "kept"])
def store(request, tmp_path):
    def make(most=10):
        return Recent(most) if request.param == "recent" else Kept(tmp_path / "kept.db", digest=DIGEST, most=most)

    return make


def test_a_text_is_encoded_once(store):
    encoder, kept = Lengths(), store()
    first = embedded(["aa", "b", "aa", ""], encoder, kept)
    np.testing.assert_array_equal(first, [[2, 1, 0], [1, 1, 0], [2, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(embedded(["ccc", "aa"], encoder, kept), [[3, 1, 0], [2, 1, 0]])
    assert encoder.asked == ["aa", "b", "ccc"]
    assert embedded([], encoder, kept).shape == (0, 3)


def test_what_came_first_goes_first(store):
    kept = store(most=4)
    embedded(["a", "bb", "ccc"], Lengths(), kept)
    embedded(["dddd", "eeeee"], Lengths(), kept)
    assert set(kept.get(["a", "bb", "ccc", "dddd", "eeeee"])) == {"bb", "ccc", "dddd", "eeeee"}


def test_a_batch_larger_than_the_store_is_answered_all_the_same(store):
    texts = ["x" * length for length in range(1, 2001)]
    kept = store(most=7)
    np.testing.assert_array_equal(embedded(texts, Lengths(), kept)[:, 0], np.arange(1, 2001))
    assert set(kept.get(texts)) == set(texts[-7:])


def test_threads_may_share_it(store):
    kept = store(most=50)

    def ask(start):
        texts = ["y" * length for length in range(start + 1, start + 60)]
        return np.array_equal(embedded(texts, Lengths(), kept)[:, 0], np.arange(start + 1, start + 60))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(40)))


def test_embeddings_outlive_the_process_and_belong_to_one_encoder(tmp_path):
    file = tmp_path / "kept.db"
    embedded(["a"], Lengths(), Kept(file, digest=DIGEST, most=10))
    assert set(Kept(file, digest=DIGEST, most=10).get(["a", "b"])) == {"a"}
    assert not Kept(file, digest="cd" * 32, most=10).get(["a"])


@pytest.mark.parametrize("content", [b"no database, but some kilobytes of another file " * 100, None])
def test_a_file_that_cannot_be_used_is_named(tmp_path, content):
    file = tmp_path / "kept.db" if content else tmp_path / "nowhere" / "kept.db"
    if content:
        file.write_bytes(content)
    with pytest.raises(BadDefinition, match=r"kept\.db cannot be used"):
        Kept(file, digest=DIGEST, most=10).get(["a"])


def test_no_text_lies_in_the_file(tmp_path):
    file = tmp_path / "kept.db"
    embedded(["a secret"], Lengths(), Kept(file, digest=DIGEST, most=10))
    with sqlite3.connect(file) as database:
        (numbers,) = database.execute("SELECT numbers FROM embeddings").fetchone()
    database.close()
    assert b"secret" not in file.read_bytes()
    assert np.frombuffer(numbers, np.float32)[0] == 8
