"""Which rows a sample draws: by their ids alone, in the proportions that it says."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from itertools import permutations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.curation import AllHistory, Recent, Sample, kept_zeros, unshifted
from leaven.curation.snapshot import Stretch, define_snapshot, read_snapshot
from leaven.curation.windows import Part, chosen
from leaven.errors import BadDefinition
from leaven.events import Happens, Label
from leaven.events.source import Marks, Span
from leaven.training import Stateful, Stateless
from leaven.values import from_written
from tests.control_databases import a_loop
from tests.curation.builders import Source, day, objects, some_examples

ANY = Span(day(0), day(100))
RULE = Happens("y", within="1h")
START = np.datetime64("2026-01-01", "us")
MAKERS = {"Sample": Sample, "Recent": Recent, "AllHistory": AllHistory}


def test_what_was_drawn_before_is_drawn_still():  # frozen: snapshots of every version ever trained read by it
    ids, at = objects([f"p{i}" for i in range(500)]), START + (np.arange(500) ** 2 % 9973) * np.timedelta64(1, "h")
    drawn = [chosen(ids, at, Part(ANY, 77, by), seed=seed) for by in (None, "day", "week", "month") for seed in (0, 5)]
    assert sha256(b"".join(one.astype("<i8").tobytes() for one in drawn)).hexdigest()[:16] == DRAWN
    aged = [chosen(ids, at, Part(ANY, 77, half_life=timedelta(days=9)), seed=seed) for seed in (0, 5)]
    assert sha256(b"".join(one.astype("<i8").tobytes() for one in aged)).hexdigest()[:16] == DRAWN_BY_AGE


def test_a_stretch_that_was_stored_before_samples_could_do_more_reads_as_it_was():
    stored = b'{"start":1,"end":2,"rows":9,"by":"week","arms":"all"}'
    assert msgspec.json.decode(stored, type=Stretch) == Stretch(1, 2, 9, "week", "all", None, None)


rows_of = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 90), st.sampled_from("abc"), st.booleans()),
    min_size=1, max_size=60, unique_by=lambda row: row[0],
)  # fmt: skip
parts = st.builds(
    lambda rows, by, life: Part(ANY, rows, by, half_life=life),
    st.integers(1, 30), st.sampled_from([None, "week", "day", "label", "feature:carrier"]),
    st.sampled_from([None, timedelta(days=3)]),
)  # fmt: skip


def names_drawn(rows, part, seed=3):
    label = np.array([row[3] for row in rows], dtype=float)
    at = START + np.array([row[1] for row in rows], dtype=int) * np.timedelta64(1, "D")
    features = {"carrier": objects([row[2] for row in rows])}
    ids = objects([f"p{row[0]}" for row in rows])
    return {rows[i] for i in chosen(ids, at, part, seed=seed, label=label, features=features)}


@given(rows_of, parts, st.integers(0, 60), st.randoms())
def test_rows_that_come_later_bring_in_no_old_row_that_was_not_drawn(rows, part, known, random):
    before = names_drawn(rows[:known], part) if rows[:known] else set()
    after = names_drawn(random.sample(rows, len(rows)), part)
    assert after & set(rows[:known]) <= before
    assert len(after) == min(part.rows, len(rows))


@given(rows_of, parts, st.integers(1, 9))
def test_a_smaller_sample_is_part_of_a_larger_one_whatever_it_is_drawn_by(rows, part, more):
    assert names_drawn(rows, part) <= names_drawn(rows, with_rows(part, part.rows + more))


def with_rows(part, rows):
    return Part(part.span, rows, part.by, part.arms, part.half_life, part.balance)


@given(rows_of, parts, st.integers(0, 4000))
def test_the_moment_that_ages_are_counted_from_changes_nothing(rows, part, days):
    """All rows grow older alike: what was drawn a refresh ago is drawn again."""
    if part.by in ("week", "day"):
        part = Part(ANY, part.rows, half_life=part.half_life)
    later = [(name, age + days, carrier, label) for name, age, carrier, label in rows]
    assert {row[0] for row in names_drawn(rows, part)} == {row[0] for row in names_drawn(later, part)}


def test_newer_rows_are_drawn_as_often_as_their_half_life_says():
    """Inclusion of the exact successive draw, by enumeration, against 6,000 seeds; within 4 standard errors."""
    ages, rows, seeds = np.array([0, 7, 14, 21, 35]), 2, 6_000
    weight = 2.0 ** (-ages / 14)
    expected = np.zeros(5)
    for first, second in permutations(range(5), rows):
        chance = weight[first] / weight.sum() * weight[second] / (weight.sum() - weight[first])
        expected[[first, second]] += chance
    part = Part(ANY, rows, half_life=timedelta(days=14))
    ids, at = objects([f"p{i}" for i in range(5)]), START - ages * np.timedelta64(1, "D")
    drawn = np.bincount(np.concatenate([chosen(ids, at, part, seed=seed) for seed in range(seeds)])) / seeds
    assert (np.abs(drawn - expected) < 4 * np.sqrt(expected * (1 - expected) / seeds)).all()
    assert expected[0] > 1.8 * expected[4]  # and that is far from an even draw


@given(rows_of, st.integers(1, 40), st.sampled_from([0.2, 0.5, 0.75]))
def test_a_balanced_sample_holds_its_share_or_is_smaller(rows, wanted, share):
    part = Part(ANY, wanted, balance=share)
    drawn = names_drawn(rows, part)
    ones = sum(row[3] for row in drawn)
    there = sum(row[3] for row in rows)
    room = min(wanted, there / share, (len(rows) - there) / (1 - share))
    assert len(drawn) == int(room)
    assert abs(ones - share * len(drawn)) <= 0.5
    assert drawn <= names_drawn(rows, Part(ANY, wanted + 7, balance=share))


def test_values_of_a_feature_and_rows_without_one_give_equal_numbers_however_the_column_came():
    gate = [7] * 50 + [8] * 5 + [None] * 45
    ids, at = objects([f"p{i}" for i in range(100)]), np.full(100, START)

    def drawn(column):
        return chosen(ids, at, Part(ANY, 20, "feature:gate"), seed=0, features={"gate": column}).tolist()

    picked = drawn(objects(gate))
    assert [sum(low <= i < high for i in picked) for low, high in ((0, 50), (50, 55), (55, 100))] in (
        [8, 5, 7],
        [7, 5, 8],
    )
    assert picked == drawn(np.array([np.nan if one is None else one for one in gate]))
    assert picked == drawn(objects([None if one is None else float(one) for one in gate]))
    assert len(chosen(ids, at, Part(ANY, 20, "feature:gate"), seed=0, features={})) == 20  # missing in all: one stratum


def test_a_sample_by_what_is_not_looked_at_is_refused_and_so_are_classes_of_numbers():
    ids, at = objects(["a", "b", "c"]), np.full(3, START)
    for part in (Part(ANY, 2, "label"), Part(ANY, 2, "feature:x"), Part(ANY, 2, balance=0.5)):
        with pytest.raises(BadDefinition, match=r"not looked at|nor features"):
            chosen(ids, at, part, seed=0)
    for part in (Part(ANY, 2, "label"), Part(ANY, 2, balance=0.5)):
        with pytest.raises(BadDefinition, match="no classes"):
            chosen(ids, at, part, seed=0, label=np.array([1.5, 0.0, 1.0]), features={})


@pytest.mark.parametrize("data", [
    Recent("56d", before="7d"), Sample(AllHistory(), rows=20_000, by="month"),
    Sample(Recent("90d", before="28d", arms="own"), rows=5, by="feature:carrier", half_life="14d"),
    Sample("before 28d", rows=5, balance=0.25, probabilities="shifted"),
    Sample(AllHistory(), rows=9, by="label", probabilities="shifted"),
])  # fmt: skip
def test_a_choice_prints_as_it_is_written(data):
    assert from_written(repr(data), MAKERS) == data


def test_a_window_is_sampled_where_it_lies_and_for_whom_it_is():
    (part,) = Sample(Recent("56d", before="7d", arms="own"), rows=5, half_life="14d").parts(
        until=day(100), first=day(0)
    )
    assert (part.span, part.rows, part.arms) == (Span(day(37), day(93)), 5, "own")
    assert part.half_life == timedelta(days=14)
    (part,) = Sample(AllHistory(), rows=5, arms="champion").parts(until=day(100), first=day(2))
    assert (part.span, part.arms) == (Span(day(2), day(100)), "champion")


@pytest.mark.parametrize(("wrong", "says"), [
    (lambda: Sample(AllHistory(), rows=9, balance=0.5), "shift the probabilities"),
    (lambda: Sample(AllHistory(), rows=9, by="label"), "shift the probabilities"),
    (lambda: Sample(AllHistory(), rows=9, probabilities="shifted"), "nothing shifts"),
    (lambda: Sample(AllHistory(), rows=9, balance=0.5, probabilities="wrong"), "says nothing"),
    (lambda: Sample(AllHistory(), rows=9, balance=1.0, probabilities="shifted"), "no share"),
    (lambda: Sample(AllHistory(), rows=9, balance=0.5, by="label", probabilities="shifted"), "both"),
    (lambda: Sample(AllHistory(), rows=9, by="feature:"), "no stratum"),
    (lambda: Sample(AllHistory(), rows=9, by="carrier"), "feature:NAME"),
    (lambda: Sample(AllHistory(), rows=9, half_life="14"), "no duration"),
    (lambda: Sample(AllHistory() + Recent("7d"), rows=9), "no single window"),
    (lambda: Sample(Recent("7d", arms="own"), rows=9, arms="champion"), "Say it once"),
    (lambda: Recent("7d", before="0d"), "not longer than nothing"),
])  # fmt: skip
def test_what_would_be_used_wrongly_is_refused(wrong, says):
    with pytest.raises(BadDefinition, match=says):
        wrong()


@pytest.mark.parametrize("data", [
    Sample(AllHistory(), rows=9, by="feature:nowhere"), Recent("7d") + Sample("before 7d", rows=9, by="feature:x2"),
])  # fmt: skip
def test_a_feature_that_the_loop_does_not_have_is_refused(data):
    with pytest.raises(BadDefinition, match=r"my loop.*no feature.*Use one of x"):
        data.check_fits(features=["x"], task="binary", where="my loop")


def test_classes_of_a_label_that_is_a_number_are_refused():
    data = Sample(AllHistory(), rows=9, balance=0.5, probabilities="shifted")
    data.check_fits(features=["x"], task=RULE.task, where="my loop")
    with pytest.raises(BadDefinition, match="does not fit a regression label"):
        data.check_fits(features=["x"], task=Label("y", within="1h").task, where="my loop")


def test_a_model_that_goes_on_from_a_balanced_one_is_refused():
    """Its updates would learn from all new rows, and its probabilities would be neither shifted nor true."""
    balanced = Recent("2d") + Sample(AllHistory(), rows=9, balance=0.5, probabilities="shifted")
    with pytest.raises(BadDefinition, match=r"flights.*Stateful\(\).*Use plan=Stateless"):
        a_loop(data=balanced, plan=Stateful())
    assert a_loop(data=balanced, plan=Stateless()).data == balanced
    with pytest.raises(BadDefinition, match="names no feature"):
        a_loop(data=Sample(AllHistory(), rows=9, by="feature:nowhere"))


def test_the_share_that_was_kept_gives_the_probabilities_back():
    """Frequencies by group in a balanced sample, corrected, against those of all rows; within 4 standard errors."""
    rng = np.random.default_rng(5)
    group = rng.integers(0, 3, 40_000)
    truth = np.array([0.01, 0.05, 0.2])[group]
    label = (rng.random(40_000) < truth).astype(float)
    examples = some_examples(label, days=np.linspace(0, 10, 40_000), features={"group": group.astype(float)})
    data = Sample(AllHistory(), rows=6_000, balance=0.5, probabilities="shifted")
    source = Source(examples)
    snapshot = define_snapshot(
        "shop", data.parts(until=day(11), first=day(0)), holdout=None, rule=RULE, as_of=day(40),
        marks=Marks(10**6, 0), seed=0,
    )  # fmt: skip
    drawn = read_snapshot(snapshot, source, RULE)
    kept = kept_zeros(snapshot, source, RULE)
    for which in range(3):
        mine = drawn.labels.value[drawn.predictions.features["group"] == which]
        shifted, rate = mine.mean(), label[group == which].mean()
        error = np.sqrt(shifted * (1 - shifted) / len(mine)) * rate * (1 - rate) / (shifted * (1 - shifted))
        assert abs(unshifted(shifted, kept=kept) - rate) < 4 * error
        assert shifted > 2 * rate
    assert unshifted([0.0, 0.5, 1.0], kept=1.0).tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(BadDefinition, match="positive"):
        unshifted(0.5, kept=0.0)


DRAWN = "ed56134396de1e37"
DRAWN_BY_AGE = "ebc871c2a0482123"
