"""How does a backup become an installation again?

Everything is unpacked and compared with its digest beside the new home first, and the control database filled there;
then the new home gets its name. What goes wrong before leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, select, update

from leaven.backup import archive, rows
from leaven.backup.archive import FIRST, LAST, LONGEST_HEAD, Digests
from leaven.backup.errors import BackupDamaged, NoBackup, TargetTaken
from leaven.backup.make import FORMAT, Header, Progress
from leaven.errors import BadDefinition
from leaven.settings import Settings
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.migrate import REVISIONS, DatabaseNewer
from leaven.storage.control.schema import loops
from leaven.storage.place import folder_of

T = TypeVar("T")

_ROOTS = ("control", "workflows.db", "wal", "lake", "artifacts", "home")
_ALWAYS_THERE = ("lost+found",)  # in the root of a file system


class Restored(msgspec.Struct, frozen=True):
    """What was restored, and what is different from before."""

    home: str
    database: str
    lake: str
    header: Header
    loop_files: dict[str, str]  # of loops whose file is not here: where its text was written to


def restore(place: Path, settings: Settings, *, progress: Progress = lambda what, share: None) -> Restored:
    """Make the installation of `settings` of the backup at `place`.

    Args:
        place: What `back_up` wrote.
        settings: Where the new installation keeps its things; nothing may be there yet.
        progress: Told how far it is.
    Raises:
        TargetTaken: the home, the database, or lake or artifacts outside of the home, is not empty.
        NoBackup: it is none, or a newer Leaven wrote it.
        DatabaseNewer: its control database is newer than this Leaven.
        BackupDamaged: it is not what was written.
        BadDefinition: there is no room for it, or what the backup holds is to go where no folder is.
    """
    home = settings.home
    for folder in (home, *_folders_outside(settings).values()):
        if folder.exists() and (not folder.is_dir() or set(os.listdir(folder)) - {*_ALWAYS_THERE}):
            raise TargetTaken(str(folder), "Name a new folder, or move this one away.")
    with _staging(home) as stage:
        header = _unpack(place, stage, settings, progress)
        progress("filling the control database", 0.95)
        database, loop_files = _install(stage, settings, header)
    return Restored(str(home), database, settings.lake, header, loop_files)


@contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """A folder beside the new home, or in it where it is a file system of its own; gone in the end."""
    home.parent.mkdir(parents=True, exist_ok=True)
    inside = home.is_mount()
    stage = (home / ".restoring") if inside else home.with_name(f".{home.name}.{os.getpid()}.part")
    stage.mkdir()
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _unpack(place: Path, stage: Path, settings: Settings, progress: Progress) -> Header:
    """Write every member below `stage`, once all of them are known to be what was written."""
    header: Header | None = None
    said: Digests | None = None
    found: dict[str, tuple[int, str]] = {}
    with archive.members(place) as members:
        for name, size, content in members:
            if said is not None:
                raise BackupDamaged(str(place), f"{archive.check_name(place, name)} stands behind its end")
            reading = archive.Reading(content)
            if header is None:
                header = _header(place, name, _head(place, size, reading))
                _check_settings(settings, header)
                _check_room(stage, header)
            elif name == LAST:
                said = _decoded(place, _head(place, size, reading), Digests)
                continue
            else:
                progress("unpacking", 0.9 * sum(each[0] for each in found.values()) / max(header.bytes, 1))
                _write(place, stage, archive.check_name(place, name), size, reading)
            found[name] = (size, reading.digest)
    if header is None or said is None:
        raise BackupDamaged(str(place), "its end is missing")
    _compare(place, found, said.files)
    os.sync()
    return header


def _head(place: Path, size: int, reading: archive.Reading) -> bytes:
    if size > LONGEST_HEAD:
        raise BackupDamaged(str(place), "its first or last part is longer than it can be")
    return reading.read(size)


def _header(place: Path, name: str, content: bytes) -> Header:
    known = _decoded(place, content, _Format) if name == FIRST else None
    if known is None:
        raise NoBackup(str(place), f"it begins with {name!r}, not with {FIRST}", "Name one that leaven backup wrote.")
    if known.format > FORMAT:
        mend = f"Install Leaven {known.leaven} or newer."
        raise NoBackup(str(place), f"a newer Leaven ({known.leaven}) wrote it, in layout {known.format}", mend)
    header = _decoded(place, content, Header)
    if header.revision not in REVISIONS:
        raise DatabaseNewer(header.revision, REVISIONS[-1])
    return header


class _Format(msgspec.Struct):
    format: int
    leaven: str


def _decoded(place: Path, content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackupDamaged(str(place), f"its {kind.__name__.lower()} cannot be read ({error})") from error


def _locations(settings: Settings) -> dict[str, str]:
    return {"lake": settings.lake, "artifacts": settings.artifacts}


def _folders_outside(settings: Settings) -> dict[str, Path]:
    """Of lake and artifacts those that are folders, and not in the home."""
    folders = {what: folder_of(location) for what, location in _locations(settings).items()}
    return {what: folder for what, folder in folders.items()
            if folder is not None and not folder.is_relative_to(settings.home)}  # fmt: skip


def _check_settings(settings: Settings, header: Header) -> None:
    for what, location in _locations(settings).items():
        if folder_of(location) is None and what not in header.elsewhere:
            raise BadDefinition(f"LEAVEN_{what.upper()}", f"the backup holds the {what}, and {location} is no folder",
                                "Unset it, or name an empty folder; copy that into the bucket afterwards.")  # fmt: skip


def _check_room(stage: Path, header: Header) -> None:
    free = shutil.disk_usage(stage).free
    if header.bytes * 1.05 > free:
        raise BadDefinition(str(stage.parent), f"{header.bytes} bytes are to be restored, and {free} are free",
                            "Make room, or choose another disk.")  # fmt: skip


def _write(place: Path, stage: Path, name: str, size: int, reading: archive.Reading) -> None:
    if name.split("/")[0] not in _ROOTS:
        raise BackupDamaged(str(place), f"{name} belongs to no part of an installation")
    path = stage / "new" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        try:
            archive.copied(reading, file, size)
        except OSError as error:
            if error.errno is not None:  # the disk's trouble, not the backup's
                raise
            raise BackupDamaged(str(place), f"{name}: {error}") from error


def _compare(place: Path, found: dict[str, tuple[int, str]], said: dict[str, tuple[int, str]]) -> None:
    missing, strange = sorted(said.keys() - found.keys()), sorted(found.keys() - said.keys())
    changed = sorted(name for name in said.keys() & found.keys() if said[name] != found[name])
    for what, names in (("missing", missing), ("not of this backup", strange), ("not what was written", changed)):
        if names:
            others = f" and {len(names) - 1} others" if len(names) > 1 else ""
            raise BackupDamaged(str(place), f"{names[0]}{others}: {what}")


def _install(stage: Path, settings: Settings, header: Header) -> tuple[str, dict[str, str]]:
    """Fill the control database, and give everything its name."""
    new = stage / "new"
    new.mkdir(exist_ok=True)
    control, own = new / "control", new / "home"
    tables = {path.stem: path for path in control.glob("*.jsonl")}
    if own.is_dir():
        shutil.copytree(own, new, dirs_exist_ok=True)
        shutil.rmtree(own)
    for folder in ("wal", "lake", "artifacts", "run"):
        (new / folder).mkdir(exist_ok=True)
    final = ControlDatabase(settings.database)
    file = final.file
    inside = file is not None and file.is_relative_to(settings.home)
    database = ControlDatabase(f"sqlite:///{new / file.relative_to(settings.home)}") if inside and file else final
    if not inside:
        _see_that_it_is_empty(final)
        (new / "workflows.db").unlink(missing_ok=True)
    try:
        if database.file is not None:
            database.create()
        with database.write() as connection:
            rows.fill(connection, tables, revision=header.revision)
            loop_files = _write_loop_files(connection, new, settings.home)
            shutil.rmtree(control)
            if not inside:
                _move(new, settings)
        database.dispose()
        if inside:
            _move(new, settings)
    finally:
        database.dispose()
        final.dispose()
    return final.url, loop_files


def _see_that_it_is_empty(database: ControlDatabase) -> None:
    if database.file is not None and not database.file.exists():
        return
    if not rows.is_empty(database):
        raise TargetTaken(database.url, "Name an empty database in LEAVEN_DATABASE, or unset it.")


def _write_loop_files(connection: Connection, new: Path, home: Path) -> dict[str, str]:
    """Where a loop's file is not on this machine, its text as registered stands in for it."""
    written: dict[str, str] = {}
    for name, path, source in connection.execute(select(loops.c.name, loops.c.path, loops.c.source)).all():
        if Path(path).exists():
            continue
        (new / "loops").mkdir(exist_ok=True)
        (new / "loops" / f"{name}.py").write_text(source)
        written[name] = str(home / "loops" / f"{name}.py")
        connection.execute(update(loops).where(loops.c.name == name).values(path=written[name]))
    return written


def _move(new: Path, settings: Settings) -> None:
    outside = _folders_outside(settings)
    for what, location in _locations(settings).items():
        folder = folder_of(location)
        if folder is None:
            (new / what).rmdir()  # it is elsewhere, and was
        elif what in outside:
            _rename(new / what, folder)
        elif folder != settings.home / what:
            inside = new / folder.relative_to(settings.home)
            inside.parent.mkdir(parents=True, exist_ok=True)
            (new / what).rename(inside)
    _rename(new, settings.home)


def _rename(source: Path, target: Path) -> None:
    if target.is_mount() or source.stat().st_dev != target.parent.stat().st_dev:
        target.mkdir(parents=True, exist_ok=True)
        for entry in sorted(source.iterdir()):
            shutil.move(str(entry), target / entry.name)
    else:
        source.rename(target)  # onto an empty folder too
    handle = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
