"""Servers that answer, and servers that do everything else: each is an answer or a failure with a reason, in time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from leaven.endpoints.asking import Asking
from leaven.endpoints.description import Endpoint, Header
from leaven.endpoints.failures import EndpointFailed
from leaven.endpoints.model import EndpointModel
from tests.endpoints.servers import (
    Answer,
    Asked,
    Reply,
    Writer,
    an_endpoint,
    doubles,
    http,
    outputs,
    says,
    serving,
    x_mapping,
)

ROWS = {"x": np.array([1.0, 2.0])}


def run(endpoint: Endpoint, work: Callable[[Asking], Awaitable[Any]], **variables: str) -> Any:
    """Work with what asks the endpoint, on the gateway's own kind of event loop."""

    async def awaited() -> Any:
        asking = Asking(endpoint, variable=variables.get, timer=time.monotonic)
        try:
            return await work(asking)
        finally:
            asking.pool.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(awaited())


def ask(endpoint: Endpoint, *, times: int = 1, columns: Any = None, seconds: float = 30.0) -> list[Any]:
    """Ask one after the other over one pool: answers, or failures."""

    async def all_of_them(asking: Asking) -> list[Any]:
        said, rows = list[Any](), ROWS if columns is None else columns
        for _ in range(times):
            try:
                said.append((await asking.answers(rows, len(rows["x"]), seconds=seconds)).tolist())
            except EndpointFailed as failed:
                said.append(failed)
        return said

    return run(endpoint, all_of_them)


def test_questions_one_after_the_other_share_a_connection():
    with serving(doubles) as server:
        assert ask(an_endpoint(server.url), times=5) == [[2.0, 4.0]] * 5
        assert server.counts["connections"] == 1
        assert {asked.path for asked in server.asked} == {"/v2/models/m/infer"}


def test_no_more_are_under_way_than_it_may_have_and_no_more_wait():
    most = now = came = 0

    async def slowly(asked: Asked, writer: Writer) -> Reply:
        nonlocal most, now, came
        now, came = now + 1, came + 1
        most = max(most, now)
        while now < 3 and came < 7:  # company comes as long as there is some
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)  # time for more than there may be
        now -= 1
        return http(outputs([1.0, 1.0]))

    async def many(asking: Asking) -> list[Any]:
        questions = (asking.answers(ROWS, 2, seconds=60) for _ in range(12))
        return await asyncio.gather(*questions, return_exceptions=True)

    with serving(slowly) as server:
        said = run(an_endpoint(server.url, at_once=3, waiting=5), many)
    assert (most, server.counts["connections"]) == (3, 3)
    refused = [each for each in said if isinstance(each, EndpointFailed)]
    assert (len(refused), {each.reason for each in refused}) == (4, {"busy"})


def test_many_rows_go_in_several_requests():
    with serving(doubles) as server:
        xs = np.arange(250.0)
        (said,) = ask(an_endpoint(server.url, rows=100), columns={"x": xs})
        assert said == (2 * xs).tolist()
        assert sorted(asked.rows for asked in server.asked) == [50, 100, 100]


async def drips(asked: Asked, writer: Writer) -> Reply:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await asyncio.sleep(0.02)


async def hangs(asked: Asked, writer: Writer) -> Reply:
    await asyncio.sleep(60)
    return None


async def half_closes(asked: Asked, writer: Writer) -> Reply:
    writer.write(http(outputs([2.0, 4.0]))[:-10])
    writer.write_eof()
    await asyncio.sleep(60)
    return None


async def floods(asked: Asked, writer: Writer) -> Reply:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def floods_headers(asked: Asked, writer: Writer) -> Reply:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-a: " + b"b" * 8192 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "reason", "text"),
    [
        (hangs, "too slow", "did not answer within 0.4 s"),
        (drips, "too slow", "did not answer within 0.4 s"),
        (says(None), "broken off", ""),
        (half_closes, "broken off", "before its reply was whole"),
        (floods, "no answer", "bytes came back"),
        (floods_headers, "no answer", ""),
        (says(b"\x16\x03\x01 what is this\r\n\r\n"), "no answer", "is no HTTP"),
        (says(http("", "302 Found", location="http://elsewhere/")), "no answer", "a redirect to 'http://elsewhere/'"),
        (says(http('{"error": "out of memory"}', "500 Oops")), "server error", "answered 500: out of memory"),
        (says(http("<html>busy</html>", "503 No")), "server error", "answered 503: <html>busy</html>"),
        (says(http("", "429 Slow down")), "server error", "answered 429"),
        (says(http('{"error": "no such\\u0007 input"}', "400 Bad")), "refused", "answered 400: no such input"),
        (says(http("[" * 100_000)), "no answer", ""),
        (says(http("{}")), "no answer", "no reply of the protocol"),
        (says(http("{", "204 No")), "no answer", ""),
        (says(http(outputs([1.0]))), "no answer", "shape [1] to 2 rows"),
        (says(http(outputs([1.0, 2.0, 3.0], shape=[2]))), "no answer", "3 numbers in shape [2]"),
        (says(http(outputs([1.0] * 4, shape=[2, 2]))), "no answer", "2 numbers per row"),
        (says(http(outputs([1.0] * 2, shape=[-2, -1]))), "no answer", "shape [-2, -1]"),
        (says(http(outputs(["1", "2"]))), "no answer", "'1', which is no number"),
        (says(http(outputs([[1.0], [2.0, 3.0]], shape=[2]))), "no answer", "different lengths"),
        (says(http(outputs(["a", "b"], datatype="BYTES"))), "no answer", "BYTES, which are no numbers"),
        (says(http(outputs([1.0, float("nan")]))), "no answer", "no reply of the protocol"),
        (says(http(outputs([1.0, 2.0]), content_encoding="gzip")), "no answer", "packed"),
        (says(http(outputs([1.0, 2.0]), inference_header_content_length="9999")), "no answer", "are JSON"),
    ],
)  # fmt: skip
def test_whatever_else_it_does_is_a_failure_with_its_reason_in_time(answer: Answer, reason: str, text: str):
    # Only who waits for nothing is given little time: on a busy machine an answer may take its own.
    allowed = 0.4 if reason == "too slow" else 30.0
    with serving(answer) as server:
        began = time.monotonic()
        (failed,) = ask(an_endpoint(server.url), seconds=allowed)
    assert time.monotonic() - began < allowed + 15
    assert isinstance(failed, EndpointFailed), failed
    assert (failed.reason, text in str(failed)) == (reason, True), str(failed)
    assert len(str(failed)) < 500


def test_null_is_an_answer_that_is_no_number():
    with serving(says(http(outputs([1.0, None])))) as server:
        (said,) = ask(an_endpoint(server.url))
    assert said[0] == 1.0
    assert np.isnan(said[1])


def test_nobody_there_is_a_failure_to_connect():
    with serving(doubles) as server:
        gone = server.url
    (failed,) = ask(an_endpoint(gone))
    assert (failed.reason, "takes no connection" in str(failed)) == ("no connection", True)


def test_a_kept_connection_found_closed_is_replaced_and_the_question_asked_again():
    async def once(asked: Asked, writer: Writer) -> Reply:
        writer.write(http(outputs([2.0, 4.0])))
        return None  # closed, without having said so

    with serving(once) as server:
        assert ask(an_endpoint(server.url), times=4) == [[2.0, 4.0]] * 4
        assert server.counts["connections"] == 4


def test_a_kept_connection_that_breaks_under_the_request_is_asked_once_more():
    async def second_breaks(asked: Asked, writer: Writer) -> Reply:
        return None if len(server.asked) == 2 else http(outputs([2.0, 4.0]))

    with serving(second_breaks) as server:
        assert ask(an_endpoint(server.url), times=2) == [[2.0, 4.0]] * 2
        assert len(server.asked) == 3


def test_a_new_connection_that_breaks_is_not_asked_twice():
    with serving(says(None)) as server:
        (failed,) = ask(an_endpoint(server.url))
        assert (failed.reason, len(server.asked)) == ("broken off", 1)


def test_after_the_first_byte_of_a_reply_nothing_is_asked_again():
    async def second_breaks(asked: Asked, writer: Writer) -> Reply:
        if len(server.asked) < 2:
            return http(outputs([2.0, 4.0]))
        writer.write(b"HTTP/1.1 200")
        await writer.drain()
        await asyncio.sleep(0.05)
        return None

    with serving(second_breaks) as server:
        _, failed = ask(an_endpoint(server.url), times=2)
        assert (failed.reason, len(server.asked)) == ("broken off", 2)


def test_a_reply_that_nobody_asked_for_is_never_taken_for_the_next_answer():
    async def answers_twice(asked: Asked, writer: Writer) -> Reply:
        return http(outputs([2.0, 4.0])) + http(outputs([66.0, 66.0]))

    with serving(answers_twice) as server:
        assert ask(an_endpoint(server.url), times=3) == [[2.0, 4.0]] * 3


def test_a_question_that_is_given_up_leaves_its_place_to_others():
    async def first_hangs(asked: Asked, writer: Writer) -> Reply:
        return await (hangs if len(server.asked) == 1 else doubles)(asked, writer)

    async def give_up(asking: Asking) -> Any:
        given_up = asyncio.create_task(asking.answers(ROWS, 2, seconds=60))
        while not server.asked:
            await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.wait([given_up])
        said = await asking.answers(ROWS, 2, seconds=60)
        return said.tolist(), asking.pool.under_way, asking.pool.waiting

    with serving(first_hangs) as server:
        assert run(an_endpoint(server.url, at_once=1), give_up) == ([2.0, 4.0], 0, 0)


def test_raw_tensors_go_and_come_as_the_extension_says():
    async def raw(asked: Asked, writer: Writer) -> Reply:
        end = int(asked.headers["inference-header-content-length"])
        xs = np.frombuffer(asked.body[end:], "<f8")
        output = {"name": "y", "shape": [len(xs)], "datatype": "FP32", "parameters": {"binary_data_size": 4 * len(xs)}}
        head = json.dumps({"outputs": [{"name": "z", "shape": [1], "datatype": "BYTES", "parameters":
                           {"binary_data_size": 5}}, output]})  # fmt: skip
        body = head.encode() + b"\x01\0\0\0a" + (2 * xs).astype("<f4").tobytes()
        return http(body, inference_header_content_length=str(len(head)))

    with serving(raw) as server:
        said = ask(
            an_endpoint(server.url, mapping=x_mapping(binary=True, output="y")), columns={"x": np.array([1.5, np.nan])}
        )
        assert said[0][0] == 3.0
        assert np.isnan(said[0][1])
        assert server.asked[0].json["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]


@pytest.mark.parametrize("size", [-1, 10_000])
def test_a_raw_output_of_another_size_than_it_says_is_a_failure(size: int):
    output = {"name": "y", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": size}}
    head = json.dumps({"outputs": [output]})
    reply = http(head.encode() + b"\0" * 16, inference_header_content_length=str(len(head)))
    with serving(says(reply)) as server:
        (failed,) = ask(an_endpoint(server.url, mapping=x_mapping(binary=True)))
    assert (failed.reason, "raw bytes" in str(failed)) == ("no answer", True)


def test_headers_come_from_where_their_values_are(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("from-a-file\n")
    headers = (Header("Authorization", env="TOKEN", before="Bearer "), Header("X-Key", file=str(token)))
    with serving(doubles) as server:
        endpoint = an_endpoint(server.url, headers=headers)
        run(endpoint, lambda asking: asking.answers(ROWS, 2, seconds=60), TOKEN="secret")
        sent = server.asked[0].headers
        assert (sent["authorization"], sent["x-key"]) == ("Bearer secret", "from-a-file")
        (failed,) = ask(endpoint)
        assert (failed.reason, "variable TOKEN holds nothing here" in str(failed)) == ("not asked", True)
        assert len(server.asked) == 1


def test_a_header_value_that_would_make_another_header_is_not_sent():
    with serving(doubles) as server:
        endpoint = an_endpoint(server.url, headers=(Header("X-Key", env="KEY"),))
        with pytest.raises(EndpointFailed, match="what no header can"):
            run(endpoint, lambda asking: asking.answers(ROWS, 2, seconds=60), KEY="a\r\nX-Evil: 1")
        assert not server.asked


def test_gates_ask_again_where_a_server_fails_for_a_moment():
    async def fails_once(asked: Asked, writer: Writer) -> Reply:
        return http("", "503 Not yet") if len(server.asked) == 1 else await doubles(asked, writer)

    with serving(fails_once) as server:
        xs = np.arange(600.0)
        assert EndpointModel(an_endpoint(server.url)).answer({"x": xs}).tolist() == (2 * xs).tolist()
        assert [asked.rows for asked in server.asked] == [256, 256, 256, 88]
        assert EndpointModel(an_endpoint(server.url)).answer({"x": np.empty(0)}).shape == (0,)


def test_gates_do_not_ask_again_what_was_refused():
    with serving(says(http('{"error": "no"}', "400 Bad"))) as server:
        with pytest.raises(EndpointFailed, match="answered 400: no"):
            EndpointModel(an_endpoint(server.url)).answer(ROWS)
        assert len(server.asked) == 1
