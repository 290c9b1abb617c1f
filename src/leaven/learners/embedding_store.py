"""Which embeddings need not be computed again?

A text has one embedding for as long as the encoder is the same, and a refresh, a gate and repeated requests ask for the
same texts. Both stores are bounded: what came first goes first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from leaven.errors import BadDefinition
from leaven.learners.sentences import Embeddings, SentenceEncoder

_ASKED_AT_ONCE = 500  # keys; SQLite takes 32,766 variables at most, and 999 where it is old
_WAIT_SECONDS = 60.0  # for another process that writes


class EmbeddingStore(Protocol):
    """Keeps some embeddings by text; safe to ask from several threads."""

    def get(self, texts: Sequence[str]) -> Mapping[str, Embeddings]:
        """Return the embeddings of those texts that it has, each of shape (width,)."""
        ...

    def put(self, made: Mapping[str, Embeddings]) -> None:
        """Keep these, and let older ones go."""
        ...


def embedded(texts: Sequence[str], encoder: SentenceEncoder, store: EmbeddingStore | None) -> Embeddings:
    """Return the embedding of each text, shape (texts, width); a text without a word is all zeros.

    Args:
        texts: The texts, in any order; one that is there twice is encoded once.
        encoder: Makes those that `store` has not.
        store: Is asked first, and is given what was made.
    """
    known: dict[str, Embeddings] = {"": np.zeros(encoder.width, np.float32)}
    asked = [text for text in dict.fromkeys(texts) if text]
    if store is not None:
        known |= store.get(asked)
    new = [text for text in asked if text not in known]
    made = dict(zip(new, encoder.encode(new), strict=True))
    if store is not None and made:
        store.put(made)
    known |= made
    return np.stack([known[text] for text in texts]) if len(texts) else np.empty((0, encoder.width), np.float32)


class Recent:
    """Embeddings in memory, for a process that serves.

    Args:
        most: Texts that are kept; each takes about two kilobytes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._kept, self._lock = most, dict[str, Embeddings](), Lock()

    def get(self, texts: Sequence[str]) -> Mapping[str, Embeddings]:
        """Return the embeddings of those texts that it has, each of shape (width,)."""
        with self._lock:
            return {text: self._kept[text] for text in texts if text in self._kept}

    def put(self, made: Mapping[str, Embeddings]) -> None:
        """Keep these, and let older ones go."""
        with self._lock:
            self._kept |= {text: numbers.copy() for text, numbers in made.items()}  # a row would hold its whole batch
            for text in list(islice(self._kept, max(0, len(self._kept) - self._most))):
                del self._kept[text]


class Kept:
    """Embeddings in a SQLite file, for training processes that follow each other.

    Args:
        file: Is made where there is none; several processes may share it.
        digest: Of the encoder; embeddings of another one are not found.
        most: Texts that are kept; each takes about two kilobytes.

    Raises:
        BadDefinition: the file cannot be read or written.
    """

    def __init__(self, file: Path, *, digest: str, most: int) -> None:
        self._file, self._salt, self._most = file, bytes.fromhex(digest), most

    def get(self, texts: Sequence[str]) -> Mapping[str, Embeddings]:
        """Return the embeddings of those texts that it has, each of shape (width,)."""
        by_key = {self._key(text): text for text in texts}
        found: dict[str, Embeddings] = {}
        with self._opened() as database:
            for some in _batches(by_key):
                marks = ",".join("?" * len(some))
                asked = f"SELECT key, numbers FROM embeddings WHERE key IN ({marks})"  # noqa: S608 - question marks
                for key, numbers in database.execute(asked, some):
                    found[by_key[key]] = np.frombuffer(numbers, np.float32)
        return found

    def put(self, made: Mapping[str, Embeddings]) -> None:
        """Keep these, and let older ones go."""
        rows = [(self._key(text), numbers.astype(np.float32).tobytes()) for text, numbers in made.items()]
        with self._opened() as database:
            database.executemany("INSERT OR IGNORE INTO embeddings (key, numbers) VALUES (?, ?)", rows)
            last = "SELECT place FROM embeddings ORDER BY place DESC LIMIT 1 OFFSET ?"
            database.execute(f"DELETE FROM embeddings WHERE place <= ({last})", (self._most,))  # noqa: S608

    def _key(self, text: str) -> bytes:
        return sha256(self._salt + text.encode()).digest()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._file, timeout=_WAIT_SECONDS)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings"
                    " (place INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB UNIQUE NOT NULL, numbers BLOB NOT NULL)"
                )
                yield database
        except sqlite3.Error as error:
            mend = "Name a file that can be written, in a folder that there is; remove it if it is damaged."
            raise BadDefinition("Embedded(kept_in=…)", f"{self._file} cannot be used ({error})", mend) from error


def _batches(keys: Iterable[bytes]) -> Iterable[list[bytes]]:
    left = iter(keys)
    while some := list(islice(left, _ASKED_AT_ONCE)):
        yield some
