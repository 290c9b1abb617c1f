"""Can the home folder hold what is put into it?"""

from __future__ import annotations

import os
import pwd
import stat
from functools import partial
from pathlib import Path

from leaven.doctor.filesystem import Unfit, kind_of, leftovers, probe
from leaven.doctor.finding import Examined, Subject

_FOLDERS = ("wal", "lake", "artifacts", "run")
_MEMORY, _NETWORK = ("tmpfs", "ramfs"), ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")


def check_home(subject: Subject) -> Examined:
    """Look at the folder: there, ours, writable, on a file system that keeps what it confirms."""
    home, found = subject.settings.home, Examined(str(subject.settings.home))
    if not home.is_dir():
        if home.exists():
            found.problem("it is no folder", where=home, mend="Name another home, or move this file away.")
        else:
            found.problem(
                "there is no such folder",
                where=home,
                mend="Run leaven init and leaven up, or name another.",
                act=lambda: _make(home),
            )
        return found
    _check_owner(home, found)
    missing = [home / name for name in _FOLDERS if not (home / name).exists()]
    if missing:
        found.note(
            f"{', '.join(path.name for path in missing)}: not there yet",
            where=home,
            mend="They are made when they are needed.",
            act=lambda: ", ".join(map(_make, missing)),
        )
    for name in _FOLDERS:
        if (home / name).exists() and not os.access(home / name, os.W_OK | os.X_OK):
            found.problem("this user cannot write to it", where=home / name, mend=f"chown -R {_me()} {home}")
    _check_filesystem(home, found)
    return found


def check_disk(subject: Subject) -> Examined:
    """See that there is room, for bytes and for files, and that nothing lies about."""
    found = Examined()
    home = subject.settings.home
    places = {home, Path(subject.settings.lake)} if "://" not in subject.settings.lake else {home}
    for place in sorted(place for place in places if place.is_dir()):
        _check_room(place, found)
    for path in leftovers(subject.settings, now=subject.now / 1e6):
        found.note("a process that is gone left it behind", where=path, mend="Remove it.", act=partial(_removed, path))
    return found


def _check_owner(home: Path, found: Examined) -> None:
    facts = home.stat()
    if facts.st_uid != os.geteuid():
        found.problem(
            f"it belongs to user {_name(facts.st_uid)}, and this is {_me()}",
            where=home,
            mend=f"Run as {_name(facts.st_uid)}, or: chown -R {_me()} {home}",
        )
    if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        found.problem(
            "everybody on this machine may write to it", where=home, mend=f"chmod o-w {home}", act=lambda: _close(home)
        )


def _check_filesystem(home: Path, found: Examined) -> None:
    kind = kind_of(home)
    try:
        seconds = probe(home)
    except Unfit as unfit:
        found.problem(f"its file system ({kind}) cannot be relied on: {unfit}", where=home, mend=unfit.mend)
        return
    found.summary += f", {kind}, a sync takes {seconds * 1e3:.1f} ms"
    if kind in _MEMORY:
        found.note(
            f"it is in memory ({kind}): a restart of the machine loses all of it",
            where=home,
            mend="Name a home on a disk.",
        )
    elif kind in _NETWORK:
        found.note(
            f"it is on a network ({kind}): locks hold among the processes of one machine at most",
            where=home,
            mend="Run every part of this installation on one machine, or name a local home.",
        )
    elif seconds < 20e-6:
        found.note(
            "a sync takes no time: something below confirms what it has not kept",
            where=home,
            mend="See that the disk's cache survives a power cut, or do without that promise.",
        )


def _check_room(place: Path, found: Examined) -> None:
    disk = os.statvfs(place)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    share = free / max(total, 1)
    found.summary += f"{', ' if found.summary else ''}{free / 2**30:,.1f} GiB free ({share:.0%})"
    if free < 512 * 2**20 or share < 0.02:
        found.problem(
            f"only {free / 2**20:,.0f} MiB are free ({share:.1%})",
            where=place,
            mend="Make room: when the disk is full, feedback is refused.",
        )
    elif share < 0.1:
        found.note(f"{free / 2**30:,.1f} GiB are free ({share:.0%})", where=place, mend="Make room before it is full.")
    if disk.f_files and disk.f_favail / disk.f_files < 0.02:
        found.problem(
            f"only {disk.f_favail:,} more files can be made", where=place, mend="Remove files, many small ones."
        )


def _make(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    return f"made {path}"


def _close(path: Path) -> str:
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~stat.S_IWOTH)
    return "took the right to write from everybody else"


def _removed(path: Path) -> str:
    if path.is_dir():
        from shutil import rmtree

        rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return f"removed {path.name}"


def _me() -> str:
    return _name(os.geteuid())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
