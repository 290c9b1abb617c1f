"""Which predictions are worth a label."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.curation.feature_space import MOST, feature_space
from leaven.curation.queries import Candidates, Disagreement, Diversity, Evenly, Margin, Mixture, Uncertainty
from leaven.errors import BadDefinition
from leaven.loop import Schema
from tests.curation.builders import objects

AT = np.datetime64("2026-01-01", "us")


def some(answer=None, *, other=None, space=None, known=None, ids=None):
    rows = len(space) if answer is None else len(answer)
    points = np.zeros((rows, 1)) if space is None else np.asarray(space, dtype=float)
    return Candidates(
        objects([f"p{i}" for i in range(rows)] if ids is None else ids), np.full(rows, AT),
        np.full(rows, 0.5) if answer is None else np.asarray(answer, dtype=float),
        np.full(rows, np.nan) if other is None else np.asarray(other, dtype=float), points,
        np.zeros((0, points.shape[1])) if known is None else np.asarray(known, dtype=float),
    )  # fmt: skip


def rows_of(picks):
    return [pick.row for pick in picks]


def test_the_least_sure_answers_come_first_and_failures_never():
    found = Uncertainty().pick(some([0.9, 0.51, np.nan, 0.3, 1.0, 0.0]), 4, seed=0)
    assert rows_of(found)[:3] == [1, 3, 0]
    assert found[0].why == "entropy 1.000 bit"
    assert 2 not in rows_of(Uncertainty().pick(some([0.9, 0.51, np.nan, 0.3, 1.0, 0.0]), 99, seed=0))


@given(st.lists(st.floats(0, 1).map(lambda p: round(p, 3)), min_size=1, max_size=40, unique_by=lambda p: abs(p - 0.5)))
def test_with_two_classes_entropy_least_confidence_and_margin_are_one_order(answers):
    by_entropy = rows_of(Uncertainty().pick(some(answers), 9, seed=0))
    least_confident = sorted(range(len(answers)), key=lambda i: max(answers[i], 1 - answers[i]))
    assert by_entropy == least_confident[:9]
    assert by_entropy == rows_of(Margin().pick(some(answers), 9, seed=0))


def test_answers_that_are_no_probabilities_have_margins_but_no_entropy():
    with pytest.raises(BadDefinition, match=r"17.*no probability"):
        Uncertainty().pick(some([0.2, 17.0]), 1, seed=0)
    found = Margin(15).pick(some([0.2, 17.0, 14.0, 90.0]), 2, seed=0)
    assert [(pick.row, pick.why) for pick in found] == [(2, "1 from 15"), (1, "2 from 15")]


def test_where_champion_and_challenger_disagree_most():
    found = Disagreement().pick(some([0.2, 0.5, 0.9, 0.4], other=[0.3, np.nan, 0.1, 0.0]), 9, seed=0)
    assert rows_of(found) == [2, 3, 0]
    assert found[0].why == "answers 0.9 and 0.1"


points = st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=2, max_size=9, unique=True)


def radius(space, centers):
    return np.sqrt(((space[:, None] - space[list(centers)][None]) ** 2).sum(-1)).min(1).max()


@given(points, st.integers(1, 4), st.integers(0, 3))
def test_greedy_centers_are_no_worse_than_twice_the_best_there_are(space, rows, seed):
    space = np.asarray(space, dtype=float)
    rows = min(rows, len(space))
    picked = rows_of(Diversity().pick(some(space=space), rows, seed=seed))
    assert len(set(picked)) == rows
    best = min(radius(space, centers) for centers in combinations(range(len(space)), rows))
    assert radius(space, picked) <= 2 * best + 1e-9


@given(points, points, st.integers(1, 9))
def test_each_center_is_the_farthest_from_what_is_known_and_picked(space, known, rows):
    """Against the definition, one pick after the other."""
    space, centers = np.asarray(space, dtype=float), [np.asarray(one, dtype=float) for one in known]
    for pick in Diversity().pick(some(space=space, known=known), rows, seed=1):
        gaps = [min(np.linalg.norm(row - center) for center in centers) for row in space]
        assert gaps[pick.row] == pytest.approx(max(gaps))
        centers.append(space[pick.row])


def test_a_mixture_gives_each_query_its_share_in_turn_and_no_row_twice():
    candidates = some([0.5, 0.49, 0.1, 0.2, 0.9, 0.3], other=[0.5, 0.1, np.nan, np.nan, 0.8, np.nan])
    query = Uncertainty() + Disagreement() + Evenly()
    assert repr(query) == "Uncertainty() + Disagreement() + Evenly()"
    assert query == Mixture((Uncertainty(), Disagreement(), Evenly()))
    assert query == Uncertainty() + (Disagreement() + Evenly())
    found = query.pick(candidates, 6, seed=0)
    assert rows_of(found)[:2] == [0, 4] or rows_of(found)[:2] == [0, 1]
    assert sorted(rows_of(found)) == [0, 1, 2, 3, 4, 5]
    assert len(query.pick(candidates, 5, seed=0)) == 5


@pytest.mark.parametrize("query", [Evenly(), Diversity(), Uncertainty(), Diversity() + Evenly()])
def test_a_pick_depends_on_ids_and_seed_and_not_on_the_order(query):
    rng = np.random.default_rng(1)
    space, ids = rng.normal(size=(30, 2)), np.array([f"p{i}" for i in range(30)])
    answer = rng.random(30).round(1)  # many ties

    def named(order, seed):
        candidates = some(answer[order], space=space[order], ids=ids[order].tolist())
        return [candidates.id[row] for row in rows_of(query.pick(candidates, 8, seed=seed))]

    asked = np.arange(30)
    assert named(asked, 0) == named(rng.permutation(30), 0)
    assert named(asked, 0) != named(asked, 1)


def test_features_are_on_one_scale():
    schema = Schema((("miles", "float", False), ("carrier", "category", False), ("flat", "int", False)), "u", "binary")
    columns = {"miles": np.array([0.0, 1000.0, np.nan, 500.0]), "carrier": objects(["UA", "UA", "UA", "AA"])}
    space = feature_space(schema, columns | {"flat": np.full(4, 3.0)}, rows=4)

    def apart(a, b):
        return np.linalg.norm(space[a] - space[b])

    sd = np.std([0.0, 1000.0, 500.0])
    assert apart(0, 1) == pytest.approx(1000 / sd)
    assert apart(0, 3) == pytest.approx(np.hypot(500 / sd, 1))
    assert apart(2, 3) == pytest.approx(np.sqrt(2))  # missing, and another carrier
    assert feature_space(schema, {}, rows=3).shape == (3, 0)
    many = {"carrier": objects([f"c{i}" for i in range(200)])}
    assert feature_space(schema, many, rows=200).shape == (200, MOST + 1)


def test_labels_of_unsure_rows_teach_more_than_as_many_of_any_rows():
    """Where a threshold is looked for: 60 worlds, 4 labels to begin with, 12 more of each kind; paired by world."""
    gains = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.random(400)
        truth = rng.uniform(0.2, 0.8)

        def error(labelled, x=x, truth=truth):
            """Of deciding halfway between the highest 0 and the lowest 1 that are known."""
            low = max((value for value in x[labelled] if value < truth), default=0.0)
            high = min((value for value in x[labelled] if value >= truth), default=1.0)
            return abs((low + high) / 2 - truth), (low + high) / 2

        errors = []
        for query in (Uncertainty(), Evenly()):
            labelled = list(range(4))
            for _ in range(3):  # three queues of four
                answer = 1 / (1 + np.exp(-20 * (x - error(labelled)[1])))
                left = ~np.isin(np.arange(400), labelled)
                labelled += rows_of(query.pick(some(answer), 4, seed=seed, among=left))
            errors.append(error(labelled)[0])
        gains.append(errors[1] - errors[0])
    assert np.mean(gains) > 3 * np.std(gains) / np.sqrt(len(gains))


def test_diversity_finds_the_rare_kinds_that_an_even_draw_misses():
    """20 kinds of rows, the largest a thousand times the smallest, 20 picks: all kinds, against a few."""
    rng = np.random.default_rng(2)
    sizes = np.maximum(1, np.geomspace(1000, 1, 20)).astype(int)
    kind = np.repeat(np.arange(20), sizes)
    space = rng.normal(size=(20, 3))[kind] * 10 + rng.normal(size=(len(kind), 3)) * 0.1

    def kinds(query):
        return len(set(kind[rows_of(query.pick(some(space=space), 20, seed=0))]))

    assert kinds(Diversity()) == 20
    assert kinds(Evenly()) < 12
