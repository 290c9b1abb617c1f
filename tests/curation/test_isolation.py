"""Whose rows does a version learn from, and what does it do to a trial if it is everybody's?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as every
from hypothesis import strategies as st

from leaven.curation import AllHistory, Recent, Sample
from leaven.curation.snapshot import read_snapshot, taken
from leaven.curation.windows import served_by
from leaven.errors import BadDefinition
from tests.curation.builders import Source, objects, some_examples
from tests.curation.test_snapshot import RULE, a_snapshot

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["champion", "canary", "pinned", "imported"]), st.sampled_from(["1", "2", "3", "", None])
    ),
    max_size=20,
)


@every(ROWS, st.sampled_from(["all", "champion", "own"]), st.sets(st.sampled_from("123")))
def test_rows_are_picked_as_one_by_one(rows, arms, lineage):
    picked = served_by(objects([arm for arm, _ in rows]), objects([v for _, v in rows]), arms, lineage=lineage)
    for (arm, version), kept in zip(rows, picked.tolist(), strict=True):
        mine = {"all": True, "champion": arm == "champion", "own": version in lineage}[arms]
        assert kept == (mine or not version)


def a_month():
    """An example an hour: four in ten the champion's, three the canary's, two a named version's, one imported."""
    rng, rows = np.random.default_rng(1), 30 * 24
    arm = rng.choice(["champion", "canary", "pinned", "imported"], rows, p=[0.4, 0.3, 0.2, 0.1])
    version = np.select([arm == "champion", arm == "canary", arm == "pinned"], ["3", "4", "2"], "")
    return some_examples(np.arange(rows) % 2, arm=arm.tolist(), version=version.tolist())


@pytest.mark.parametrize(
    ("arms", "lineage", "left"),
    [
        ("all", ("3", "1"), {"champion", "canary", "pinned", "imported"}),
        ("champion", ("3", "1"), {"champion", "imported"}),
        ("own", ("3", "1"), {"champion", "imported"}),
        ("own", ("4", "2"), {"canary", "pinned", "imported"}),
    ],
)
def test_a_snapshot_holds_the_rows_of_the_arms_that_it_names_and_says_how_many(arms, lineage, left):
    source = Source(a_month())
    for data in (Recent("12d", arms=arms), AllHistory(arms=arms), Sample("before 3d", rows=100, arms=arms)):
        definition = a_snapshot(data, lineage=lineage)
        examples = read_snapshot(definition, source, RULE)
        kept = taken(definition, examples)
        assert set(kept.served) == left
        assert sum(kept.served.values()) == kept.rows == len(examples)
        assert kept.served["imported"] == (examples.predictions.arm == "imported").sum()
        assert (kept.lineage == lineage) is (arms == "own")
        read_snapshot(kept, source, RULE)  # reads the same again, or raises
        if isinstance(data, Sample):
            assert kept.rows == 100  # of those that count, not of all


def test_each_part_keeps_its_own_arms():
    both = Recent("10d", arms="champion") + Sample("before 10d", rows=1_000)
    examples = read_snapshot(a_snapshot(both), Source(a_month()), RULE).predictions
    recent = examples.at >= np.datetime64("2026-01-11")
    assert set(examples.arm[recent]) == {"champion", "imported"}
    assert set(examples.arm[~recent]) == {"champion", "canary", "pinned", "imported"}


def test_arms_are_written_as_they_were_given_and_unknown_ones_are_refused():
    assert repr(Recent("28d", arms="champion")) == 'Recent("28d", arms="champion")'
    assert repr(Recent("28d")) == 'Recent("28d")'
    for wrong in (
        lambda: Recent("1d", arms="canary"),
        lambda: AllHistory(arms=""),
        lambda: Sample("before 1d", rows=1, arms=3),
    ):
        with pytest.raises(BadDefinition, match="names no arms"):
            wrong()


WORLDS, ITEMS, EACH, ROUNDS = 300, 20, 20, 40  # simulated worlds; things to offer; users of an arm a day; days
EXPLORES = {"champion": 0.0, "canary": 0.2}
VERSION = {"champion": "1", "canary": "2"}


def effect_seen(arms, *, alone=False):
    """The canary's clicks per user minus the champion's, over the later half, in each of the worlds.

    Both offer what sold best in the rows that they learnt from every day; the canary tries something else now and
    then, and so finds better things. `alone`: each in a world of its own, which is what a trial is meant to tell.
    """
    rng = np.random.default_rng(6)
    worth = rng.beta(1, 6, (WORLDS, ITEMS))
    shown = {arm: np.ones((WORLDS, ITEMS)) for arm in EXPLORES}
    clicked = {arm: np.full((WORLDS, ITEMS), 0.1) for arm in EXPLORES}
    clicks = {arm: np.zeros(WORLDS) for arm in EXPLORES}
    world = np.repeat(np.arange(WORLDS), EACH)
    for day in range(ROUNDS):
        batch = {}
        for arm, explores in EXPLORES.items():
            best = (clicked[arm] / shown[arm]).argmax(1)
            offered = np.where(rng.random(len(world)) < explores, rng.integers(0, ITEMS, len(world)), best[world])
            bought = rng.random(len(world)) < worth[world, offered]
            batch[arm] = (world * ITEMS + offered, bought)
            if day >= ROUNDS // 2:
                clicks[arm] += bought.reshape(WORLDS, EACH).mean(1) / (ROUNDS - ROUNDS // 2)
        cell = np.concatenate([batch[arm][0] for arm in EXPLORES])
        bought = np.concatenate([batch[arm][1] for arm in EXPLORES])
        by = objects(np.repeat(list(EXPLORES), len(world)).tolist())
        version = objects(np.repeat([VERSION[arm] for arm in EXPLORES], len(world)).tolist())
        for arm in EXPLORES:
            kept = by == arm if alone else served_by(by, version, arms, lineage=[VERSION[arm]])
            shown[arm] += np.bincount(cell[kept], minlength=WORLDS * ITEMS).reshape(WORLDS, ITEMS)
            clicked[arm] += np.bincount(cell[kept], bought[kept], WORLDS * ITEMS).reshape(WORLDS, ITEMS)
    return clicks["canary"] - clicks["champion"]


def test_arms_that_learn_from_each_other_hide_the_effect_and_arms_of_their_own_show_it():
    """Symbiosis bias (Brennan et al. 2023, arXiv 2309.07107): the champion sells what the canary finds."""
    truth, pooled, own = effect_seen("all", alone=True), effect_seen("all"), effect_seen("own")
    error = np.sqrt((truth.var() + pooled.var()) / WORLDS)
    assert truth.mean() > 5 * truth.std() / np.sqrt(WORLDS)  # the canary is better
    assert pooled.mean() < -3 * pooled.std() / np.sqrt(WORLDS)  # and looks worse
    assert truth.mean() - pooled.mean() > 5 * error
    assert own.mean() == pytest.approx(truth.mean(), abs=1e-12)  # the same rows, the same chance
