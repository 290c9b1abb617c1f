"""Can every table of the lake be read, and is it in shape?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from leaven.doctor.finding import Examined, Subject
from leaven.doctor.leases import with_lease
from leaven.storage.delta import EventTable, LiveFile
from leaven.storage.lake import Lake
from leaven.storage.place import Place
from leaven.storage.repair import damaged, repair
from leaven.storage.writers import is_logged

_MANY, _SMALL = 200, 2**20  # files of a table, and their size in the mean, from which on reading suffers


def check_lake(subject: Subject) -> Examined:
    """Look at each table: its log, its files, how many these are."""
    settings, found = subject.settings, Examined()
    lake = Lake(settings.lake, memory=settings.query_memory, scratch=settings.run / "lake", cache_mb=settings.cache_mb)
    rows = files = 0
    tables = lake.tables()
    for table in tables:
        torn = damaged(table.place)
        if torn:
            what = ", ".join(f"{name} ({why})" for name, why in torn.items())
            found.problem(
                f"its log ends in what cannot be read: {what}",
                where=table.place.uri,
                mend="A flusher repairs it when it starts; what was in it is in the write-ahead log.",
                act=_repairing(subject, table.place),
            )
            continue
        table.refresh()
        live = table.files()
        _check_files(subject, table, live, found)
        rows, files = rows + sum(file.rows for file in live), files + len(live)
    lake.close()
    found.summary = f"{rows:,} rows in {files:,} files of {len(tables)} tables, {lake.place.uri}"
    return found


def _check_files(subject: Subject, table: EventTable, live: list[LiveFile], found: Examined) -> None:
    where = table.place.uri
    gone = [file.path for file in live if _length(table.place, file.path) != file.bytes]
    if gone:
        found.problem(
            f"{len(gone)} of its {len(live)} files are missing or not whole, such as {gone[0]}",
            where=where,
            mend="Restore them, or the lake, from a backup.",
        )
    size = sum(file.bytes for file in live)
    if len(live) > _MANY and size / len(live) < _SMALL:
        found.note(
            f"{len(live):,} files of {size / len(live) / 2**10:,.0f} KiB in the mean: reading is slow",
            where=where,
            mend="The flusher rewrites them as few, every 50 commits; see that it runs.",
        )
    if subject.deep and not gone:
        _read_all(subject, table.place, live, found)


def _read_all(subject: Subject, table: Place, live: list[LiveFile], found: Examined) -> None:
    """Read every byte of every file, not only how long it is."""
    import duckdb

    # Not the lake's own connection: that one makes a folder to spill into.
    with duckdb.connect(":memory:", config={"memory_limit": subject.settings.query_memory}) as connection:
        for file in live:
            try:
                local = table.local({file.path: file.bytes})
                connection.execute("SELECT count(COLUMNS(*)) FROM read_parquet(?)", [local]).fetchall()
            except duckdb.Error as error:
                why = str(error).splitlines()[0]
                found.problem(f"{file.path} cannot be read: {why}", where=table.uri, mend="Restore it from a backup.")


def _repairing(subject: Subject, table: Place) -> Callable[[], str]:
    logged = partial(is_logged, subject.settings.wal)
    return lambda: with_lease(subject, "flusher", lambda: f"removed {', '.join(repair(table, is_logged=logged))}")


def _length(table: Place, path: str) -> int:
    ends = table.ends(path, 1)
    return -1 if ends is None else ends[0]
