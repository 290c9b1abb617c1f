"""What belongs to one moment of an installation that runs on?

Segments of the log are held by hard links, with the length that they have now; a table of the lake is held by the
number of its newest version, whose files nobody changes. First the log, then the lake: an event that has left the log
meanwhile is in the lake by then, and one that is in both is recognised by the table's transactions when the log is
flushed again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deltalake import DeltaTable

from leaven.backup.errors import BackupIncomplete
from leaven.storage.delta import TableNotReadable
from leaven.storage.writers import OPEN, QUARANTINE, SEALED, stored_writers

_LOG = "_delta_log"


@dataclass(frozen=True, slots=True)
class Piece:
    """A file that belongs to a backup."""

    name: str  # in the backup
    path: Path  # where it is now
    size: int  # bytes, from its beginning on, that belong to the backup
    needed: bool = True  # False where the installation is whole without it, and somebody may remove it meanwhile


def pin_log(wal: Path, keep: Path) -> list[Piece]:
    """Return every segment as long as it is now, each held by a link in the folder `keep`, and what is in quarantine.

    Everything that was acknowledged before this call and is not in the lake when it ends is in them.
    """
    pieces: list[Piece] = []
    for writer in stored_writers(wal):
        # Open before sealed: one that is sealed in between is then found under its new name, or is in the lake.
        for suffix in (OPEN, SEALED):
            for segment in writer.segments(suffix):
                piece = _held(segment.path, keep, f"wal/{writer.id}/{segment.path.name}")
                pieces += [] if piece is None else [piece]
    for path in sorted((wal / QUARANTINE).glob("*.jsonl")):
        piece = _held(path, keep, f"wal/{QUARANTINE}/{path.name}")
        pieces += [] if piece is None else [piece]
    return pieces


def pin_lake(lake: Path) -> dict[str, int]:
    """Return the newest version of each table, by its folder in the lake."""
    newest: dict[str, int] = {}
    for log in sorted(lake.glob(f"*/*/{_LOG}")):
        versions = [int(path.stem) for path in log.glob("*.json") if path.stem.isdigit()]
        if versions and not log.parent.parent.name.startswith("."):
            newest[log.parent.relative_to(lake).as_posix()] = max(versions)
    return newest


def pieces_of_table(lake: Path, table: str, version: int) -> Iterator[Piece]:
    """Yield the files that a reader of this version of a table needs: its data, and its log up to the version.

    Raises:
        BackupIncomplete: the version cannot be read.
        TableNotReadable: the table uses reader features, under which its files are not its content.
    """
    folder = lake / table
    try:
        opened = DeltaTable(folder, version=version)
    except Exception as error:  # whatever deltalake makes of it
        raise BackupIncomplete(f"lake/{table}", f"its version {version} cannot be read: {error}") from error
    protocol = opened.protocol()
    if protocol.min_reader_version > 1 or protocol.reader_features:
        raise TableNotReadable(str(folder), list(protocol.reader_features or ["of column mapping"]))
    actions = opened.get_add_actions(flatten=True)
    sizes = zip(actions.column("path").to_pylist(), actions.column("size_bytes").to_pylist(), strict=True)
    for path, size in sizes:
        yield Piece(f"lake/{table}/{path}", folder / path, size)
    yield from _pieces_of_log(folder / _LOG, f"lake/{table}/{_LOG}", version)


def pieces_of_artifacts(artifacts: Path) -> Iterator[Piece]:
    """Yield every artifact there is: they are written once, under their digest, and never changed."""
    for path in sorted(artifacts.glob("??/*.zip")):
        yield Piece(f"artifacts/{path.parent.name}/{path.name}", path, path.stat().st_size)


def _pieces_of_log(log: Path, name: str, version: int) -> Iterator[Piece]:
    checkpoints = [path for path in log.glob("*.checkpoint*.parquet") if int(path.name[:20]) <= version]
    covered = max((int(path.name[:20]) for path in checkpoints), default=-1)
    for path in sorted(checkpoints):
        if int(path.name[:20]) == covered:
            yield Piece(f"{name}/{path.name}", path, path.stat().st_size)
    for path in sorted(log.glob("*.json")):
        # What the checkpoint covers may be cleaned up while we copy; a reader does without it.
        if path.stem.isdigit() and int(path.stem) <= version:
            try:
                yield Piece(f"{name}/{path.name}", path, path.stat().st_size, needed=int(path.stem) > covered)
            except FileNotFoundError:
                if int(path.stem) > covered:
                    raise


def _held(path: Path, keep: Path, name: str) -> Piece | None:
    """The file, held under another name, with its present length; None where it is gone."""
    held = keep / name
    held.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            os.link(path, held)
        except FileNotFoundError:
            return None
        except OSError:  # a file system without hard links
            shutil.copyfile(path, held)
    except FileNotFoundError:
        return None
    return Piece(name, held, held.stat().st_size)
