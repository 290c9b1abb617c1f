"""A snapshot read again: after appends, compaction and clean-up, and on another machine, it is the same to the byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from hashlib import sha256

import msgspec
import numpy as np
import pytest

from leaven.curation import AllHistory, Recent, Sample
from leaven.curation.snapshot import Snapshot, define_snapshot, read_snapshot, taken
from leaven.values import from_written
from tests.storage.builders import (
    ENVIRONMENT,
    LATE,
    NOON,
    a_label,
    a_lake,
    a_prediction,
    a_source,
    commit,
    content,
    minutes,
)

CARRIERS = ("UA", "AA", "B6")
DATA = [
    Recent("2h") + Sample(AllHistory(), rows=40, by="day"),
    Sample(AllHistory(), rows=40, half_life="1h"),
    Sample(AllHistory(), rows=30, by="feature:carrier", half_life="3h"),
    Recent("30min", before="1h") + Sample("before 2h", rows=20, balance=0.5, probabilities="shifted"),
]
READ_AGAIN = """
import sys
from pathlib import Path
import msgspec
from leaven.curation.snapshot import Snapshot, read_snapshot
from storage.builders import LATE, a_lake, a_source, content
from hashlib import sha256
snapshot = msgspec.json.decode(sys.argv[2], type=Snapshot)
read = read_snapshot(snapshot, a_source(a_lake(Path(sys.argv[1]))), LATE)  # refuses another digest
print(sha256(repr(content(read)).encode()).hexdigest())
"""


def some_hours(lake, first, last, **other):
    """A prediction a minute, each with a label ten minutes later; every fourth flight is late."""
    at = range(first, last)
    events = [
        a_prediction(f"p{i}", at=minutes(i), features={"carrier": CARRIERS[i % 3], "wind": i / 7}, **other) for i in at
    ]
    commit(lake, *events, *(a_label(f"p{i}", 30.0 if i % 4 == 0 else 2.0, at=minutes(i + 10)) for i in at))


def a_snapshot(lake, data):
    source = a_source(lake)
    definition = define_snapshot(
        "flights", data.parts(until=minutes(400), first=NOON), holdout=None, rule=LATE, as_of=minutes(600),
        marks=source.marks(), seed=7,
    )  # fmt: skip
    examples = read_snapshot(definition, source, LATE)
    return taken(definition, examples), examples


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Snapshots as taken, and the lake after everything that may happen to it."""
    home = tmp_path_factory.mktemp("home")
    lake = a_lake(home)
    for hour in range(0, 400, 60):
        some_hours(lake, hour, hour + 60)
    made = [a_snapshot(lake, data) for data in DATA]
    # Rows of the same stretches that came later, late labels, another column, a correction of what is in.
    commit(
        lake, *(a_prediction(f"q{i}", at=minutes(i), features={"carrier": "ZZ", "rain": 1.0}) for i in range(0, 400))
    )
    commit(lake, *(a_label(f"q{i}", 30.0, at=minutes(i + 10), received=minutes(700)) for i in range(0, 400)))
    commit(
        lake, *(a_label(f"p{i}", 99.0, at=minutes(590), received=minutes(590), kind="correction") for i in range(400))
    )
    assert lake.compact("flights") > 0
    assert lake.vacuum("flights", hours=0) > 0
    yield home, lake, made
    lake.close()


def test_after_appends_compaction_and_clean_up_it_reads_the_same(story):
    _, lake, made = story
    for snapshot, examples in made:
        assert snapshot.rows == len(examples) > 15
        again = read_snapshot(snapshot, a_source(lake), LATE)
        assert content(again) == content(examples)
    now, _ = a_snapshot(lake, DATA[0])
    assert now.digest != made[0][0].digest  # what came since would have changed it


def test_on_another_machine_it_reads_the_same(story, tmp_path):
    home, _, made = story
    shutil.copytree(home / "lake", tmp_path / "lake")
    for snapshot, examples in made[-2:]:
        told = msgspec.json.encode(snapshot).decode()
        ran = subprocess.run(
            [sys.executable, "-c", READ_AGAIN, str(tmp_path), told], capture_output=True, text=True, check=False,
            env=ENVIRONMENT, timeout=240,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.strip() == sha256(repr(content(examples)).encode()).hexdigest()


def test_samples_of_a_snapshot_are_what_their_windows_say(story):
    _, _, made = story
    carriers = made[2][1].predictions.features["carrier"].tolist()
    assert [carriers.count(name) for name in CARRIERS] == [10, 10, 10]
    older = made[3][1].predictions.at < (made[3][1].predictions.at.max() - np.timedelta64(40, "m"))
    assert made[3][1].labels.value[older].mean() == 0.5
    mean_age = [float(examples.predictions.at.astype("i8").mean()) for _, examples in made]
    assert mean_age[1] > mean_age[2]  # a shorter half-life, newer rows


def test_a_snapshot_tells_how_it_was_drawn(story):
    snapshot = json.loads(msgspec.json.encode(story[2][3][0]))
    assert snapshot["stretches"][1]["balance"] == 0.5
    assert msgspec.convert(snapshot, Snapshot) == story[2][3][0]
    assert from_written(repr(DATA[1]), {"Sample": Sample, "AllHistory": AllHistory}) == DATA[1]
