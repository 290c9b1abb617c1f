"""Can every table of the lake be read, and is it in shape?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from leaven.doctor.finding import Examined, Subject
from leaven.doctor.leases import with_lease
from leaven.storage.lake import Lake
from leaven.storage.repair import damaged, repair

_MANY, _SMALL = 200, 2**20  # files of a table, and their size in the mean, from which on reading suffers


def check_lake(subject: Subject) -> Examined:
    """Look at each table: its log, its files, how many these are."""
    settings, found = subject.settings, Examined()
    if "://" in settings.lake:
        return Examined(f"{settings.lake}, which is no folder: its files were not looked at")
    lake, rows, files = Lake(settings.lake), 0, 0
    for table in lake.tables():
        torn = damaged(table.path)
        if torn:
            found.problem(
                f"its log ends in what cannot be read: {', '.join(f'{path.name} ({why})' for path, why in torn)}",
                where=table.path,
                mend="A flusher repairs it when it starts; what was in it is in the write-ahead log.",
                act=_repairing(subject, table.path),
            )
            continue
        table.refresh()
        live = table.files()
        gone = [file.path for file in live if _length(Path(file.path)) != file.bytes]
        if gone:
            found.problem(
                f"{len(gone)} of its {len(live)} files are missing or not whole, such as {gone[0]}",
                where=table.path,
                mend="Restore them, or the lake, from a backup.",
            )
        rows, files = rows + sum(file.rows for file in live), files + len(live)
        size = sum(file.bytes for file in live)
        if len(live) > _MANY and size / len(live) < _SMALL:
            found.note(
                f"{len(live):,} files of {size / len(live) / 2**10:,.0f} KiB in the mean: reading is slow",
                where=table.path,
                mend="The flusher rewrites them as few, every 50 commits; see that it runs.",
            )
        if subject.deep and not gone:
            _read_all(subject, [file.path for file in live], table.path, found)
    lake.close()
    found.summary = f"{rows:,} rows in {files:,} files of {len(lake.tables())} tables"
    return found


def _read_all(subject: Subject, files: list[str], table: Path, found: Examined) -> None:
    """Read every byte of every file, not only how long it is."""
    import duckdb

    # Not the lake's own connection: that one makes a folder to spill into.
    with duckdb.connect(":memory:", config={"memory_limit": subject.settings.query_memory}) as connection:
        for file in files:
            try:
                connection.execute("SELECT count(COLUMNS(*)) FROM read_parquet(?)", [file]).fetchall()
            except duckdb.Error as error:
                why = str(error).splitlines()[0]
                found.problem(f"{file} cannot be read: {why}", where=table, mend="Restore it from a backup.")


def _repairing(subject: Subject, table: Path) -> Callable[[], str]:
    return lambda: with_lease(subject, "flusher", lambda: f"removed {', '.join(repair(table))}")


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
