"""A breaker opens for those that fail, asks again one at a time, and never forgets to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.endpoints.breaker import Breaker, BreakerRule, Outcome, Ticket, admit, settle
from leaven.errors import BadDefinition

RULES = st.builds(
    BreakerRule, failures=st.integers(1, 8), rate=st.floats(0.05, 1), least=st.integers(1, 30),
    window=st.floats(0.5, 60), pause=st.floats(0.1, 5), longest=st.floats(5, 60),
)  # fmt: skip
OUTCOMES = st.sampled_from(["good", "bad", "void"])
STEPS = st.lists(st.tuples(st.floats(0, 3), st.booleans(), OUTCOMES, st.integers(0, 5)), max_size=200)


def after(rule: BreakerRule, outcomes: str, *, every: float = 0.01) -> tuple[Breaker, float]:
    """The breaker after questions one after the other: g answered, b failed."""
    breaker, now = Breaker(rule), 0.0
    for outcome in outcomes:
        now += every
        breaker, ticket = admit(breaker, now)
        assert ticket is not None
        breaker = settle(breaker, ticket, "good" if outcome == "g" else "bad", now, why="failed")
    return breaker, now


def test_so_many_failures_in_a_row_open_it_and_an_answer_in_between_does_not():
    rule = BreakerRule(failures=3, least=1000)
    assert after(rule, "bbgbbgbb")[0].phase == "closed"
    breaker, now = after(rule, "bbgbbb")
    assert (breaker.phase, breaker.since, breaker.until, breaker.why) == ("open", now, now + 1.0, "failed")
    assert admit(breaker, now + 0.99)[1] is None


def test_a_rate_of_failures_opens_it_once_there_are_enough_questions():
    rule = BreakerRule(failures=1000, rate=0.5, least=20)
    assert after(rule, "gb" * 9 + "b")[0].phase == "closed"
    assert after(rule, "gb" * 10)[0].phase == "open"


def test_failures_that_left_the_window_count_no_more():
    rule = BreakerRule(failures=1000, rate=0.5, least=4, window=10)
    assert after(rule, "bbb" + "gggggggb", every=3.0)[0].phase == "closed"
    assert after(rule, "bbb" + "gb", every=1.0)[0].phase == "open"


def test_after_its_pause_it_lets_one_question_through_whose_answer_closes_it():
    breaker, now = after(BreakerRule(failures=1, pause=2.0), "b")
    breaker, probe = admit(breaker, now + 2.0)
    assert probe is not None
    assert admit(breaker, now + 50.0)[1] is None, "one at a time"
    closed = settle(breaker, probe, "good", now + 2.1)
    assert closed.phase == "closed"
    assert admit(closed, now + 2.1)[1] is not None


def test_each_failed_probe_doubles_the_pause_up_to_the_longest():
    breaker, now = after(BreakerRule(failures=1, pause=1.0, longest=5.0), "b")
    pauses = []
    for _ in range(5):
        now = breaker.until
        breaker, probe = admit(breaker, now)
        assert probe is not None
        breaker = settle(breaker, probe, "bad", now, why="again")
        pauses.append(breaker.until - now)
    assert pauses == pytest.approx([2.0, 4.0, 5.0, 5.0, 5.0])
    assert breaker.since == 0.01, "it has been open since the first failure"


def test_a_probe_that_nobody_waited_for_leaves_its_place_to_the_next():
    breaker, now = after(BreakerRule(failures=1), "b")
    breaker, probe = admit(breaker, now + 1.0)
    assert probe is not None
    breaker, following = admit(settle(breaker, probe, "void", now + 1.1), now + 1.2)
    assert following is not None


def test_what_was_asked_before_it_opened_says_nothing_afterwards():
    breaker = Breaker(BreakerRule(failures=1))
    breaker, early = admit(breaker, 0.0)
    breaker, late = admit(breaker, 0.0)
    assert early is not None
    assert late is not None
    opened = settle(breaker, early, "bad", 1.0)
    assert settle(opened, late, "good", 1.1) == opened
    trying, _ = admit(opened, 2.0)
    assert settle(trying, late, "good", 2.1) == trying


@given(rule=RULES, steps=STEPS)
def test_whatever_happens_it_lets_questions_through_again(rule: BreakerRule, steps: list):
    """Questions are asked and end in any order: no more than one while it tries, and never none for good."""
    breaker, now = Breaker(rule), 0.0
    under_way: list[Ticket] = []
    probes: set[int] = set()
    for wait, ask, outcome, which in steps:
        now += wait
        if ask:
            before = breaker
            breaker, ticket = admit(breaker, now)
            if before.phase == "closed":
                assert ticket is not None
            if ticket is not None:
                under_way.append(ticket)
                if breaker.phase == "trying":
                    assert ticket.turn not in probes, "a second question while one is trying"
                    probes.add(ticket.turn)
                    assert now >= before.until
        elif under_way:
            ticket = under_way.pop(which % len(under_way))
            breaker = settle(breaker, ticket, outcome, now, why="it failed")
        assert breaker.pause <= rule.longest
        assert breaker.phase != "open" or breaker.until <= now + rule.longest
    for ticket in under_way:
        breaker = settle(breaker, ticket, "void", now)
    breaker, ticket = admit(breaker, now + rule.longest)
    assert ticket is not None
    assert settle(breaker, ticket, "good", now + rule.longest).phase == "closed"


@given(rule=RULES, outcomes=st.lists(st.sampled_from(["good", "void"]), max_size=100))
def test_without_a_failure_it_never_opens(rule: BreakerRule, outcomes: list[Outcome]):
    breaker = Breaker(rule)
    for step, outcome in enumerate(outcomes):
        breaker, ticket = admit(breaker, step / 10)
        assert ticket is not None
        breaker = settle(breaker, ticket, outcome, step / 10)
        assert breaker.phase == "closed"


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"rate": 0.0}, {"rate": 1.1}, {"pause": 0.0}, {"longest": 0.5}])
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict):
    with pytest.raises(BadDefinition):
        BreakerRule(**wrong)
