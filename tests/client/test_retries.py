"""The decisions about another attempt, without a network: steps out, outcomes in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.client.errors import GatewayUnavailable
from leaven.client.http1 import Broken, Reply, Request
from leaven.client.retries import Asking, Backoff, Pause, Send, retry_after

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REQUEST = Request("POST", "/x", b"")
OK, BUSY = Reply(200, {}, b"{}"), Reply(503, {"retry-after": "1"}, b'{"error": "starting"}')


def played(
    outcomes: Sequence[Reply | Broken], *, retries: int = 3, within: float = 100.0, chance: float = 0.5
) -> tuple[Reply, list[Send], list[float]]:
    """The reply, what was sent, and the pauses; time passes only in pauses."""
    time = 0.0
    asking = Asking("http://gw", retries, Backoff(), lambda: time, lambda: NOW, lambda: chance)
    sent: list[Send] = []
    pauses: list[float] = []
    given_back = iter(outcomes)
    steps = asking.ask(REQUEST, deadline=within)
    result = None
    while True:
        try:
            step = steps.send(result)
        except StopIteration as end:
            return end.value, sent, pauses
        if isinstance(step, Send):
            sent.append(step)
            result = next(given_back)
        else:
            assert isinstance(step, Pause)
            pauses.append(step.seconds)
            time += step.seconds
            result = None


@pytest.mark.parametrize("passing", [Broken("refused"), *(Reply(s, {}, b"") for s in (408, 425, 429, 502, 503, 504))])
def test_what_may_pass_is_tried_again(passing: Reply | Broken):
    found, sent, pauses = played([passing, passing, OK])
    assert (found, len(sent), len(pauses)) == (OK, 3, 2)


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 413, 500, 501])
def test_an_answer_is_an_answer(status: int):
    found, sent, _ = played([Reply(status, {}, b"")])
    assert (found.status, len(sent)) == (status, 1)


def test_the_last_attempt_says_why_there_is_no_answer():
    with pytest.raises(GatewayUnavailable) as failed:
        played([Broken("refused"), BUSY], retries=1)
    assert (failed.value.attempts, failed.value.retry_after) == (2, 1.0)
    assert "503, starting" in str(failed.value)


def test_without_retries_there_is_one_attempt():
    with pytest.raises(GatewayUnavailable, match="in 1 attempt: refused"):
        played([Broken("refused")], retries=0)


def test_a_kept_connection_that_was_closed_costs_neither_pause_nor_attempt():
    found, sent, pauses = played([Broken("closed", stale=True), OK], retries=0)
    assert (found, pauses) == (OK, [])
    assert [step.fresh for step in sent] == [False, True]


def test_what_the_server_asks_for_is_waited_and_a_little_more():
    _, _, pauses = played([BUSY, OK], chance=0.5)
    assert pauses == [1.0 + 0.5 * 0.05]


def test_nobody_waits_for_what_cannot_come_in_time():
    with pytest.raises(GatewayUnavailable) as failed:
        played([BUSY], within=0.9)
    assert failed.value.attempts == 1


@given(attempt=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True), told=st.none() | st.floats(0, 1e6))
def test_a_pause_is_within_its_bounds(attempt: int, chance: float, told: float | None):
    pause = Backoff(base=0.1, cap=2.0).pause(attempt, chance=chance, told=told)
    assert (told or 0) <= pause <= (told or 0) + min(2.0, 0.1 * 2.0 ** min(attempt, 10))


@given(
    outcomes=st.lists(st.sampled_from([Broken("no"), Broken("closed", stale=True), BUSY]), max_size=30),
    retries=st.integers(0, 5),
    within=st.floats(0.01, 5),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_call_is_bounded_in_attempts_and_pauses(
    outcomes: list[Reply | Broken], retries: int, within: float, chance: float
):
    attempts, waited = retries + 1, 0.0
    try:
        _, sent, pauses = played([*outcomes, *[OK] * 40], retries=retries, within=within, chance=chance)
        attempts, waited = len([step for step in sent if not step.fresh]), sum(pauses)
    except GatewayUnavailable as failed:
        attempts = failed.attempts
    assert 1 <= attempts <= retries + 1
    assert waited < within


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT", "date": "Sun, 01 Mar 2026 12:00:20 GMT"}, 10.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "٣"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None):
    assert retry_after(Reply(503, headers, b""), NOW) == seconds
