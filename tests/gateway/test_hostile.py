"""No input hurts the gateway: it is refused with the right status, in bounded memory and time, and others are served.

After the categories of Triton's own hostile-input tests. What a body says wrongly is in test_wire.py and
test_conformance.py; here it is how bytes arrive.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from leaven.learners.artifact import ModelArtifact
from tests.gateway.installations import RunningGateway, a_flight, gateway_on, installation_in
from tests.gateway.traffic import wait_until

MB = 2**20
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = json.dumps(a_flight()).encode()
INFER = b"POST /v2/models/flights/infer HTTP/1.1\r\nHost: x\r\n"
ASK = INFER + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = INFER + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, artifacts_made: Mapping[str, ModelArtifact]
) -> Iterator[RunningGateway]:
    with installation_in(tmp_path_factory.mktemp("hostile"), artifacts_made) as installation:
        installation.publish(champion="1")
        with gateway_on(installation.settings) as running:
            running.until_revision(1)
            yield running


@pytest.fixture(autouse=True)
def unhurt(gateway: RunningGateway) -> Iterator[None]:
    """The worker is the same before and after, soon holds no more memory to speak of, answers, and never said 500."""
    (worker,) = gateway.workers
    before = worker.memory_info().rss
    yield
    assert [each.pid for each in gateway.workers] == [worker.pid]
    assert gateway.infer(a_flight()).status == 200
    assert "500" not in gateway.status()["requests"]
    # A body of 64 MB may be held, once as it came and once unpacked, and the allocator may keep some of it.
    wait_until(lambda: worker.memory_info().rss - before < 250 * MB)


def connect(gateway: RunningGateway) -> socket.socket:
    host, port = gateway.address.split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def exchange(gateway: RunningGateway, pieces: bytes | Iterable[bytes], *, close: bool = False) -> bytes:
    """Send, and return everything that comes back until the other side closes, or has been silent for a while."""
    with connect(gateway) as caller:
        with suppress(ConnectionError):
            for piece in [pieces] if isinstance(pieces, bytes) else pieces:
                caller.sendall(piece)
            if close:
                caller.shutdown(socket.SHUT_WR)
        return read_all(caller)


def read_all(caller: socket.socket, *, quiet: float = 30.0) -> bytes:
    said = b""
    caller.settimeout(60)
    with suppress(TimeoutError, ConnectionError):
        while piece := caller.recv(65536):
            said += piece
            caller.settimeout(quiet)
    return said


def statuses(said: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def refused_with(said: bytes) -> int:
    """The status of the one reply, which explains itself."""
    (status,) = statuses(said)
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower(), head
    assert len(json.loads(body)["error"]) > 20
    return status


@contextmanager
def others_served(gateway: RunningGateway, *, within: float = 30.0) -> Iterator[None]:
    """Meanwhile somebody else asks, and each time has the answer soon."""
    waits: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            began = time.monotonic()
            assert gateway.infer(a_flight()).status == 200
            waits.append(time.monotonic() - began)
            stop.wait(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join(90)
    assert waits, "nobody was answered"
    assert max(waits) < within


# --- what is no HTTP ---


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # the beginning of TLS
        b"\0" * 4096,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        b"GET /v2/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_garbage_is_refused(gateway: RunningGateway, garbage: bytes):
    assert refused_with(exchange(gateway, garbage)) == 400


def test_garbage_at_random_is_refused_or_ignored(gateway: RunningGateway):
    rng = random.Random(7)
    for _ in range(60):
        said = exchange(gateway, rng.randbytes(rng.randrange(1, 2000)) + b"\r\n\r\n", close=True)
        assert all(status in (400, 404, 405) for status in statuses(said))


def test_garbage_behind_requests_is_refused_after_their_replies(gateway: RunningGateway):
    assert statuses(exchange(gateway, ASK * 3 + b"\0\0\0\r\n\r\n")) == [200, 200, 200, 400]


def test_http_1_0_is_answered_and_closed(gateway: RunningGateway):
    said = exchange(gateway, ASK.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert statuses(said) == [200]
    assert b"connection: close" in said


def test_another_protocol_is_not_spoken(gateway: RunningGateway):
    upgrade = LIVE.replace(b"Host: x", b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket")
    assert statuses(exchange(gateway, upgrade, close=True)) == [200]


# --- heads ---


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 2_000_000, 414),
        (b"GET /v2?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 2_000_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"a" * 2_000_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300_000, 431),
    ],
)
def test_a_head_that_is_too_long_is_refused(gateway: RunningGateway, head: bytes, status: int):
    assert refused_with(exchange(gateway, head)) == status


def test_callers_that_dawdle_with_the_head_are_told_and_cost_the_others_nothing(gateway: RunningGateway):
    """Two hundred at once: some send a byte now and then, some empty lines, some nothing after a good request."""
    with ExitStack() as open_ones, others_served(gateway):
        callers = [open_ones.enter_context(connect(gateway)) for _ in range(200)]
        for number, caller in enumerate(callers):
            caller.sendall((b"GET /v2 HTTP/1.1\r\n", b"\r\n\r\n", LIVE + b"GET /")[number % 3])
        end = time.monotonic() + 9
        while time.monotonic() < end:
            for number, caller in enumerate(callers):
                with suppress(ConnectionError):
                    caller.sendall((b"a", b"\r\n", b"a")[number % 3])
            time.sleep(1)
        for number, caller in enumerate(callers):
            said = statuses(read_all(caller, quiet=30))
            assert said == ([408], [], [200, 408])[number % 3]


def test_connections_beyond_the_bound_are_told(gateway: RunningGateway):
    """Each end needs a file, so that this is tried below what a process may open here."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    (worker,) = gateway.workers
    bound = max(64, min(4096, worker.rlimit(resource.RLIMIT_NOFILE)[0] - 256))
    if hard < bound + 500:
        pytest.skip(f"this process may open {hard} files, and {bound + 500} are needed")
    try:
        with ExitStack() as open_ones:
            for _ in range(bound):
                open_ones.enter_context(connect(gateway))
            said = exchange(gateway, LIVE)
            assert refused_with(said) == 503
            assert b"retry-after" in said
        gateway_answers(gateway)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def gateway_answers(gateway: RunningGateway) -> None:
    end = time.monotonic() + 60
    while gateway.ask("GET", "/v2/health/live").status != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


# --- bodies ---


@pytest.mark.parametrize(
    "flood",
    [
        lambda: b"1\r\nx\r\n" * 500_000,  # nothing but framing
        lambda: b"1;" + b"a" * 3_000_000,  # an extension without end
        lambda: b"0" * 3_000_000,  # a length without end
        lambda: b"0\r\n" + b"a: b\r\n" * 500_000,  # trailers
        lambda: b"0\r\na: " + b"b" * 3_000_000,  # one trailer
        lambda: b"ffffffffffffffffffff\r\nx\r\n",  # more than there is
        lambda: b"-1\r\nx\r\n",
        lambda: b"zz\r\nx\r\n",
        lambda: b"1\r\nxy\r\n",
    ],
)
def test_floods_of_chunks_are_refused(gateway: RunningGateway, flood: Callable[[], bytes]):
    with others_served(gateway):
        assert refused_with(exchange(gateway, CHUNKED + flood())) == 400


def test_many_small_chunks_of_an_honest_body_are_answered(gateway: RunningGateway):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[i : i + 3] for i in range(0, len(BODY), 3)))
    assert statuses(exchange(gateway, CHUNKED + chunks + b"0\r\nx-trailer: 1\r\n\r\n", close=True)) == [200]


@pytest.mark.slow  # 140 MB through one connection; JSON and bombs beyond their limits are below
def test_a_body_longer_than_the_limit_is_refused_whether_it_says_so_or_not(gateway: RunningGateway):
    with others_served(gateway):
        said = exchange(gateway, (INFER + b"Content-Length: %d\r\n\r\n" % (70 * MB), *[b" " * MB] * 70))
        assert refused_with(said) == 413
        said = exchange(gateway, (CHUNKED, *[b"100000\r\n" + b" " * MB + b"\r\n"] * 70))
        assert refused_with(said) == 413


def test_json_beyond_its_own_limit_is_to_be_sent_as_binary_data(gateway: RunningGateway):
    reply = gateway.ask("POST", "/v2/models/flights/infer", b" " * (17 * MB) + BODY)
    assert (reply.status, "JSON" in reply.json["error"]) == (413, True)


@pytest.mark.parametrize("path", ["/v2/models/flights/infer", "/v1/models/flights/predict", "/v1/feedback"])
def test_bodies_that_unpack_to_far_more_are_refused_in_bounded_memory(gateway: RunningGateway, path: str):
    bomb = gzip.compress(b" " * (200 * MB), 9)
    assert len(bomb) < MB
    with others_served(gateway):
        replies: list[int] = []
        askers = [
            threading.Thread(
                target=lambda: replies.append(gateway.ask("POST", path, bomb, Content_Encoding="gzip").status)
            )
            for _ in range(8)
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(90)
    assert len(replies) == 8
    assert set(replies) <= {413, 503}  # 503: those that unpack at that moment take all the room
    assert 413 in replies


def test_many_large_bodies_at_once_do_not_take_all_the_memory(gateway: RunningGateway):
    """Thirty callers announce 60 MB each, send half, and wait: there is room for some, the others are told."""
    (worker,) = gateway.workers
    before = worker.memory_info().rss
    with ExitStack() as open_ones:
        callers = [open_ones.enter_context(connect(gateway)) for _ in range(30)]
        for caller in callers:
            caller.sendall(INFER + b"Content-Length: %d\r\n\r\n" % (60 * MB))
            with suppress(ConnectionError, TimeoutError):
                for _ in range(30):
                    caller.sendall(b" " * MB)
        held = worker.memory_info().rss - before
        assert held < 600 * MB  # of the 900 that were sent
        assert gateway.infer(a_flight()).status == 200
    gateway.until(lambda status: status["requests_under_way"] <= 1)


def test_json_nested_without_end_is_refused(gateway: RunningGateway):
    with others_served(gateway):
        for opening in (b"[" * (4 * MB), b'{"a":' * MB, b'{"inputs":[' * (MB // 2), b'{"rows":[[' * (MB // 2)):
            for path in ("/v2/models/flights/infer", "/v1/models/flights/predict", "/v1/feedback", "/v1/assign"):
                assert gateway.ask("POST", path, opening).status == 400


@pytest.mark.slow
def test_callers_that_dawdle_with_the_body_are_told(gateway: RunningGateway):
    with ExitStack() as open_ones, others_served(gateway):
        callers = [open_ones.enter_context(connect(gateway)) for _ in range(100)]
        for caller in callers:
            caller.sendall(INFER + b"Content-Length: 1000000\r\n\r\n")
        end = time.monotonic() + 33
        while time.monotonic() < end:
            for caller in callers:
                with suppress(ConnectionError):
                    caller.sendall(b" ")
            time.sleep(1)
        assert all(statuses(read_all(caller)) == [408] for caller in callers)


# --- connections ---


@pytest.mark.parametrize(("request_bytes", "count"), [(LIVE, 5000), (ASK, 400)])
def test_pipelined_requests_are_answered_in_turn_however_many(gateway, request_bytes: bytes, count: int):
    with others_served(gateway):
        said = exchange(gateway, request_bytes * count, close=True)
    assert statuses(said) == [200] * count


def test_pipelined_requests_whose_replies_nobody_reads_do_not_pile_up(gateway: RunningGateway):
    with connect(gateway) as caller, others_served(gateway):
        caller.settimeout(1.0)
        sent = 0
        with suppress(TimeoutError):
            while sent < 200 * MB:
                sent += caller.send(LIVE * 2000)
        assert sent < 100 * MB  # it is not read further than it is answered


def test_a_caller_that_has_closed_its_side_gets_its_replies(gateway: RunningGateway):
    assert statuses(exchange(gateway, ASK * 2, close=True)) == [200, 200]
    assert statuses(exchange(gateway, INFER + b"Content-Length: 100\r\n\r\n{", close=True)) == []


def test_callers_that_go_away_at_any_moment_leave_nothing_behind(gateway: RunningGateway):
    rng = random.Random(3)
    with others_served(gateway):
        for _ in range(150):
            with connect(gateway) as caller:
                caller.sendall(ASK[: rng.randrange(1, len(ASK) + 1)])
                if rng.random() < 0.5:  # with a reset
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    gateway.until(lambda status: status["requests_under_way"] <= 1)


def test_a_body_that_nobody_wanted_does_not_hold_the_connection(gateway: RunningGateway):
    with connect(gateway) as caller:
        caller.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
        began = time.monotonic()
        assert statuses(read_all(caller)) == [200]
        assert time.monotonic() - began < 25


def test_a_connection_goes_on_after_a_refusal_that_it_survived(gateway: RunningGateway):
    bad: Any = INFER + b"Content-Length: 2\r\n\r\n{}"
    assert statuses(exchange(gateway, bad + ASK, close=True)) == [400, 200]


def test_refusals_reach_callers_over_tls_as_well(tmp_path: Path, artifacts_made: Mapping[str, ModelArtifact]):
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with installation_in(tmp_path, {"1": artifacts_made["1"]}) as installation:
        installation.publish(champion="1")
        settings = replace(installation.settings, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
        with gateway_on(settings, context=context) as gateway:
            host, port = gateway.address.split(":")
            for hostile, status in ((b"\0" * 99, 400), (b"GET / HTTP/1.1\r\nHost: " + b"a" * 200_000, 431)):
                with (
                    socket.create_connection((host, int(port)), timeout=60) as plain,
                    context.wrap_socket(plain, server_hostname="127.0.0.1") as caller,
                ):
                    caller.sendall(hostile)
                    assert refused_with(read_all(caller)) == status
            assert gateway.infer(a_flight()).status == 200
