"""A/B tests as the controller runs them: promoted, rolled back, given up, stopped; and judged again from the record."""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
import pytest

from leaven.controller import history, state
from leaven.controller.replay import replay
from leaven.controller.verify import judged_again
from leaven.duration import instant
from leaven.errors import BadDefinition
from leaven.events import Happens, Label
from leaven.experiments import ABTest, Guardrail, Outcome
from leaven.experiments.ab_evidence import ABEvidence
from leaven.experiments.assignment import POSITIONS, position
from leaven.experiments.showing import shown
from leaven.experiments.stage import Traffic
from leaven.storage.history_file import History
from tests.controller.pasts import Scripted, Watched, a_loop, day

QUICK = ABTest(units=1_200, over="6h", every="12h", at_least="1d", patience="10d", slices=["x_group"])
FEATURES = {"x": "float", "z": "float", "x_group": "category"}


@cache
def a_town(turns_on: float | None = None, *, days: int = 20, per_day: int = 400) -> History:
    """Many users who come now and then; from day `turns_on` on, what said that they buy says that they do not."""
    rng, rows = np.random.default_rng(0), days * per_day
    at = np.datetime64("2026-01-01", "us") + np.sort(rng.integers(0, days * 86_400_000_000, rows)).astype("m8[us]")
    x, z = rng.normal(size=rows), rng.normal(size=rows)
    turned = at >= np.datetime64(day(turns_on).replace(tzinfo=None), "us") if turns_on is not None else np.zeros(rows)
    bought = rng.random(rows) < 1 / (1 + np.exp(-2.5 * np.where(turned, -x, x)))
    told = at + rng.integers(60, 5 * 3600, rows).astype("m8[s]").astype("m8[us]")
    unit = np.array([f"user-{number}" for number in rng.integers(0, 6_000, rows)], dtype=object)
    group = np.where(z > 0, "high", "low").astype(object)
    return History(at, told, bought.astype(np.float64), unit, {"x": x, "z": z, "x_group": group})


def run(*, learner=None, turns_on=None, stage=QUICK, until=16.0, **loop):
    from leaven.loop import Feature

    given = {"features": [Feature(name, kind) for name, kind in FEATURES.items()], "gates": [], "rollout": [stage]}
    learner = learner if learner is not None else Scripted("good", "good")
    return Watched(a_loop(**(given | {"learner": learner} | loop)), a_town(turns_on)).run(until)


def ending(driver: Watched):
    """The last decision of the first trial."""
    first = driver.trials()[0]
    return [decision for decision in driver.decisions("trial") if decision.trial == first.id][-1]


def verified(driver: Watched) -> None:
    for decision in driver.decisions("trial"):
        if "stage" in decision.rule:
            assert judged_again(decision) == (decision.outcome, decision.why)


def test_a_better_challenger_is_promoted_and_the_record_proves_it():
    driver = run(turns_on=7.0)
    decided = ending(driver)
    assert (decided.outcome, driver.trials()[0].state) == ("promote", "promoted")
    assert "shown to be better" in decided.why
    assert decided.rule["stage"] == repr(QUICK)
    verified(driver)
    forged = msgspec.structs.replace(decided, evidence={**decided.evidence, "units": {"champion": 90, "canary": 9_000}})
    assert judged_again(forged)[0] == "roll_back"


def test_a_worse_challenger_is_rolled_back_before_the_plan_is_reached():
    driver = run(learner=Scripted("good", "reversed"))
    decided = ending(driver)
    assert (decided.outcome, driver.trials()[0].state) == ("roll_back", "rolled_back")
    assert "worse (p = " in decided.why
    assert sum(decided.evidence["sums"]["mature"].values()) < 1_200
    verified(driver)


def test_an_equal_challenger_is_given_up_with_the_numbers_and_the_champion_serves_on():
    driver = run(until=18.0)
    decided = ending(driver)
    assert decided.outcome == "roll_back"
    assert "100% of 1,200 planned units are measured" in decided.why
    assert decided.why.endswith("not enough evidence")
    assert driver.alias("champion") == 1
    verified(driver)


def test_a_gateway_that_deals_units_unevenly_stops_the_trial(monkeypatch):
    skewed = lambda unit, *, salt: int((position(unit, salt=salt) / POSITIONS) ** 1.5 * POSITIONS)  # noqa: E731
    monkeypatch.setattr(history, "position", skewed)
    driver = run(turns_on=7.0)
    decided = ending(driver)
    assert decided.outcome == "roll_back"
    assert "the split is broken" in decided.why
    assert driver.alias("champion") == 1
    verified(driver)


def test_what_is_kept_is_what_the_log_says_when_it_is_read_anew():
    driver = run(turns_on=7.0, stage=ABTest(units=100_000, over="6h", every="12h", slices=["x_group"]), until=13.0)
    trial = driver.trial()
    with driver.database.read() as connection:
        kept = msgspec.convert(state.kept_evidence(connection, trial.id, trial.step), ABEvidence)
    traffic = Traffic(
        driver.log, driver.loop.label, instant(trial.since), driver.now, trial.champion, trial.challenger, "log_loss"
    )
    (stage,) = driver.loop.rollout
    assert stage.observe(stage.steps()[0], traffic, None) == kept
    assert len(kept.buckets) > 3


def test_the_champions_score_and_a_units_past_are_asked_of_the_running_loop():
    bought = Label("bought", above=0.5, within="6h")
    for adjust in ("score", "before"):
        driver = run(stage=ABTest(Outcome(bought), units=2_000, over="6h", every="12h", adjust=adjust), until=11.5)
        with driver.database.read() as connection:
            kept = state.kept_evidence(connection, driver.trial().id, 0)
        (constant,) = kept["imputed"]["bought"]
        assert 0.3 < constant < 0.7
        cell = kept["sums"]["cells"][0]["arms"]["champion"]
        assert len(cell["centres"]) == 2
        explained = cell["products"][1] ** 2 / cell["products"][0] / cell["products"][2]
        assert explained > (0.3 if adjust == "score" else 0.0)


def test_a_replay_runs_the_test_as_production_does():
    from leaven.loop import Feature

    loop = a_loop(
        features=[Feature(name, kind) for name, kind in FEATURES.items()], learner=Scripted("good", "good"), gates=[],
        rollout=[QUICK],
    )  # fmt: skip
    ran = replay(loop, a_town(7.0), name="own", start=day(6))
    assert ran.promoted >= 2


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        (ABTest(slices=["colour"]), "'colour', which is no feature. There are x, z"),
        (ABTest("absolute_error"), "'absolute_error' does not fit a binary label"),
        (ABTest(guardrails=[Guardrail("squared_error")]), "'squared_error' does not fit a binary label"),
        (ABTest(secondary=["log_loss"]), "two metrics are called 'log_loss'"),
        (ABTest(adjust="score"), "log_loss cannot be adjusted by 'score'"),
        (ABTest(at_least="1d", patience="54h"), "is over before its first bucket closes"),
    ],
)
def test_a_test_that_does_not_fit_its_loop_is_refused_when_the_file_is_read(stage, says):
    with pytest.raises(BadDefinition, match="(?s)" + says.replace("(", r"\(")):
        a_loop(rollout=[stage])


def test_feedback_of_another_name_is_not_the_label_in_a_replay():
    stage = ABTest(Outcome(Happens("returned", within="1h")), units=2_000, over="6h", every="12h")
    driver = run(stage=stage, until=11.5)
    with driver.database.read() as connection:
        kept = state.kept_evidence(connection, driver.trial().id, 0)
    assert kept["sums"]["cells"][0]["arms"]["champion"]["centres"] == [0.0]


def test_what_it_has_seen_is_shown_metric_by_metric():
    driver = run(turns_on=7.0, stage=ABTest(units=1_200, over="6h", every="12h", at_least="1d", slices=["x_group"],
                                            secondary=["error_rate"]))  # fmt: skip
    decided = ending(driver)
    stage = driver.loop.rollout[0]
    rows = shown(stage, stage.steps()[0], msgspec.convert(decided.evidence, ABEvidence), look=1, metric="log_loss")
    assert {(row.metric, row.slice) for row in rows} >= {
        ("log_loss", None), ("error_rate", None), ("log_loss", "x_group=high"),
    }  # fmt: skip
    primary = rows[0]
    assert primary.high is not None
    assert primary.high < 0  # a lower loss, as far as the interval goes
