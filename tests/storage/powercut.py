"""What may be left of a folder when the power goes? A disk that keeps what was synced, and of the rest what it likes.

Processes run with `sitecustomize` of `synced/` on their path, which appends a line to a journal for every fsync and
fdatasync that has returned: of a file, how long it was; of a folder, which entries it had. The first sync of a file
also links it into the journal's folder, so that its bytes outlive its removal. `cut` then builds, from the journal and
from what lies there when the processes have been killed, a folder as a power cut might leave it:

- a folder has the entries of its last sync, or those of now, or the former and some of the new;
- a file has the bytes of its last sync; of what was written after it, nothing, a part, zeros, or all; a file that was
  never synced may also be empty.

That is harsher than ext4, which keeps the order of changes to folders. A rename is never half done.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from random import Random

SHIM = Path(__file__).parent / "synced"


def recorded(environment: dict[str, str], journal: Path) -> dict[str, str]:
    """The environment of a process whose syncs are to be noted in `journal`."""
    path = os.pathsep.join(filter(None, (str(SHIM), environment.get("PYTHONPATH"))))
    return environment | {"PYTHONPATH": path, "SYNCS_JOURNAL": str(journal)}


def begin(folder: Path, journal: Path) -> None:
    """All that lies in `folder` now is on the disk."""
    journal.mkdir()
    with (journal / "0.syncs").open("w") as noted:
        for path in (folder, *folder.rglob("*")):
            about = path.stat()
            said = {entry.name: entry.inode() for entry in os.scandir(path)} if path.is_dir() else about.st_size
            noted.write(json.dumps([0, about.st_ino, path.name, said]) + "\n")
            if path.is_file():
                os.link(path, journal / str(about.st_ino))


def cut(folder: Path, journal: Path, into: Path, *, chance: Random) -> Counter[str]:
    """Build in `into` what a power cut might leave of `folder`; return how often it did what."""
    files, folders = _synced(journal)
    done: Counter[str] = Counter()

    def rebuild(now: Path | None, inode: int, at: Path) -> None:
        at.mkdir(parents=True)
        current = {entry.name: entry.inode() for entry in os.scandir(now)} if now is not None else {}
        synced = folders.get(inode, (at.name, {}))
        known = synced[1] if synced[0].lstrip(".") == at.name.lstrip(".") or at == into else {}
        for name, child in _entries(known, current, chance, done).items():
            path = now / name if now is not None and current.get(name) == child else _by_inode(now, current, child)
            if path.is_dir() if path is not None else not (journal / str(child)).exists() and child in folders:
                rebuild(path, child, at / name)
            else:
                content = _content(path, child, journal)
                if content is not None:
                    (at / name).write_bytes(_survives(content, files.get(child), chance, done))

    # A number of a folder that is gone may be that of a new one; a new name then says so.
    rebuild(folder, folder.stat().st_ino, into)
    return done


def _synced(journal: Path) -> tuple[dict[int, int], dict[int, tuple[str, dict[str, int]]]]:
    """Of each file the length, of each folder the name and the entries, at the last sync."""
    files: dict[int, int] = {}
    folders: dict[int, tuple[str, dict[str, int]]] = {}
    lines = [line for path in journal.glob("*.syncs") for line in path.read_text().splitlines(keepends=True)]
    noted = [json.loads(line) for line in lines if line.endswith("\n")]
    for _, inode, name, said in sorted(noted, key=lambda each: each[0]):
        if isinstance(said, dict):
            folders[inode] = (name, said)
        else:
            files[inode] = said
    return files, folders


def _entries(synced: dict[str, int], now: dict[str, int], chance: Random, done: Counter[str]) -> dict[str, int]:
    """The entries that a folder has after the cut: never two names of one file, never neither of them."""
    if synced == now or chance.random() < 0.3:
        return now
    done["entries lost"] += len(set(now.values()) - set(synced.values()))
    done["entries back"] += len(set(synced.values()) - set(now.values()))
    kept = dict(synced)
    for name, inode in now.items():
        if inode not in synced.values() and chance.random() < 0.5:
            kept[name] = inode
    return kept


def _by_inode(now: Path | None, current: dict[str, int], inode: int) -> Path | None:
    return next((now / name for name, found in current.items() if found == inode), None) if now is not None else None


def _content(path: Path | None, inode: int, journal: Path) -> bytes | None:
    kept = journal / str(inode)
    for source in (path, kept):
        if source is not None and source.exists():
            return source.read_bytes()
    return None


def _survives(content: bytes, synced: int | None, chance: Random, done: Counter[str]) -> bytes:
    """Bytes of a file after the cut."""
    safe = min(synced or 0, len(content))
    if safe == len(content) and synced is not None:
        done["kept"] += 1
        return content
    how = chance.choice(["emptied", "torn", "zeros", "kept"])
    done[how] += 1
    if how == "kept":
        return content
    if how == "emptied":
        return content[:safe]
    torn = chance.randint(safe, len(content))
    return content[:torn] if how == "torn" else content[:torn] + bytes(len(content) - torn)
