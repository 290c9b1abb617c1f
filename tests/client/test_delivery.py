"""Feedback that the gateway could not take is delivered later: all of it, in order, without what it will never take."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from leaven.client import GatewayUnavailable, Refused, Report, SpoolFull
from leaven.client.requests import SentReport
from leaven.client.spool import Spool
from tests.client.servers import Got, Kinds, client, reply, rest, server, well

both = pytest.mark.parametrize("kind", Kinds)


class Away:
    """A gateway that is away until it is told to be back, and refuses every report whose unit is `poison`."""

    def __init__(self, *, back: bool = False, status: int = 503) -> None:
        self.back, self.status = back, status

    def __call__(self, stream: socket.socket, got: Got) -> None:
        if not self.back:
            stream.sendall(reply(self.status, {"error": "away"}))
        elif any(report.get("unit") == "poison" for report in got.json["feedback"]):
            stream.sendall(reply(400, {"error": f"one of {len(got.json['feedback'])} is bad"}))
        else:
            well(stream, got)
            self.kept = [*getattr(self, "kept", []), *got.json["feedback"]]


def until_empty(asked: Any) -> None:
    end = time.monotonic() + 60
    while asked.spooled:
        assert time.monotonic() < end
        rest(asked)


def reports(*units: str) -> list[Report]:
    return [Report(name="delay", unit=unit, value=1, id=f"{index}") for index, unit in enumerate(units)]


@both
@pytest.mark.parametrize("status", [500, 503])
def test_what_the_gateway_cannot_take_waits_and_is_delivered_in_the_background(kind: str, status: int, tmp_path: Path):
    away = Away(status=status)
    before = datetime.now(UTC).timestamp() * 1e6
    with server(away) as here, client(kind, here.url, spool=tmp_path, retries=0) as told:
        for number in range(5):
            assert told.feedback("flights", name="delay", unit="u", id=f"{number}") == f"{number}"
        after = datetime.now(UTC).timestamp() * 1e6
        assert told.spooled == 5
        away.back = True
        until_empty(told)
    assert [report["id"] for report in away.kept] == [f"{number}" for number in range(5)]
    assert all(before <= report["at"] <= after for report in away.kept)  # when it happened, not when it was delivered


@both
def test_nobody_waits_for_a_gateway_that_is_known_to_be_away(kind: str, tmp_path: Path):
    Spool(tmp_path, limit=10**6).append([SentReport("flights", "first", "delay", unit="u")])
    listening = socket.create_server(("127.0.0.1", 0))  # takes connections and never says a word
    with client(kind, f"http://127.0.0.1:{listening.getsockname()[1]}", spool=tmp_path, timeout=5) as told:
        began = time.monotonic()
        told.feedback("flights", name="delay", unit="u")
        assert time.monotonic() - began < 4
        assert told.spooled == 2
    listening.close()


@both
def test_what_another_process_left_is_delivered(kind: str, tmp_path: Path):
    Spool(tmp_path, limit=10**6).append([SentReport("flights", "left", "delay", unit="u", at=1)])
    away = Away(back=True)
    with server(away) as here, client(kind, here.url, spool=tmp_path) as told:
        told.feedback("flights", name="delay", unit="u", id="mine")
        told.flush()
        assert told.spooled == 0
    assert [report["id"] for report in away.kept] == ["left", "mine"]


@both
def test_poison_is_set_aside_with_its_reason_and_holds_up_nobody(kind: str, tmp_path: Path):
    away = Away()
    with server(away) as here, client(kind, here.url, spool=tmp_path, retries=0) as told:
        told.feedback_many("flights", reports("a", "poison", "c", "d", "poison", "f", "g"))
        away.back = True
        told.flush()
    assert [report["id"] for report in away.kept] == ["0", "2", "3", "5", "6"]
    aside = [json.loads(line) for line in (tmp_path / "rejected.ndjson").read_text().splitlines()]
    assert [(each["status"], each["reason"], each["report"]["id"]) for each in aside] == [
        (400, "one of 1 is bad", "1"), (400, "one of 1 is bad", "4"),
    ]  # fmt: skip


@both
def test_a_wrong_token_is_nobody_s_poison(kind: str, tmp_path: Path):
    Spool(tmp_path, limit=10**6).append([SentReport("flights", "a", "delay", unit="u")])
    with server(Away(status=401)) as here, client(kind, here.url, spool=tmp_path) as told:
        with pytest.raises(Refused, match="Give the client a token"):
            told.flush()
        assert told.spooled == 1
    assert not (tmp_path / "rejected.ndjson").exists()


@both
def test_a_refusal_is_told_to_who_made_the_report(kind: str, tmp_path: Path):
    with server(Away(back=True)) as here, client(kind, here.url, spool=tmp_path) as told:
        with pytest.raises(Refused):
            told.feedback("flights", name="delay", unit="poison")
        assert told.spooled == 0


@both
def test_without_a_spool_the_caller_is_told(kind: str):
    with server(Away()) as here, client(kind, here.url, retries=0) as told, pytest.raises(GatewayUnavailable):
        told.feedback("flights", name="delay", unit="u")


@both
def test_a_full_spool_is_told_to_the_caller(kind: str, tmp_path: Path):
    with (
        server(Away()) as here,
        client(kind, here.url, spool=tmp_path, spool_limit=200, retries=0) as told,
    ):
        told.feedback("flights", name="delay", unit="u")
        with pytest.raises(SpoolFull):
            told.feedback_many("flights", reports(*"abcdefgh"))
        assert told.spooled == 1


@both
def test_flush_says_when_it_cannot(kind: str, tmp_path: Path):
    with server(Away()) as here, client(kind, here.url, spool=tmp_path, retries=1) as told:
        told.feedback("flights", name="delay", unit="u")
        with pytest.raises(GatewayUnavailable):
            told.flush(timeout=0.3)
        assert told.spooled == 1


@both
def test_many_reports_go_in_parts_and_what_is_left_of_them_waits(kind: str, tmp_path: Path):
    """The gateway goes away between the second and the third thousand."""
    away = Away(back=True)

    def leave_after_two(stream: socket.socket, got: Got) -> None:
        away.back = away.back and got.nth != 2
        away(stream, got)

    with server(leave_after_two) as here, client(kind, here.url, spool=tmp_path, retries=0, timeout=60) as told:
        kept = told.feedback_many("flights", reports(*["u"] * 3_500))
        assert told.spooled == 1_500
        away.back = True
        told.flush()
    assert kept == [f"{number}" for number in range(3_500)]
    assert [report["id"] for report in away.kept] == kept
    assert max(len(got.json["feedback"]) for got in here.got) == 1_000


@both
def test_a_bad_report_among_many_is_found_before_anything_is_sent(kind: str, tmp_path: Path):
    bad = Report(name="delay", unit="b", value=float("inf"))
    with (
        server(Away(back=True)) as here,
        client(kind, here.url, spool=tmp_path) as told,
        pytest.raises(ValueError, match=r"reports\[1\].value"),
    ):
        told.feedback_many("flights", [*reports("a"), bad, *reports("c")])
    assert here.got == []
