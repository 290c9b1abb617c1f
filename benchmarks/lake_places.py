"""How long do a commit and a question take, with the lake in a folder and in a bucket of moto's server on this machine?

Run: python benchmarks/lake_places.py
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from leaven.storage.lake import Lake
from tests.servers.s3 import s3
from tests.storage.builders import a_label, a_prediction, commit, examples, minutes

COMMITS, ROWS = 40, 1_000


def measure(where: str, location: str, scratch: Path) -> None:
    lake = Lake(location, scratch=scratch)
    took = []
    for turn in range(COMMITS):
        ids = [f"{turn}-{i}" for i in range(ROWS)]
        rows = [a_prediction(id, unit=id, at=minutes(turn / 10)) for id in ids]
        labels = [a_label(id, id=id, at=minutes(turn / 10)) for id in ids]
        began = time.perf_counter()
        commit(lake, *rows, *labels)
        took.append(time.perf_counter() - began)
    told = [f"{where}: two commits of {ROWS} rows {1000 * statistics.median(took):.0f} ms"]
    for what in ("first question", "the same again"):
        began = time.perf_counter()
        assert len(examples(lake)) == COMMITS * ROWS
        told.append(f"{what} {1000 * (time.perf_counter() - began):.0f} ms")
    again = []
    for _ in range(7):
        began = time.perf_counter()
        examples(lake)
        again.append(time.perf_counter() - began)
    told.append(f"median of 7 more {1000 * statistics.median(again):.0f} ms")
    print(", ".join(told))
    lake.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, s3() as server:
        os.environ.update(server.environment)
        for turn in range(2):
            measure("folder", f"{folder}/lake-{turn}", Path(folder) / f"scratch-{turn}")
            measure("bucket", f"{server.bucket()}/lake", Path(folder) / f"copies-{turn}")


if __name__ == "__main__":
    main()
