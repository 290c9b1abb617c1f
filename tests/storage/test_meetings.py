"""Who met which arm first: the lake's queries against a plain count, row by row."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from leaven.duration import instant
from leaven.events import Label
from leaven.events.columns import column_time
from leaven.events.meetings import Crowd, crowds, newcomers
from leaven.events.source import Span
from tests.storage.builders import a_lake, a_prediction, a_source, commit, minutes

ARMS = {"champion": "1", "canary": "2"}


@st.composite
def stories(draw):
    served = []
    for number in range(draw(st.integers(0, 15))):
        failed = draw(st.integers(0, 3)) == 0
        role = draw(st.sampled_from(["live", "live", "live", "exposure", "shadow"]))
        arm, version = draw(st.sampled_from([*ARMS.items(), *ARMS.items(), ("pinned", "2"), ("canary", "9")]))
        answered = {"answer": None if failed or role == "exposure" else 0.5, "error": "down" if failed else None}
        served.append(
            a_prediction(
                f"p{number}", at=minutes(draw(st.integers(0, 60))), unit=draw(st.sampled_from("abcdé")), role=role,
                arm=arm, version=version, **answered,
            )
        )  # fmt: skip
    return served


def plain(served, span, every):
    """What units have in common, and the newcomers: unit by unit."""
    rows = [each for each in served if each.role != "shadow" and ARMS.get(each.arm) == each.version
            and instant(each.at) in span]  # fmt: skip
    told, came = Counter(), {}
    for unit in {each.unit for each in rows}:
        mine = sorted((each for each in rows if each.unit == unit), key=lambda each: (each.at, each.arm))
        failed = tuple(sorted({each.arm for each in mine if each.error is not None and each.answer is None}))
        crossed = len({each.arm for each in mine}) > 1
        told[(instant(mine[0].at) - span.start) // every, mine[-1].arm, crossed, failed] += 1
        if not crossed:
            came[unit] = (mine[0].arm, instant(mine[0].at))
    return tuple(sorted(Crowd(*facts, units) for facts, units in told.items())), came


@settings(max_examples=12)
@given(stories(), st.integers(0, 30), st.integers(1, 60), st.integers(0, 60), st.integers(1, 20))
def test_lake_and_columns_count_meetings_as_one_does_by_hand(served, start, length, first, every):
    span, step = Span(minutes(start), minutes(start + length)), timedelta(minutes=every)
    first_in, folder = Span(minutes(first), minutes(first + 15)), Path(tempfile.mkdtemp())
    expected, came = plain(served, span, step)
    entered = sorted((unit, arm, at) for unit, (arm, at) in came.items() if at in first_in)
    try:
        lake = a_lake(folder)
        if served:
            commit(lake, *served)
        source, until = a_source(lake), minutes(200)
        everything = source.examples(Span(minutes(0), until), Label("x", within="1h"), as_of=until).predictions
        assert source.crowds(span, ARMS, every=step, as_of=until) == expected
        assert crowds(everything, span, ARMS, every=step) == expected
        for found in (
            source.newcomers(span, ARMS, first_in=first_in, as_of=until),
            newcomers(everything, span, ARMS, first_in=first_in),
        ):
            assert found.unit.tolist() == [unit for unit, _, _ in entered]
            assert found.arm.tolist() == [arm for _, arm, _ in entered]
            assert found.first.tolist() == [column_time(at).astype("M8[us]").item() for _, _, at in entered]
        lake.close()
    finally:
        shutil.rmtree(folder)
