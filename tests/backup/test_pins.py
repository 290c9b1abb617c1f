"""Is every acknowledged event in what is pinned, once, while writers write and the flusher flushes?"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from leaven.backup.errors import BackupIncomplete
from leaven.backup.pins import Piece, pieces_of_table, pin_lake, pin_log
from leaven.storage.flusher import Flusher
from leaven.storage.lake import Lake
from tests.storage.builders import a_label, a_lake, a_log, commit


def laid_down(pieces: list[Piece], home: Path) -> None:
    """What a restoration makes of the pieces."""
    for piece in pieces:
        path = home / piece.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with piece.path.open("rb") as content:
            path.write_bytes(content.read(piece.size))


def ids_in(lake: Lake) -> Counter[str]:
    import duckdb

    table = lake.table("flights", "feedback")
    table.refresh()
    files = table.place.local({file.path: file.bytes for file in table.files()})
    with duckdb.connect() as opened:
        rows = opened.execute("SELECT id FROM read_parquet($files, union_by_name = true)", {"files": files})
        return Counter(row[0] for row in rows.fetchall())


@pytest.mark.parametrize("rounds", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_what_was_acknowledged_before_is_there_once_after_the_log_is_flushed_again(tmp_path: Path, rounds: int):
    home, stop = tmp_path / "home", threading.Event()
    acknowledged: list[str] = []

    def write(number: int) -> None:
        log = a_log(home, seal_seconds=0.02)
        for turn in range(10_000):
            if stop.is_set():
                break
            events = [a_label(f"p{number}-{turn}-{each}") for each in range(3)]
            log.append_durably(events).result(60)
            acknowledged.extend(event.id for event in events)
        log.close()

    flusher = Flusher(home / "wal", a_lake(home))
    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    threads.append(threading.Thread(target=flusher.run, args=(stop,), kwargs={"every": 0.01}))
    for thread in threads:
        thread.start()
    try:
        for turn in range(rounds):
            time.sleep(0.1)
            before = list(acknowledged)
            pieces = pin_log(home / "wal", tmp_path / f"keep-{turn}")
            tables = pin_lake(home / "lake")
            time.sleep(0.05)  # the world goes on before anything is copied
            for table, version in tables.items():
                pieces += pieces_of_table(home / "lake", table, version)
            other = tmp_path / f"other-{turn}"
            laid_down(pieces, other)
            restored = a_lake(other)
            Flusher(other / "wal", restored).flush_once()
            found = ids_in(restored)
            assert set(before) <= found.keys()
            assert set(found.values()) == {1}
            assert not any((other / "wal").glob("*/*.sealed"))
            restored.close()
            shutil.rmtree(other)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(acknowledged) > 100


def test_a_segment_is_as_long_as_it_was(tmp_path: Path):
    log = a_log(tmp_path, seal_seconds=60)
    log.append_durably([a_label("one")]).result(60)
    (piece,) = pin_log(tmp_path / "wal", tmp_path / "keep")
    log.append_durably([a_label("two")]).result(60)
    laid_down([piece], tmp_path / "other")
    log.close()
    lake = a_lake(tmp_path / "other")
    assert Flusher(tmp_path / "other" / "wal", lake).flush_once() == 1
    assert not (tmp_path / "other" / "wal" / log.writer).exists()  # its writer does not live there


def test_a_table_with_a_checkpoint_needs_no_older_commits(tmp_path: Path):
    lake = a_lake(tmp_path)
    for number in range(4):
        commit(lake, a_label(f"p{number}"))
    table = lake.table("flights", "feedback")
    table.refresh()
    table._table.create_checkpoint()  # type: ignore[union-attr]
    commit(lake, a_label("last"))
    pinned = pin_lake(tmp_path / "lake")
    commit(lake, a_label("later"))
    pieces = list(pieces_of_table(tmp_path / "lake", "flights/feedback", pinned["flights/feedback"]))
    needed = [piece for piece in pieces if piece.needed]
    assert len(needed) < len(pieces)
    laid_down(needed, tmp_path / "other")
    assert set(ids_in(a_lake(tmp_path / "other"))) == {a_label(name).id for name in ("p0", "p1", "p2", "p3", "last")}


def test_a_version_that_is_gone_is_said_to_be(tmp_path: Path):
    lake = a_lake(tmp_path)
    commit(lake, a_label())
    with pytest.raises(BackupIncomplete, match="version 99 cannot be read"):
        list(pieces_of_table(tmp_path / "lake", "flights/feedback", 99))
