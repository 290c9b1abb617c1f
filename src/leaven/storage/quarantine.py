"""What was found in segments and is no event, and how is a unit taken out of that?"""

from __future__ import annotations

import logging
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path

import msgspec

from leaven.storage.frames import Reject
from leaven.storage.place import Folder, sync_path
from leaven.storage.writers import QUARANTINE, StoredSegment

_log = logging.getLogger(__name__)


def put_aside(wal: Path, segment: StoredSegment, rejects: Sequence[Reject]) -> None:
    """Write down what was found in a segment and is no event, before the segment goes."""
    folder = Folder(wal / QUARANTINE)
    lines = [
        {"offset": reject.offset, "reason": reject.reason, "content": b64encode(reject.content).decode()}
        for reject in rejects
    ]
    name = f"{segment.writer}-{segment.number:010d}.jsonl"
    _write(folder, name, [msgspec.json.encode(line) for line in lines])
    _log.error("%d pieces of %s are no events; they are in %s", len(rejects), segment.path, folder.path / name)


def take_out(wal: Path, units: Sequence[str]) -> int:
    """Remove what speaks of these units from what was put aside; return how many pieces that were."""
    written = [msgspec.msgpack.encode(unit) for unit in units]  # with its length: "1" is not found in "21"
    gone = 0
    folder = Folder(wal / QUARANTINE)
    for path in sorted(folder.path.glob("*.jsonl")):
        lines = path.read_bytes().splitlines()
        kept = [line for line in lines if not any(each in _content(line) for each in written)]
        gone += len(lines) - len(kept)
        if not kept and lines:
            folder.remove(path.name)
            sync_path(folder.path)
        elif len(kept) < len(lines):
            _write(folder, path.name, kept)
    return gone


def _content(line: bytes) -> bytes:
    return b64decode(msgspec.json.decode(line)["content"])


def _write(folder: Folder, name: str, lines: Sequence[bytes]) -> None:
    folder.write(name, b"".join(line + b"\n" for line in lines))
