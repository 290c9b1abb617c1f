"""A decision is judged again from its own record alone, and a record that was altered does not hold."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.controller.verify import _GATES, _TRIGGERS, judged_again
from leaven.errors import BadDefinition
from leaven.experiments import STAGES, Canary, Shadow
from leaven.gates import Churn, NotWorse, Sane
from leaven.registry.decisions import Decision
from leaven.triggers import Drops, Every, LabelsGrow
from leaven.values import from_written
from tests.controller.pasts import Watched, a_loop, a_past

number = st.floats(0, allow_nan=False)
positive = st.floats(0, allow_nan=False, exclude_min=True)
inner = st.floats(0, 1, exclude_min=True, exclude_max=True)
times = st.tuples(st.integers(1, 99), st.sampled_from(["s", "min", "h", "d", "w"])).map(lambda t: f"{t[0]}{t[1]}")
losses = st.sampled_from(["log_loss", "brier", "error_rate", "absolute_error", "squared_error"])
policies = st.one_of(
    st.builds(NotWorse, losses, on=st.sampled_from(["fresh", "past"]), margin=number, min_rows=st.integers(0, 9_999)),
    st.builds(Sane, number),
    st.builds(Churn, number, of=st.sampled_from(["decisions", "answers"]), threshold=inner),
    st.builds(Every, times),
    st.builds(LabelsGrow, positive),
    st.builds(Drops, losses, by=number, over=times),
    st.builds(Shadow, times, share=inner, margin=number, alpha=inner, patience=times, metric=st.none() | losses),
    st.builds(lambda shares, **other: Canary(*sorted(shares), **other), st.sets(inner, min_size=1, max_size=4),
              each=times, margin=number, alpha=inner, metric=st.none() | losses),
)  # fmt: skip


@given(policies)
def test_every_policy_is_read_back_from_what_is_written_in_a_decision(policy):
    makers = _GATES | STAGES | _TRIGGERS
    stored = msgspec.json.decode(msgspec.json.encode(repr(policy)))
    assert from_written(stored, makers) == policy
    assert repr(from_written(stored, makers)) == repr(policy)
    assert eval(repr(policy)) == policy


def test_a_decision_that_is_altered_is_found_out():
    driver = Watched(a_loop(), a_past(24, turns_on=7)).run(13)
    gate = driver.decisions("gate")[1]
    reports = [dict(report) for report in gate.evidence["reports"]]
    reports[0]["difference"] = {**reports[0]["difference"], "centre": 1e6}
    forged = msgspec.structs.replace(gate, evidence={**gate.evidence, "reports": reports})
    assert judged_again(gate) == (gate.outcome, gate.why)
    assert judged_again(forged) != (gate.outcome, gate.why)
    advance = driver.decisions("trial")[1]
    assert judged_again(advance) == ("advance", advance.why)
    sooner = msgspec.structs.replace(advance, rule={**advance.rule, "elapsed": 0})
    assert judged_again(sooner)[0] == "hold"
    stage = advance.rule["stage"].replace("min_units=40", "min_units=40, alpha=1e-60")
    assert stage != advance.rule["stage"]
    stricter = msgspec.structs.replace(advance, rule={**advance.rule, "stage": stage})
    assert judged_again(stricter)[0] == "hold"


def test_what_a_person_decided_is_not_judged():
    by_hand = Decision("d", "shop", 0, "promote", "promote", 2, why="I said so", by="ada")
    assert judged_again(by_hand) is None
    assert judged_again(msgspec.structs.replace(by_hand, kind="rollback")) is None


@pytest.mark.parametrize("rule", ["__import__('os').system('true')", "Canary(0.1).judge()", "Unknown()"])
def test_a_rule_that_is_no_policy_is_never_run(rule):
    forged = Decision("d", "shop", 0, "gate", "pass", 2, rule={"gates": [rule]}, evidence={"reports": [{}]})
    with pytest.raises(BadDefinition):
        judged_again(forged)
