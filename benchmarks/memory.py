"""How much memory do gateway workers need, and does it grow?

    python -m benchmarks.memory [--requests 100000] [--workers 1 2 4] [--rounds 100]

Proportional set size (PSS: pages that processes share are divided among them), from /proc/PID/smaps_rollup, of the
whole tree, part by part: idle without a model, and with trees, a pipeline, or both served. `--requests` says how many
are then asked for while the tree is measured ten times. `--rounds` makes the trees more; `loading` is the most that one
process needs to load the largest artifact, against the size of its file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import psutil

from benchmarks.installation import gateway, installation
from benchmarks.load import Server, ask

LOADING = """
import resource, sys
from pathlib import Path
from leaven.learners.artifact import load_artifact
from leaven.registry.artifacts import ArtifactStore
import leaven.learners.xgboost, leaven.learners.direct.xgboost
def kept(field):
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
def most():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
store, digest = ArtifactStore(Path(sys.argv[1])), sys.argv[2]
before = kept("Rss")
model = load_artifact(store.get(digest))
print(kept("Rss") - before, most() - before)
"""


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=100_000)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--rounds", type=int, default=100, help="trees of the larger model")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, object] = {"idle_mb": idle(Path(folder))}
    serving: dict[str, object] = {}
    for routed in (("trees",), ("pipeline",), ("trees", "pipeline")):
        with (
            tempfile.TemporaryDirectory() as folder,
            installation(Path(folder), canary=0.0, rounds=given.rounds, routed=routed) as made,
        ):
            found["loading_mb"] = loading(made.home)
            for workers in given.workers:
                with gateway(made, routed[0], workers=workers) as server:
                    settle(server, workers)
                    serving[f"{' and '.join(routed)}, {workers} workers"] = tree(server.pid)
            if routed == ("trees",):
                with gateway(made, "trees") as server:
                    found["while_serving_mb"] = under_load(server, given.requests)
    found["serving_mb"] = serving
    print(json.dumps(found, indent=2))


def idle(home: Path) -> dict[str, float]:
    """A gateway of one worker that has been told of no model."""
    subprocess.run([sys.executable, "-m", "leaven", "status", "--home", str(home)], capture_output=True, check=False)
    command = [sys.executable, "-m", "leaven", "gateway", "--port", "0", "--json", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        answers(f"{url}/v2/health/live")
        time.sleep(2)
        return tree(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def loading(home: Path) -> dict[str, float]:
    """What one process needs for the largest artifact: kept afterwards, and at most."""
    largest = max(home.glob("artifacts/*/*.zip"), key=lambda path: path.stat().st_size)
    arguments = [sys.executable, "-c", LOADING, str(home / "artifacts"), largest.stem]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    return {
        "file": round(largest.stat().st_size / 2**20, 1),
        "kept": round(float(said[0]), 1),
        "most": round(float(said[1]), 1),
    }


def settle(server: Server, workers: int) -> None:
    """Let every worker load the models and answer: they share the socket, so ask more often than there are workers."""
    asyncio.run(ask(server, 5.0, 16 * workers, most=2000 * workers))
    time.sleep(2)


def under_load(server: Server, requests: int) -> list[float]:
    """The tree's size, ten times in the course of so many requests."""
    settle(server, 1)
    sizes = []
    for done in range(10):
        asyncio.run(ask(server, 3600.0, 32, most=requests / 10))
        sizes.append(tree(server.pid)["together"])
        print(f"{requests * (done + 1) // 10} requests: {sizes[-1]} MB", file=sys.stderr, flush=True)
    return sizes


def tree(pid: int) -> dict[str, float]:
    """PSS in MB of a process and its children, and all together."""
    first = psutil.Process(pid)
    sizes = {"supervisor": pss(pid)}
    for number, child in enumerate(first.children(recursive=True)):
        sizes[f"process {number}"] = pss(child.pid)
    return {name: round(size, 1) for name, size in {**sizes, "together": sum(sizes.values())}.items()}


def pss(pid: int) -> float:
    """Proportional set size of a process in MB."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def answers(url: str) -> None:
    """Wait until something answers."""
    for _ in range(300):
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


if __name__ == "__main__":
    main()
