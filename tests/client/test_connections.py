"""Both clients against a real server that closes, resets, dawdles, and says what nobody asked."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from leaven.client import (
    Assignment,
    AsyncClient,
    BadCall,
    Client,
    GatewayUnavailable,
    Prediction,
    Refused,
    UnreadableReply,
)
from tests.client.servers import Got, Kinds, client, done, no_sleep, reply, reset, rest, server, well

ROW = {"x": 1.0}
both = pytest.mark.parametrize("kind", Kinds)


@both
def test_a_call_says_what_it_was_asked_to(kind: str):
    with server(well) as here, client(kind, here.url + "/ml/", token="secret-1") as asked:
        assert asked.predict("flights", ROW, unit="N1", key="k1") == Prediction("p0", 0.25, "3", "champion", 1.0)
        assert [each.id for each in asked.predict_many("flights", [ROW, ROW], units=["a", "b"])] == ["p0", "p1"]
        assert asked.assign("flights", "N1") == Assignment("flights", "N1", "canary", "4", 0.5, 7)
        assert asked.feedback("flights", name="delay", prediction_id="p0", value=3, id="f1") == "f1"
    first = here.got[0]
    assert first.line == "POST /ml/v1/models/flights/predict HTTP/1.1"
    assert first.headers["authorization"] == "Bearer secret-1"
    assert first.headers["idempotency-key"] == "k1"
    assert first.json == {"rows": [ROW], "unit": "N1"}
    assert here.connections == 1  # kept alive


@both
def test_no_rows_are_no_request(kind: str):
    with server(well) as here, client(kind, here.url) as asked:
        assert asked.predict_many("flights", []) == []
    assert not here.got


@both
@pytest.mark.parametrize("half", [False, True])
def test_a_kept_connection_that_the_server_closed_is_not_noticed_by_the_caller(kind: str, half: bool):
    """Closed after the reply, while idle: the next call finds out before it sends."""

    def answer_and_leave(stream: socket.socket, got: Got) -> bool:
        well(stream, got)
        if half:
            stream.shutdown(socket.SHUT_WR)
        return half

    with server(answer_and_leave) as here, client(kind, here.url, retries=0) as asked:
        for _ in range(5):
            asked.predict("flights", ROW)
            rest(asked, here=here)
    assert (len(here.got), here.connections) == (5, 5)


@both
@pytest.mark.parametrize("rude", [True, False])
def test_a_kept_connection_that_closes_while_a_request_is_on_its_way_is_replaced_at_once(kind: str, rude: bool):
    """The race that no look beforehand can win: the server closes when it reads the second request."""

    def answer_the_first(stream: socket.socket, got: Got) -> bool:
        if got.nth in seen:  # the first on its connection
            well(stream, got)
            return True
        (reset if rude else socket.socket.close)(stream)
        return False

    seen = {0, 2}
    slept: list[float] = []
    with server(answer_the_first) as here, client(kind, here.url, retries=0, sleep=no_sleep(kind, slept)) as asked:
        asked.predict("flights", ROW, key="a")
        asked.predict("flights", ROW, key="b")
    assert [got.headers["idempotency-key"] for got in here.got] == ["a", "b", "b"]
    assert (slept, here.connections) == ([], 2)


@both
def test_a_connection_that_breaks_in_the_middle_of_a_reply_is_tried_again_under_the_same_key(kind: str):
    def break_once(stream: socket.socket, got: Got) -> bool:
        stream.sendall(done(got)[: 30 if got.nth == 0 else None])
        return got.nth > 0

    slept: list[float] = []
    with server(break_once) as here, client(kind, here.url, sleep=no_sleep(kind, slept)) as asked:
        assert asked.predict("flights", ROW).id == "p0"
    assert len({got.headers["idempotency-key"] for got in here.got}) == 1
    assert (len(here.got), len(slept)) == (2, 1)


@both
def test_retry_after_is_honoured(kind: str):
    def busy_once(stream: socket.socket, got: Got) -> None:
        stream.sendall(reply(429, {"error": "too many"}, retry_after="1") if got.nth == 0 else done(got))

    slept: list[float] = []
    with server(busy_once) as here, client(kind, here.url, sleep=no_sleep(kind, slept), timeout=30) as asked:
        asked.predict("flights", ROW)
    assert len(slept) == 1
    assert 1.0 <= slept[0] <= 1.05
    assert here.connections == 1


@both
def test_a_refusal_carries_the_gateway_s_words(kind: str):
    def refuse(stream: socket.socket, got: Got) -> None:
        stream.sendall(reply(400, {"error": "feature 'x': it is late"}))

    with server(refuse) as here, client(kind, here.url) as asked, pytest.raises(Refused) as refused:
        asked.predict("flights", ROW)
    assert (refused.value.status, refused.value.error) == (400, "feature 'x': it is late")
    assert len(here.got) == 1


@both
@pytest.mark.parametrize(
    ("body", "says"),
    [(b"<html>", "malformed"), (b'{"predictions": []}', "0 predictions for 1 rows"), (b"{}", "predictions")],
)
def test_somebody_else_s_reply_is_called_that(kind: str, body: bytes, says: str):
    with (
        server(lambda stream, got: stream.sendall(reply(200, body))) as here,
        client(kind, here.url) as asked,
        pytest.raises(UnreadableReply, match=says),
    ):
        asked.predict("flights", ROW)


@both
def test_a_server_that_dawdles_cannot_hold_a_call_beyond_its_time(kind: str):
    """A byte now and then resets a time limit per read, but not the call's."""

    def drip(stream: socket.socket, got: Got) -> None:
        for byte in done(got):
            stream.sendall(bytes([byte]))
            time.sleep(0.5)

    with server(drip) as here, client(kind, here.url) as asked:
        began = time.monotonic()
        with pytest.raises(GatewayUnavailable, match="did not answer in time"):
            asked.predict("flights", ROW, timeout=1.0)
        assert time.monotonic() - began < 30  # the whole reply would have taken two minutes
        assert len(here.got) == 1


@both
def test_nobody_there_is_a_clear_error(kind: str, free_port: Any):
    with (
        client(kind, f"http://127.0.0.1:{free_port()}", timeout=30, sleep=no_sleep(kind, [])) as asked,
        pytest.raises(GatewayUnavailable) as error,
    ):
        asked.predict("flights", ROW)
    assert "no connection" in str(error.value)
    assert error.value.attempts >= 2


@both
def test_an_early_no_to_a_large_body_is_heard(kind: str):
    """The server answers 413 when it has seen the head, and closes with the body unread."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer_early() -> None:
        stream, _ = listening.accept()
        stream.recv(2000)
        stream.sendall(reply(413, {"error": "too much"}, connection="close"))
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(2**20):
            pass
        stream.close()

    thread = threading.Thread(target=answer_early)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with client(kind, url, retries=0, timeout=60) as asked, pytest.raises(Refused) as refused:
        asked.predict_many("flights", [{"x": "y" * 1000}] * 5_000)
    assert refused.value.status == 413
    thread.join()
    listening.close()


@both
def test_a_reply_nobody_asked_for_ends_the_connection(kind: str):
    """Else the next call would get it: the wrong answer to somebody's question."""

    def answer_twice(stream: socket.socket, got: Got) -> None:
        well(stream, got)
        well(stream, got)

    with server(answer_twice) as here, client(kind, here.url) as asked:
        for _ in range(3):
            asked.predict("flights", ROW)
            rest(asked, here=here)
    assert here.connections == 3


@both
def test_tls_is_verified(kind: str, tmp_path: Path):
    authority, other = trustme.CA(), trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    with server(well, tls=theirs) as here:
        with client(kind, here.url, ca=tmp_path / "ca.pem", timeout=60) as asked:
            for _ in range(3):
                assert asked.predict("flights", ROW).id == "p0"
        assert here.connections == 1
        for ca in (tmp_path / "other.pem", None):
            with (
                client(kind, here.url, ca=ca, retries=0, timeout=60) as asked,
                pytest.raises(GatewayUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
            ):
                asked.predict("flights", ROW)


@both
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": 0}, "timeout: 0 s is no time"),
        ({"retries": -1}, "retries: -1 is negative"),
        ({"token": "a\r\nhost: b"}, "token: "),
        ({"ca": "nowhere.pem"}, "ca: "),
    ],
)
def test_a_client_that_could_not_work_is_not_made(kind: str, options: Any, says: str):
    with pytest.raises(BadCall) as refused:
        client(kind, "https://127.0.0.1" if "ca" in options else "http://127.0.0.1", **options)
    assert str(refused.value).startswith(says)


@both
def test_a_closed_client_says_so(kind: str):
    with client(kind, "http://127.0.0.1:1") as asked:
        asked.close()
        with pytest.raises(BadCall, match="it is closed"):
            asked.predict("flights", ROW)


def test_sixteen_threads_share_a_client_and_each_gets_its_own_answer():
    def echo(stream: socket.socket, got: Got) -> bool:
        one = {"prediction_id": got.json["unit"], "answer": 0.5, "version": "1", "arm": "champion", "propensity": 1.0}
        if got.nth % 50 == 49:
            return False
        stream.sendall(reply(200, {"predictions": [one]}))
        return True

    wrong: list[str] = []
    with server(echo) as here, Client(here.url, timeout=60, connections=8, retries=10) as shared:

        def ask(number: int) -> None:
            for turn in range(60):
                unit = f"{number}-{turn}"
                if shared.predict("flights", ROW, unit=unit).id != unit:
                    wrong.append(unit)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(here.got) >= 16 * 60


def test_calls_beyond_the_connections_wait_for_one_and_no_longer_than_they_may():
    release = threading.Event()

    def hold(stream: socket.socket, got: Got) -> None:
        release.wait(120)
        well(stream, got)

    with server(hold) as here, Client(here.url, connections=1, timeout=60) as shared:
        first = threading.Thread(target=shared.predict, args=("flights", ROW))
        first.start()
        while not here.got:
            time.sleep(0.01)
        with pytest.raises(GatewayUnavailable, match="all 1 connections of this client were in use"):
            shared.predict("flights", ROW, timeout=0.1)
        release.set()
        first.join()
        shared.predict("flights", ROW)
        assert here.connections == 1


def test_a_cancelled_call_leaves_no_connection_behind_and_takes_nobody_s_answer():
    release = threading.Event()

    def hold_the_first(stream: socket.socket, got: Got) -> None:
        if got.nth == 1:
            release.wait(120)
        well(stream, got)

    async def story(url: str) -> None:
        async with AsyncClient(url, timeout=60, connections=1) as asked:
            await asked.predict("flights", ROW)
            task = asyncio.create_task(asked.predict("flights", ROW))
            while len(here.got) < 2:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            release.set()
            assert (await asked.assign("flights", "u")).arm == "canary"  # not the reply of the cancelled one
            gathered = await asyncio.gather(*(asked.assign("flights", f"u{i}") for i in range(20)))
            assert [each.unit for each in gathered] == [f"u{i}" for i in range(20)]

    with server(hold_the_first) as here:
        asyncio.run(story(here.url))
    assert here.connections == 2
    gc.collect()  # what was left unclosed would warn here, and warnings are errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_makes_connections_of_its_own():
    """In a process of its own: pytest's threads are not to be forked. The parent's lock is held while it forks."""
    program = """
        import os, sys, threading
        from leaven import Client
        client = Client(sys.argv[1], timeout=60)
        assert client.predict("flights", {"x": 1}).id == "p0"
        client._pool._lock.acquire()
        child = os.fork()
        if child == 0:
            os._exit(0 if client.predict("flights", {"x": 1}).id == "p0" else 1)
        client._pool._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.predict("flights", {"x": 1}).id == "p0"
        client.close()
    """
    with server(well) as here:
        subprocess.run([sys.executable, "-c", textwrap.dedent(program), here.url], check=True, timeout=120)
    assert [got.connection for got in here.got] == [0, 1, 0]


def test_the_environment_says_where_the_gateway_is(tmp_path: Path):
    with server(well) as here:
        told = {"LEAVEN_GATEWAY": here.url, "LEAVEN_TOKEN": "t", "LEAVEN_SPOOL": str(tmp_path / "spool")}
        with Client.from_environment(told) as asked:
            asked.assign("flights", "u")
    assert here.got[0].headers["authorization"] == "Bearer t"
    assert (tmp_path / "spool").is_dir()


def test_importing_the_client_imports_neither_asyncio_nor_numpy_nor_the_loop():
    program = "from leaven import Client; import sys; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    loaded = set(said.stdout.split())
    assert "leaven.client.sync" in loaded
    assert not loaded & {
        "asyncio",
        "ssl",
        "numpy",
        "logging",
        "http.client",
        "leaven.loop",
        "leaven.events",
        "leaven.settings",
    }
