"""How is an installation copied while it runs, so that what is restored hangs together?

In this order, each part seen no earlier than what refers to it:

1. results of refreshes' steps (`workflows.db`): a step that is in the control database and not in these is taken again,
   which does no harm; the other way round, a result would name a version that nobody registered;
2. for a moment, nobody may write to the control database, and under that lock one sets: the control database as of now;
   the log; the lake. So no event names a version that the registry lacks, and no snapshot names rows that the lake
   lacks;
3. then, at leisure, the files: the lake's pinned versions, and the artifacts, which are there before they are named.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from leaven import __version__
from leaven.backup import archive, rows
from leaven.backup.errors import BackupIncomplete, TargetTaken
from leaven.backup.pins import Piece, pieces_of_artifacts, pieces_of_table, pin_lake, pin_log
from leaven.errors import BadDefinition
from leaven.settings import Settings
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import versions
from leaven.storage.place import folder_of

FORMAT = 1

Progress = Callable[[str, float], None]  # what is being done, and which share of all is done


class Header(msgspec.Struct, frozen=True):
    """The first member: what this backup is of."""

    format: int
    leaven: str  # version that wrote it
    at: int  # the moment, micros of the machine's clock
    revision: str  # of the control database's tables
    rows: dict[str, int]  # of the control database, by table
    tables: dict[str, int]  # Delta version of each table of the lake
    segments: int
    files: int
    bytes: int  # unpacked
    left_out: tuple[str, ...]  # what belongs to the installation and is not in it
    elsewhere: dict[str, str] = {}  # of lake and artifacts those that are in no folder, and so not in it: where


class Report(msgspec.Struct, frozen=True):
    """What was backed up."""

    backup: str
    header: Header
    packed_bytes: int
    locked_seconds: float  # that nobody else could write to the control database
    missing: tuple[str, ...]  # artifacts that versions name and that were not there


@dataclass
class _Collected:
    """What is to be copied."""

    pieces: list[Piece] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    revision: str = ""
    artifacts: set[str] = field(default_factory=set)  # that versions name
    locked_seconds: float = 0.0


def back_up(settings: Settings, place: Path, *, at: int, progress: Progress = lambda what, share: None) -> Report:
    """Copy the installation of `settings` to `place`, whether or not it runs.

    Args:
        settings: Where the installation keeps its things.
        place: A file that ends in .tar.gz, .tar.zst or .tar, or a folder; nothing may be there.
        at: The present moment, micros.
        progress: Told how far it is.
    Raises:
        TargetTaken: something is at `place` already.
        BadDefinition: there is no such folder, or `place` is inside of what is to be copied.
        DatabaseUnavailable: the control database cannot be read, or was never made.
        BackupIncomplete: a file could not be copied; nothing is at `place`.
    """
    _check(settings, place)
    keep = settings.run / f"backup-{os.getpid()}-{secrets.token_hex(4)}"
    keep.mkdir(mode=0o700, parents=True)
    try:
        progress("reading the control database", 0.0)
        found = _collect(settings, keep)
        header = Header(
            FORMAT, __version__, at, found.revision, found.rows, found.tables,
            sum(piece.name.endswith((".open", ".sealed")) for piece in found.pieces),
            len(found.pieces), sum(piece.size for piece in found.pieces), tuple(found.left_out),
            found.elsewhere,
        )  # fmt: skip
        with archive.writing(place, at=at // 1_000_000) as target:
            copied = _copy(found.pieces, header, target, progress)
    finally:
        shutil.rmtree(keep, ignore_errors=True)
    named = set() if "artifacts" in found.elsewhere else found.artifacts
    missing = sorted(digest for digest in named if f"artifacts/{digest[:2]}/{digest}.zip" not in copied)
    return Report(str(place), header, _bytes_at(place), found.locked_seconds, tuple(missing))


def _check(settings: Settings, place: Path) -> None:
    if place.exists():
        raise TargetTaken(str(place), "Name a file or folder that is not there yet.")
    if not place.parent.is_dir():
        raise BadDefinition(str(place), f"there is no folder {place.parent}", "Make it first.")
    folders = (settings.wal, folder_of(settings.lake), folder_of(settings.artifacts), settings.run)
    inside = [folder for folder in folders if folder is not None and place.absolute().is_relative_to(folder)]
    if inside:
        raise BadDefinition(str(place), f"it is in {inside[0]}, which is copied", "Keep backups elsewhere.")


def _collect(settings: Settings, keep: Path) -> _Collected:
    found = _Collected()
    database = ControlDatabase(settings.database)
    try:
        database.check()
        _keep_steps(settings, keep, found)
        with ExitStack() as reading:
            with database.write():
                began = time.perf_counter()
                connection = reading.enter_context(database.read())
                found.artifacts = _artifacts_named(connection)  # the first question fixes what this connection sees
                found.pieces += pin_log(settings.wal, keep)
                lake = folder_of(settings.lake)
                found.tables = {} if lake is None else pin_lake(lake)
                found.locked_seconds = time.perf_counter() - began
            (keep / "control").mkdir()
            found.revision, found.rows = rows.write_rows(connection, keep / "control")
    finally:
        database.dispose()
    for path in sorted((keep / "control").iterdir()):
        found.pieces.append(Piece(f"control/{path.name}", path, path.stat().st_size))
    _name_files(settings, found)
    return found


def _name_files(settings: Settings, found: _Collected) -> None:
    for what, location in (("lake", settings.lake), ("artifacts", settings.artifacts)):
        if folder_of(location) is None:
            found.elsewhere[what] = location
            found.left_out.append(f"the {what} at {location}, which is no folder: let the bucket keep its versions")
    for table, version in found.tables.items():
        found.pieces += pieces_of_table(Path(settings.lake), table, version)
    if "artifacts" not in found.elsewhere:
        found.pieces += pieces_of_artifacts(Path(settings.artifacts))
    clock = Path(settings.clock.removeprefix("file:")).absolute()
    if settings.clock.startswith("file:") and clock.is_relative_to(settings.home) and clock.is_file():
        name = clock.relative_to(settings.home).as_posix()
        found.pieces.append(Piece(f"home/{name}", clock, clock.stat().st_size))


def _keep_steps(settings: Settings, keep: Path, found: _Collected) -> None:
    """Copy the durable engine's file by SQLite's own online backup."""
    file = settings.home / "workflows.db"
    if not settings.database.startswith("sqlite"):
        found.left_out.append("results of the steps of a refresh that runs, which are in PostgreSQL: it begins again")
    elif file.exists():
        kept = keep / file.name
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ours, closing(sqlite3.connect(kept)) as copy:
            ours.backup(copy)
        found.pieces.append(Piece(file.name, kept, kept.stat().st_size))


def _artifacts_named(connection: Connection) -> set[str]:
    return set(connection.execute(select(versions.c.artifact).distinct()).scalars())


def _copy(pieces: list[Piece], header: Header, target: archive.Target, progress: Progress) -> set[str]:
    """Write all members; return the names of those that were there."""
    digests: dict[str, tuple[int, str]] = {}

    def write(name: str, content: bytes) -> None:
        digests[name] = (len(content), target.add(name, len(content), BytesIO(content)))

    write(archive.FIRST, msgspec.json.format(msgspec.json.encode(header)))
    done = 0
    for piece in pieces:
        progress(f"copying {piece.name.split('/')[0]}", done / max(header.bytes, 1))
        for opened in _opened(piece):
            try:
                digests[piece.name] = (piece.size, target.add(piece.name, piece.size, opened))
            except OSError as error:
                raise BackupIncomplete(piece.name, str(error)) from error
        done += piece.size
    progress("finishing", 1.0)
    content = msgspec.json.encode(archive.Digests(dict(digests)))
    target.add(archive.LAST, len(content), BytesIO(content))
    return set(digests)


def _opened(piece: Piece) -> Iterator[Any]:
    """The file, once; not at all where it is gone and need not be there."""
    try:
        with piece.path.open("rb") as content:
            yield content
    except FileNotFoundError as error:
        if piece.needed:
            raise BackupIncomplete(piece.name, "it was removed meanwhile, by a vacuum or by hand") from error


def _bytes_at(place: Path) -> int:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
