"""A writer with eight clients and a flusher, as processes to be killed, and what must hold of what they leave."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from leaven.storage.flusher import Flusher
from leaven.storage.writers import QUARANTINE

from .builders import ENVIRONMENT, a_lake, ids

CLIENTS = 8
WRITER = """
import sys, threading, time
from pathlib import Path
from storage.builders import a_label, a_prediction
from leaven.clock import SystemClock
from leaven.events.log import LogUnavailable
from leaven.storage.wal import WriteAheadLog

disk, told, name, durability = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
log = WriteAheadLog(disk / "wal", clock=SystemClock(), seal_seconds=0.05, durability=durability)
acknowledged = (told / f"acknowledged-{name}").open("ab", buffering=0)

def serve(client):
    i = 0
    while True:
        id = f"{name}-{client}-{i}"
        log.append(a_prediction(id, unit=id))
        try:
            log.append_durably([a_label(id, float(i), id=id)]).result(120)
        except LogUnavailable:
            time.sleep(0.01)
        else:
            acknowledged.write(f"{id}\\n".encode())  # one call: whole or not at all, and kept though we are killed
        i += 1

for client in range(8):
    threading.Thread(target=serve, args=(client,), daemon=True).start()
threading.Event().wait()
"""
FLUSHER = """
import sys, threading
from pathlib import Path
from leaven.storage import delta, flusher
from leaven.storage.lake import Lake

delta.CHECKPOINT_EVERY, flusher.COMPACT_EVERY = 7, 5  # so that kills meet checkpoints and compactions too
disk = Path(sys.argv[1])
flushing = flusher.Flusher(disk / "wal", Lake(str(disk / "lake")))
flushing.run(threading.Event(), every=0.01)
"""


class Processes:
    """Processes of the scripts above, on one disk; what they acknowledged is written down elsewhere."""

    def __init__(self, disk: Path, told: Path, *, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self.disk, self.told, self._environment = disk, told, dict(environment)
        self._running: list[subprocess.Popen[bytes]] = []

    def write(self, name: str, *, durability: str = "fsync") -> subprocess.Popen[bytes]:
        return self._start(WRITER, self.told, name, durability)

    def flush(self) -> subprocess.Popen[bytes]:
        return self._start(FLUSHER)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        assert process.poll() is None, (self.told / "stderr").read_text()[-2000:]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def acknowledged(self) -> list[str]:
        """Ids of the feedback that was acknowledged so far."""
        return [line for path in self.told.glob("acknowledged-*") for line in path.read_text().split("\n")[:-1]]

    def _start(self, script: str, *arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", script, str(self.disk), *map(str, arguments)]
        with (self.told / "stderr").open("ab") as errors:
            self._running.append(subprocess.Popen(command, env=self._environment, stderr=errors))
        return self._running[-1]


@contextmanager
def processes(disk: Path, told: Path, *, environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[Processes]:
    """What still runs in the end is killed."""
    told.mkdir(exist_ok=True)
    running = Processes(disk, told, environment=environment)
    try:
        yield running
    finally:
        running.kill_all()


def check(disk: Path, acknowledged: list[str], *, kills: int, torn: bool = False) -> dict[str, int]:
    """Flush what is left and compare: each acknowledged event once, rows numbered without gaps.

    `torn`: a power cut may have left frames whose bytes are no longer those that were written; they were never
    acknowledged, and end in quarantine.
    """
    lake = a_lake(disk)
    Flusher(disk / "wal", lake).flush_once()
    assert torn or not (disk / "wal" / QUARANTINE).exists()
    assert len(acknowledged) > 50
    found = {}
    for name in ("feedback", "predictions"):
        rows = lake.tail("flights", 10**7, table=name)
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        counted = Counter(ids(rows))
        assert max(counted.values(), default=1) == 1
        found[name] = len(rows)
        if name == "feedback":
            lost = set(acknowledged) - set(counted)
            assert not lost, f"{len(lost)} of {len(acknowledged)} were acknowledged and are lost: {sorted(lost)[:5]}"
            assert len(counted) <= len(acknowledged) + CLIENTS * kills  # at most those in flight
    lake.close()
    return found
