"""Requests as bytes, replies from bytes, in whatever pieces they arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.client.http1 import Broken, Reply, ReplyReader, Request, to_bytes

PLAIN = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Y: z\r\n\r\n{"a"'
CHUNKED = (
    b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\nretry-after: 1\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\ntrailer: t\r\n\r\n"
)
CONTINUED = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
)
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\nuntil the end"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx"


def read(*pieces: bytes, end: bool = False) -> Reply | None:
    reader = ReplyReader()
    for piece in pieces:
        reader.feed(piece)
    if end:
        reader.end()
    return reader.reply


@pytest.mark.parametrize(
    ("written", "end", "reply"),
    [
        (PLAIN, False, Reply(200, {"content-length": "4", "x-y": "z"}, b'{"a"', True)),
        (CHUNKED, False,
         Reply(503, {"transfer-encoding": "chunked", "retry-after": "1", "trailer": "t"}, b"abcde", True)),
        (CONTINUED, False, Reply(200, {"content-length": "2"}, b"ok", True)),
        (UNFRAMED, True, Reply(200, {}, b"until the end", False)),
        (EMPTY, False, Reply(204, {}, b"", True)),
        (CLOSING, False, Reply(200, {"connection": "close", "content-length": "0"}, b"", False)),
        (OLD, False, Reply(200, {"content-length": "1"}, b"x", False)),
    ],
)  # fmt: skip
def test_a_reply_is_the_same_in_whatever_pieces_it_arrives(written: bytes, end: bool, reply: Reply):
    @given(st.sets(st.integers(1, len(written) - 1)))
    def pieces(cuts: set[int]) -> None:
        edges = [0, *sorted(cuts), len(written)]
        assert read(*(written[a:b] for a, b in pairwise(edges)), end=end) == reply

    pieces()


@pytest.mark.parametrize("written", [PLAIN, CHUNKED, CONTINUED])
def test_a_reply_that_ends_early_is_no_reply(written: bytes):
    for length in range(len(written)):
        with pytest.raises(Broken):
            read(written[:length], end=True)


@pytest.mark.parametrize(
    "written",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_or_could_be_read_in_two_ways_is_refused(written: bytes):
    with pytest.raises(Broken, match="no HTTP"):
        read(written)


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"garbage"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_connection_that_says_more_than_was_asked_is_not_used_again(more: bytes, at_once: bool):
    found = read(PLAIN + more) if at_once else read(PLAIN, more)
    assert found is not None
    assert (found.status, found.body, found.reusable) == (200, b'{"a"', False)


def test_a_request_is_one_head_and_its_body():
    request = Request("POST", "/v1/feedback", b"\xff\r\n", (("content-type", "application/json"),))
    written = to_bytes(request, host="[::1]:80", prefix="/ml", common=(("user-agent", "me"),))
    assert written == (
        b"POST /ml/v1/feedback HTTP/1.1\r\nhost: [::1]:80\r\nuser-agent: me\r\ncontent-type: application/json\r\n"
        b"content-length: 3\r\n\r\n\xff\r\n"
    )
