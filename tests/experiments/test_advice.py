"""Is the advice the one that its rules give, in sizes that hold, in stages that a loop file can have?"""

from __future__ import annotations

import ast
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import BadDefinition
from leaven.experiments.advice import ANY_TIME, LOOKS, PAIRING, Facts, advise
from leaven.stats.boundaries import inflation
from leaven.stats.moments import Moments
from leaven.stats.unit_curve import UnitCurve

SPREAD = {28: Moments(1_000, 0.5, 999 * 0.4**2)}
BUSY = UnitCurve((20_000,), 0, 0)  # new units every day
SMALL = UnitCurve((2_000,) * 28, once=0, twice=0)  # the same two thousand, for ever
TINY = UnitCurve((30,) * 28, once=0, twice=0)


def facts(**other) -> Facts:
    return Facts(**({"metric": "log_loss", "losses": SPREAD, "curve": BUSY, "delay": 0.1} | other))


@pytest.mark.parametrize(
    ("known", "strategy"),
    [
        ({"outcome_depends": False}, "paired shadow"),
        ({"outcome_depends": False, "ranker": True, "explore": True}, "paired shadow"),
        ({"ranker": True}, "interleaving"),
        ({"ranker": True, "explore": True, "candidates": 5}, "interleaving"),
        ({"explore": True, "candidates": 3}, "bandit"),
        ({"explore": True, "context": True}, "contextual bandit"),
        ({"explore": True, "candidates": 3, "delay": 5.0}, "A/B"),
        ({"explore": True, "candidates": 3, "delay": None}, "A/B"),
        ({"candidates": 3, "context": True}, "A/B"),
        ({"explore": True}, "A/B"),
        ({}, "A/B"),
        ({"losses": {}}, "A/B"),
        ({"curve": None}, "A/B"),
        ({"curve": SMALL}, "canary"),
        ({"curve": TINY}, "shadow"),
        ({"effect": 0.0005}, "canary"),
    ],
)
def test_each_strategy_has_its_facts(known, strategy):
    assert advise(facts(**known)).strategy == strategy


def test_an_ab_test_is_as_large_as_statsmodels_says_times_what_fourteen_looks_cost():
    power = pytest.importorskip("statsmodels.stats.power")
    theirs = power.tt_ind_solve_power(effect_size=0.02 * 0.5 / 0.4, alpha=0.05, power=0.8)
    found = advise(facts())
    assert found.per_arm == math.ceil(
        theirs * inflation([k / LOOKS for k in range(1, LOOKS + 1)], alpha=0.05, power=0.8)
    )
    assert found.total_units == 2 * found.per_arm
    assert found.days == max(7, math.ceil(found.total_units / 20_000))


def test_a_paired_shadow_is_as_large_as_statsmodels_says_of_differences_times_what_looking_at_any_time_costs():
    power = pytest.importorskip("statsmodels.stats.power")
    for pairing in (None, 0.04):
        left = math.sqrt(2 * 0.4**2 * (PAIRING if pairing is None else pairing))
        theirs = power.tt_solve_power(effect_size=0.02 * 0.5 / left, alpha=0.05, power=0.8)
        found = advise(facts(outcome_depends=False, pairing=pairing))
        assert found.total_units == pytest.approx(ANY_TIME * theirs, rel=0.01)


def test_several_candidates_share_the_error():
    one, three = advise(facts()), advise(facts(candidates=3))
    assert three.per_arm > one.per_arm
    assert any("one is proven at a time" in warning for warning in three.warnings)


def test_days_are_never_below_a_week_or_two_windows_and_patience_outlasts_the_labels():
    assert advise(facts(effect=0.5)).days == 7
    late = advise(facts(effect=0.5, window=10.0))
    assert late.days == 20
    assert 'patience="27d"' in late.stages
    assert 'Watch("10d")' in late.stages
    assert any("mature after 10 days" in warning for warning in late.warnings)


def test_a_step_whose_units_would_not_come_is_left_out_and_that_is_said():
    found = advise(facts(curve=UnitCurve((200,), 0, 0), effect=0.1, harm="high"))
    assert found.stages.startswith('rollout=[Shadow("3d"), Canary(0.1), ABTest("log_loss", units=')
    assert any("0.1 % or 1 % is left out" in warning for warning in found.warnings)


def test_units_are_measured_for_a_week_where_a_day_says_too_little_and_patience_lasts_as_long_as_the_test():
    noisy = {1: Moments(1_000, 0.5, 999 * 2.0**2), 7: Moments(1_000, 0.5, 999 * 0.4**2), 28: SPREAD[28]}
    assert 'over="7d")' in advise(facts(losses=noisy)).stages
    assert "over=" not in advise(facts()).stages
    slow = advise(facts(curve=UnitCurve((1_100,), 0, 0)))
    assert slow.days is not None
    assert 42 < slow.days <= 56
    assert f'patience="{slow.days + 14}d")' in slow.stages


def test_more_harm_means_smaller_first_steps():
    stages = [advise(facts(harm=harm)).stages for harm in ("low", "medium", "high")]
    assert ["Canary(0.1)" in stages[0], "Canary(0.01, 0.1)" in stages[1], "Canary(0.001, 0.01, 0.1)" in stages[2]] == [
        True
    ] * 3


def test_unknown_spread_or_units_give_a_strategy_without_sizes():
    for unknown in ({"losses": {}}, {"curve": None}, {"losses": {28: Moments(1, 0.5, 0.0)}}):
        found = advise(facts(**unknown))
        assert (found.per_arm, found.total_units, found.days) == (None, None, None)
        assert "cannot be told" in found.why


def test_why_says_the_numbers():
    found = advise(facts())
    assert f"{found.per_arm:,} units in each of 2 arms" in found.why
    assert "a change of 2 % of log_loss (0.01)" in found.why
    bounded = advise(facts(curve=SMALL))
    assert any("smallest effect that the units of 56 days can show is about 10 %" in w for w in bounded.warnings)


def stages_in(text: str) -> list[tuple[str, dict]]:
    """Stages of `rollout=[…]` by name, with what they are given by name."""
    call = ast.parse(f"Loop({text})", mode="eval").body
    stages = call.keywords[0].value.elts
    assert call.keywords[0].arg == "rollout"
    for stage in stages:
        for positional in stage.args:
            ast.literal_eval(positional)
    return [(each.func.id, {one.arg: ast.literal_eval(one.value) for one in each.keywords}) for each in stages]


@given(
    st.builds(
        Facts, metric=st.just("log_loss"), ranker=st.booleans(), outcome_depends=st.booleans(),
        effect=st.sampled_from([0.001, 0.02, 0.3]), harm=st.sampled_from(["low", "medium", "high"]),
        candidates=st.integers(1, 4), context=st.booleans(), explore=st.booleans(),
        window=st.sampled_from([0.0, 0.25, 3.0, 40.0]), delay=st.sampled_from([None, 0.01, 3.0]),
        labelled=st.sampled_from([0.03, 0.9, 1.0]), losses=st.sampled_from([{}, SPREAD]),
        curve=st.sampled_from([None, BUSY, SMALL, TINY]), pairing=st.sampled_from([None, 0.01]),
    )
)  # fmt: skip
def test_any_facts_give_stages_that_a_loop_file_can_have_and_sizes_that_add_up(known):
    found = advise(known)
    stages = stages_in(found.stages)
    names = [name for name, _ in stages]
    assert names == [name for name in ("Shadow", "Canary", "ABTest", "Watch") if name in names]
    assert names[0] == "Shadow"
    assert names[-1] == "Watch"
    (decides,) = [named.get("decides", False) for name, named in stages if name == "Shadow"]
    assert decides is (not known.outcome_depends)
    assert decides is (found.strategy == "paired shadow")
    if found.total_units is not None and found.per_arm is not None:
        assert found.per_arm <= found.total_units
        assert found.days is None or found.days >= max(7, 2 * known.window)
    json = msgspec.json.decode(msgspec.json.encode(found))
    assert json["stages"] == found.stages


def test_facts_that_make_no_sense_are_refused():
    for wrong in ({"effect": 0.0}, {"effect": 2.0}, {"candidates": 0}, {"labelled": 0.0}, {"window": -1.0}):
        with pytest.raises(BadDefinition):
            advise(facts(**wrong))
