"""What can be written in an A/B test, how it reads, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import BadDefinition
from leaven.events import Happens, Label
from leaven.experiments import MAKERS, ABTest, Failures, Guardrail, Latency, Outcome, Ratio
from leaven.experiments.ab_metrics import gauge, name_of, rules_of
from leaven.values import from_written

inner = st.floats(0, 1, exclude_min=True, exclude_max=True)
times = st.sampled_from(["90min", "6h", "1d", "2w"])
rules = st.one_of(
    st.builds(Label, st.sampled_from(["stars", 'odd "name"']), within=times, above=st.none() | st.floats(-9, 9)),
    st.builds(Happens, st.just("bought"), within=times),
)
better = st.sampled_from(["higher", "lower"])
metrics = st.one_of(
    st.sampled_from(["log_loss", "f1", "roc_auc", "absolute_error"]), st.builds(Outcome, rules, better=better),
    st.builds(Ratio, rules, rules, better=better), st.builds(Latency, inner), st.just(Failures()),
)  # fmt: skip
guardrails = st.builds(Guardrail, metrics, margin=st.floats(0, 9, exclude_min=True))
others = st.lists(st.sampled_from(["brier", "recall", "squared_error"]), unique=True, max_size=3)


@st.composite
def ab_tests(draw):
    try:
        return ABTest(
            draw(st.none() | metrics), units=draw(st.integers(200, 10**7)), share=draw(inner), over=draw(times),
            every=draw(times), guardrails=draw(st.lists(guardrails, max_size=2)), secondary=draw(others),
            slices=draw(st.lists(st.sampled_from(["country", "origin"]), unique=True)), protect=draw(st.booleans()),
            adjust=draw(st.sampled_from([None, "before", "score"])), margin=draw(st.floats(0, 1)), alpha=draw(inner),
            patience=draw(st.sampled_from(["2w", "40d"])),
        )  # fmt: skip
    except BadDefinition:  # two metrics of one name, an adjustment that does not fit: another one
        return ABTest()


@given(ab_tests())
def test_a_test_prints_the_expression_that_makes_it_again_here_and_from_a_decision(test):
    assert eval(repr(test)) == test
    assert from_written(repr(test), MAKERS) == test
    assert repr(from_written(repr(test), MAKERS)) == repr(test)
    assert hash(eval(repr(test))) == hash(test)


def test_it_reads_as_it_is_written():
    written = (
        'ABTest("log_loss", units=4000, guardrails=[Guardrail(Latency(0.99), margin=0.1)], '
        'secondary=[Outcome(Happens("bought", within="3d")), Ratio(Happens("bought", within="1d"), '
        'Happens("viewed", within="1d"))], slices=["country"])'
    )
    assert repr(from_written(written, MAKERS)) == written


@pytest.mark.parametrize("wrong", [
    lambda: ABTest("auc"), lambda: ABTest(Label("bought", within="1d")), lambda: ABTest(units=199),
    lambda: ABTest(share=0.01), lambda: ABTest(share=0.995), lambda: ABTest(share=0),
    lambda: ABTest(share=1.0), lambda: ABTest(alpha=0), lambda: ABTest(margin=-0.1),
    lambda: ABTest(margin=math.nan), lambda: ABTest(over="1x"), lambda: ABTest(every="0d"), lambda: ABTest(before="?"),
    lambda: ABTest(at_least="8d", patience="7d"), lambda: ABTest(adjust="after"), lambda: ABTest(guardrails=["f1"]),
    lambda: ABTest("f1", secondary=["f1"]), lambda: ABTest("f1", guardrails=[Guardrail("f1")]),
    lambda: ABTest("f1", adjust="score"), lambda: ABTest(Failures(), adjust="before"),
    lambda: ABTest("roc_auc", slices=["country"]), lambda: ABTest(Latency(), slices=["country"]),
    lambda: Guardrail("log_loss", margin=0), lambda: Guardrail("log"), lambda: Latency(1.0), lambda: Outcome("bought"),
    lambda: Outcome(Happens), lambda: Outcome(Happens("a", within="1d"), better="more"),
    lambda: Ratio(Happens("a", within="1d"), "b"), lambda: Ratio("a", Happens("b", within="1d")),
])  # fmt: skip
def test_what_is_no_test_is_refused(wrong):
    with pytest.raises(BadDefinition):
        wrong()


def test_every_metric_has_a_name_a_direction_and_the_rules_that_it_waits_for():
    label, bought, viewed = Label("late", within="1d"), Happens("bought", within="3d"), Happens("viewed", within="1h")
    ratio = Ratio(bought, viewed, better="lower")
    told = [name_of(each) for each in ("f1", Outcome(bought), ratio, Latency(0.99), Failures())]
    assert told == ["f1", "bought", "bought/viewed", "latency p99", "failures"]
    lower = {name: gauge(name).measure.lower_is_better for name in ("log_loss", "error_rate", "f1", "roc_auc")}
    assert lower == {"log_loss": True, "error_rate": True, "f1": False, "roc_auc": False}
    assert (gauge(ratio).measure.lower_is_better, gauge(Latency()).measure.lower_is_better) == (True, True)
    assert rules_of([ratio, Outcome(bought), "f1", Latency()], label) == (bought, viewed, label)
    assert rules_of([Latency(), Failures()], label) == ()


def test_what_was_known_before_is_taken_out_of_what_it_can_be_taken_out_of():
    bought = Outcome(Happens("bought", within="3d"))
    columns = {each: gauge(each, adjust="before").measure.covariate for each in ("log_loss", "f1", bought, "roc_auc")}
    assert columns == {"log_loss": ("before",), "f1": ("before", "before, total"), bought: ("before",), "roc_auc": ()}
    assert gauge(bought, adjust="score").measure.covariate == ("score",)
    assert gauge("log_loss", adjust="score").measure.covariate == ()
