"""What a plan chooses, and the reason it gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, SGDClassifier

from leaven.errors import BadDefinition
from leaven.learners import ScikitLearn
from leaven.stats.intervals import Interval
from leaven.training import Hybrid, Stateful, Stateless
from leaven.training.learner import CannotLearn
from leaven.training.plans import Choice, PlanHistory
from leaven.triggers import Every, LabelsGrow
from leaven.values import from_written
from tests.controller.pasts import a_loop

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLANS = {"Stateless": Stateless, "Stateful": Stateful, "Hybrid": Hybrid}


def a_history(**other):
    given = {"now": NOW, "has_parent": True, "rebuilt_at": NOW - timedelta(days=1), "updates": 3, "uncompared": 3}
    return PlanHistory(**(given | other))


def a_gap(estimate, half=0.01):
    return Interval(estimate, estimate - half, estimate + half, 0.95, 500)


@pytest.mark.parametrize("plan", [Stateless(), Stateful(), Hybrid()], ids=repr)
def test_the_first_version_is_fitted_whatever_the_plan(plan):
    assert plan.choose(PlanHistory(NOW, has_parent=False)).mode == "fit"


def test_stateless_fits_and_stateful_updates():
    assert Stateless().choose(a_history()).mode == "fit"
    choice = Stateful(replay=0.5).choose(a_history())
    assert (choice.mode, choice.replay, choice.compare) == ("update", 0.5, False)
    assert "update 4 since it was fitted on 2026-02-28" in choice.why


@pytest.mark.parametrize(
    ("history", "mode", "why"),
    [
        (a_history(), "update", "goes on from the champion"),
        (a_history(rebuilt_at=NOW - timedelta(days=7)), "fit", "7d have passed since 2026-02-22"),
        (a_history(rebuilt_at=NOW - timedelta(days=7) + timedelta(seconds=1)), "update", "update 4"),
        (a_history(rebuilt_at=None), "fit", "not known"),
        (a_history(changed="the features gained y (float)"), "fit", "the features gained y (float) since the champion"),
        (a_history(gap=a_gap(0.05)), "fit", "lose 5.0% [4.0%, 6.0%] more"),
        (a_history(gap=a_gap(0.025)), "update", ""),  # not shown to be above 2 %
        (a_history(model_bytes=50_000_001), "fit", "50,000,001 bytes, more than 50MB"),
        (a_history(model_bytes=50_000_000), "update", ""),
    ],
)
def test_hybrid_rebuilds_when_due_and_says_why(history, mode, why):
    choice = Hybrid().choose(history)
    assert choice.mode == mode
    assert why in choice.why


def test_occasions_that_are_not_named_do_not_rebuild():
    far = a_history(rebuilt_at=NOW - timedelta(days=900), gap=a_gap(0.5), model_bytes=10**9)
    assert Hybrid(rebuild=None, rebuild_on=["schema"]).choose(far).mode == "update"
    assert Hybrid(rebuild=None, rebuild_on=["gap"]).choose(far).mode == "fit"
    assert Hybrid(rebuild=None, rebuild_on=["size"], size="2GB").choose(far).mode == "update"
    assert Hybrid(rebuild="4w", rebuild_on=[]).choose(far).mode == "fit"


@pytest.mark.parametrize("plan", [Stateful(), Hybrid(rebuild_on=["gap"])], ids=repr)
def test_a_champion_that_cannot_be_continued_is_refused_with_what_to_do(plan):
    with pytest.raises(CannotLearn) as refused:
        plan.choose(a_history(changed="the features lost z (float)"))
    assert "the features lost z (float) since the champion" in str(refused.value)
    assert "plan=Hybrid()" in str(refused.value)
    assert "plan=Stateless() until" in str(refused.value)


def test_a_champion_that_no_longer_fits_is_gone_on_from_as_the_plan_says():
    grows = a_history(changed="the features gained y (float)", grows=True, corrects=True)
    both = {plan.grow_by: plan.choose(grows) for plan in (Stateful(), Stateful(grow_by="residual"))}
    assert {name: choice.grow_by for name, choice in both.items()} == {"surgery": "surgery", "residual": "residual"}
    assert "is grown first, as the features gained y" in both["surgery"].why
    assert "is kept whole and corrected by a model beside it, as the features gained y" in both["residual"].why
    assert Stateful(grow_by="residual").choose(a_history()).grow_by is None  # where it fits it is just continued


def test_what_cannot_be_done_names_what_can():
    corrects = a_history(changed="the features gained y (float)", corrects=True)
    with pytest.raises(CannotLearn, match=r'it cannot be grown\. Use plan=Stateful\(grow_by="residual"\), which keeps'):
        Stateful().choose(corrects)
    grows = a_history(changed="the features gained y (float)", grows=True, barred="3 models stand under it")
    with pytest.raises(CannotLearn, match=r"and cannot: 3 models .* Use plan=Stateful\(\), which grows it, or plan=Hy"):
        Stateful(grow_by="residual").choose(grows)
    anchored = Hybrid(rebuild_on=["gap"], grow_by="residual").choose(grows)
    assert anchored.mode == "fit"
    assert "which cannot be corrected: 3 models stand under it" in anchored.why
    with pytest.raises(BadDefinition, match="no way to grow"):
        Stateful(grow_by="magic")
    with pytest.raises(BadDefinition, match="rebuild_on has the schema"):
        Hybrid(grow_by="residual")


def test_every_so_many_updates_one_is_compared():
    told = [Hybrid(compare_every=4).choose(a_history(uncompared=count)).compare for count in range(5)]
    assert told == [False, False, False, True, True]
    assert not Hybrid(compare_every=None).choose(a_history(uncompared=99)).compare
    assert Hybrid(compare_every=1, gap=0.1).choose(a_history()).take_above == 0.1
    measured = Hybrid(compare_every=1, rebuild_on=["size"]).choose(a_history())
    assert (measured.compare, measured.take_above) == (True, None)


def test_how_often_stands_for_a_trigger_where_the_loop_has_none():
    assert a_loop(plan=Hybrid(update="1d"), triggers=[]).pace == (Every("1d"),)
    assert a_loop(plan=Hybrid(update="1d"), triggers=[LabelsGrow(0.1)]).pace == (LabelsGrow(0.1),)
    assert a_loop(plan=Hybrid(), triggers=[]).pace == ()


@pytest.mark.parametrize("plan", [Stateful(replay=1, replay_labels="model"), Hybrid(replay=1, replay_labels="model")])
def test_answers_as_labels_need_a_learner_that_takes_them(plan):
    with pytest.raises(BadDefinition, match="takes 0 or 1 only"):
        a_loop(plan=plan, learner=ScikitLearn(SGDClassifier(loss="log_loss")))
    assert a_loop(plan=Stateful(replay_labels="model"), learner=ScikitLearn(LogisticRegression()))  # nothing replayed


numbers = st.floats(0, 10, allow_nan=False)
plans = st.one_of(
    st.builds(Stateful, replay=numbers, replay_labels=st.sampled_from(["stored", "model"])),
    st.builds(
        Hybrid,
        update=st.none() | st.sampled_from(["1d", "12h"]),
        rebuild=st.sampled_from(["7d", "4w"]),
        rebuild_on=st.lists(st.sampled_from(["schema", "gap", "size"]), unique=True),
        compare_every=st.none() | st.integers(1, 50),
        gap=numbers,
        size=st.sampled_from(["1kB", "2.5MB", "1GB"]),
        replay=numbers,
    ),
)


@given(plans, st.integers(0, 40), st.none() | numbers)
def test_a_choice_follows_from_what_is_written_down_of_it(plan, days, gap):
    history = a_history(rebuilt_at=NOW - timedelta(days=days), gap=None if gap is None else a_gap(gap))
    again = from_written(repr(plan), PLANS)
    kept = msgspec.convert(msgspec.json.decode(msgspec.json.encode(history)), PlanHistory)
    assert again == plan
    assert again.choose(kept) == plan.choose(history)
    assert msgspec.convert(msgspec.to_builtins(plan.choose(history)), Choice) == plan.choose(history)


@pytest.mark.parametrize("wrong", [
    lambda: Stateful(replay=-0.1), lambda: Stateful(replay=True), lambda: Stateful(replay_labels="mine"),
    lambda: Hybrid(update="daily"), lambda: Hybrid(rebuild="0d"), lambda: Hybrid(rebuild_on=["drift"]),
    lambda: Hybrid(rebuild=None, rebuild_on=[]), lambda: Hybrid(compare_every=0), lambda: Hybrid(gap=-1),
    lambda: Hybrid(size="50"), lambda: Hybrid(size="MB"), lambda: Hybrid(replay=float("inf")),
])  # fmt: skip
def test_what_is_no_plan_is_refused(wrong):
    with pytest.raises(BadDefinition):
        wrong()
