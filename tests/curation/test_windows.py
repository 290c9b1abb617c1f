"""Which stretches, and which of their examples."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.curation import AllHistory, Recent, Sample
from leaven.curation.windows import Part, chosen
from leaven.errors import BadDefinition
from leaven.events.source import Span
from tests.curation.builders import day, objects

UNTIL, FIRST = day(100), day(0)
ANY = Span(FIRST, UNTIL)


def spans(data, until=UNTIL, first=FIRST):
    return [(part.span.start, part.span.end, part.rows) for part in data.parts(until=until, first=first)]


def test_the_stretches_end_where_the_holdout_begins():
    assert spans(Recent("28d")) == [(day(72), day(100), None)]
    assert spans(AllHistory()) == [(day(0), day(100), None)]
    assert spans(Sample("before 28d", rows=5)) == [(day(0), day(72), 5)]
    assert spans(Recent("28d") + Sample("before 28d", rows=5) + Sample("before 50d", rows=2)) == [
        (day(72), day(100), None), (day(0), day(72), 5), (day(0), day(50), 2),
    ]  # fmt: skip


def test_a_sample_of_what_is_older_than_everything_is_nothing():
    assert spans(Sample("before 28d", rows=5), first=day(80)) == []


@pytest.mark.parametrize("wrong", [
    lambda: Recent("28"), lambda: Recent("-1d"), lambda: Sample("after 28d", rows=1), lambda: Sample("before", rows=1),
    lambda: Sample("before 28d", rows=0), lambda: Sample("before 28d", rows=1.5),
    lambda: Sample("before 28d", rows=1, by="year"), lambda: Sample(None, rows=1),
])  # fmt: skip
def test_what_is_no_window_is_refused(wrong):
    with pytest.raises(BadDefinition):
        wrong()


ids = st.lists(st.text(max_size=8), min_size=1, max_size=60, unique=True)


@given(ids, st.integers(1, 60), st.integers(0, 3), st.sampled_from([None, "month", "week", "day"]), st.randoms())
def test_a_sample_depends_on_the_ids_and_the_seed_and_not_on_the_order(ids, rows, seed, by, random):
    def pick(ids):
        at = np.array([np.datetime64("2026-01-01", "us") + np.timedelta64(hash_of(one) % 90, "D") for one in ids])
        return [ids[i] for i in chosen(objects(ids), at, Part(ANY, rows, by), seed=seed)]

    shuffled = random.sample(ids, len(ids))
    picked = pick(ids)
    assert set(picked) == set(pick(shuffled))
    assert picked == [one for one in ids if one in set(picked)]  # in the order given
    assert len(picked) == min(rows, len(ids))


def hash_of(text):
    return sum((index + 1) * ord(letter) for index, letter in enumerate(text))


@given(st.integers(1, 30), st.integers(0, 3))
def test_a_smaller_sample_is_part_of_a_larger_one(rows, seed):
    ids, at = objects([f"p{i}" for i in range(40)]), np.full(40, np.datetime64("2026-01-01", "us"))
    small = chosen(ids, at, Part(ANY, rows), seed=seed)
    assert set(small) <= set(chosen(ids, at, Part(ANY, rows + 10), seed=seed))


def test_another_seed_draws_another_sample_and_each_example_is_as_likely():
    ids, at = objects([f"p{i}" for i in range(200)]), np.full(200, np.datetime64("2026-01-01", "us"))
    drawn = [tuple(chosen(ids, at, Part(ANY, 50), seed=seed)) for seed in range(400)]
    assert len(set(drawn)) == 400
    counts = np.bincount(np.concatenate([np.array(one) for one in drawn]), minlength=200)
    # Chi-square of 200 examples drawn with chance 1/4: within 4 standard deviations of its mean.
    chi = ((counts - 100) ** 2 / (400 * 0.25 * 0.75)).sum()
    assert abs(chi - 200) < 4 * np.sqrt(2 * 200)


@pytest.mark.parametrize(("by", "length"), [("day", timedelta(days=1)), ("week", timedelta(days=7)), ("month", None)])
def test_strata_give_equal_numbers_as_far_as_they_have_them(by, length):
    begin = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday, on which NumPy's weeks begin
    moments = [begin + timedelta(hours=3 * i) for i in range(8 * 60)] + [begin + timedelta(days=100)]
    at = np.array([moment.replace(tzinfo=None) for moment in moments], dtype="datetime64[us]")
    picked = chosen(objects([f"p{i}" for i in range(len(at))]), at, Part(ANY, 31, by), seed=0)

    def stratum(moment):
        return (moment.year, moment.month) if length is None else (moment - begin) // length

    everywhere = Counter(stratum(moment) for moment in moments)
    counts = Counter(stratum(moments[i]) for i in picked)
    full = [counts[each] for each in everywhere if counts[each] < everywhere[each]]
    assert sum(counts.values()) == 31
    assert max(full) - min(full) <= 1
    assert all(count <= max(full) for count in counts.values())
