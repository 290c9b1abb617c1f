"""What was found in segments and is no event, and how is a unit taken out of that?"""

from __future__ import annotations

import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path

import msgspec

from leaven.storage.frames import Reject
from leaven.storage.writers import QUARANTINE, StoredSegment, sync_folder

_log = logging.getLogger(__name__)


def put_aside(wal: Path, segment: StoredSegment, rejects: Sequence[Reject]) -> None:
    """Write down what was found in a segment and is no event, before the segment goes."""
    folder = wal / QUARANTINE
    folder.mkdir(exist_ok=True)
    lines = [
        {"offset": reject.offset, "reason": reject.reason, "content": b64encode(reject.content).decode()}
        for reject in rejects
    ]
    path = folder / f"{segment.writer}-{segment.number:010d}.jsonl"
    _write(path, [msgspec.json.encode(line) for line in lines])
    _log.error("%d pieces of %s are no events; they are in %s", len(rejects), segment.path, path)


def take_out(wal: Path, units: Sequence[str]) -> int:
    """Remove what speaks of these units from what was put aside; return how many pieces that were."""
    written = [msgspec.msgpack.encode(unit) for unit in units]  # with its length: "1" is not found in "21"
    gone = 0
    for path in sorted((wal / QUARANTINE).glob("*.jsonl")):
        lines = path.read_bytes().splitlines()
        kept = [line for line in lines if not any(each in _content(line) for each in written)]
        gone += len(lines) - len(kept)
        if not kept and lines:
            path.unlink()
            sync_folder(path.parent)
        elif len(kept) < len(lines):
            _write(path, kept)
    return gone


def _content(line: bytes) -> bytes:
    return b64decode(msgspec.json.decode(line)["content"])


def _write(path: Path, lines: Sequence[bytes]) -> None:
    being_written = path.with_suffix(".new")
    with being_written.open("wb") as file:
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    being_written.replace(path)
    sync_folder(path.parent)
