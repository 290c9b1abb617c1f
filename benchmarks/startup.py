"""How long until `leaven --help` answers, or a client can be made, against a bare start of the same Python?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

ROUNDS = 10
COMMANDS = {
    "bare python": [sys.executable, "-c", "pass"],
    "import leaven": [sys.executable, "-c", "import leaven"],
    "import http.client": [sys.executable, "-c", "import http.client"],
    "from leaven import Client": [sys.executable, "-c", "from leaven import Client"],
    "from leaven import AsyncClient": [sys.executable, "-c", "from leaven import AsyncClient"],
    "import asyncio": [sys.executable, "-c", "import asyncio"],
    "leaven --version": [sys.executable, "-m", "leaven", "--version"],
    "leaven --help": [sys.executable, "-m", "leaven", "--help"],
}


@dataclass(frozen=True, order=True)
class Start:
    """What one start took, in seconds."""

    cpu: float
    wall: float


def fastest(command: list[str], rounds: int = ROUNDS) -> Start:
    """Return the start that took the least processor time: what it costs where others leave the machine alone."""
    return min(measured(command) for _ in range(rounds))


def measured(command: list[str]) -> Start:
    """Start `command` once and wait for its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Start(used.ru_utime + used.ru_stime, wall)


if __name__ == "__main__":
    starts = {name: fastest(command) for name, command in COMMANDS.items()}
    bare = starts["bare python"]
    for name, start in starts.items():
        ratio = f"{start.cpu / bare.cpu:5.1f} x bare"
        print(f"{name:31} {start.cpu:6.3f} s CPU  {ratio}  {start.wall:6.3f} s wall", file=sys.stderr)
    print(json.dumps({name: {"cpu_s": round(s.cpu, 4), "wall_s": round(s.wall, 4)} for name, s in starts.items()}))
