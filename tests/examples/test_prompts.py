"""The example of prompts is the page's, and asks a language model as it would a paid one."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from examples.prompts.chat import DEFAULT, Answered, ChatServer, NoText, answer, rate, stand_in, texts_from
from leaven import Client

REPOSITORY = Path(__file__).parent.parent.parent
STEPS = {"system": "Answer step by step.", "temperature": 0.2}
Handle = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def server(handle: Handle) -> Iterator[str]:
    """A server whose POSTs `handle` answers; gives the address of its completions."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            handle(self, self.rfile.read(int(self.headers["content-length"])))

        def log_message(self, *_: Any) -> None:
            pass

    here = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=here.serve_forever, args=(0.02,), daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{here.server_port}/v1/chat/completions"
    finally:
        here.shutdown()
        here.server_close()


def says(status: int, body: bytes, **headers: str) -> Handle:
    def handle(asked: BaseHTTPRequestHandler, _: bytes) -> None:
        asked.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            asked.send_header(name, value)
        asked.end_headers()
        asked.wfile.write(body)

    return handle


def test_the_page_shows_the_files_of_the_example():
    page = (REPOSITORY / "docs/howto/prompts.md").read_text()
    shown = dict(re.findall(r'```python title="([^"]+)"\n(.*?)```', page, re.DOTALL))
    assert shown.keys() == {"prompts.py", "chat.py"}
    for name, text in shown.items():
        assert text == (REPOSITORY / "examples/prompts" / name).read_text(), name


def test_a_language_model_is_asked_with_the_prompt_and_the_question():
    asked: list[tuple[str, str | None, Any]] = []

    def completions(request: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.append((request.path, request.headers["authorization"], json.loads(body)))
        says(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "1. Look."}}]}).encode())(
            request, body
        )

    with server(completions) as url:
        texts = texts_from({"CHAT_URL": url, "CHAT_MODEL": "small", "CHAT_KEY": "key-1"})
        assert texts(STEPS, "How?") == "1. Look."
    messages = [{"role": "system", "content": STEPS["system"]}, {"role": "user", "content": "How?"}]
    sent = {"model": "small", "temperature": 0.2, "messages": messages}
    assert asked == [("/v1/chat/completions", "Bearer key-1", sent)]


@pytest.mark.parametrize(
    ("handle", "why"),
    [
        (says(429, b'{"error": "slow down"}'), "answered 429: .*slow down"),
        (says(302, b"", location="http://127.0.0.1:1/elsewhere"), "answered 302"),
        (says(200, b"<html>"), "answered something else"),
        (says(200, b'{"choices": []}'), "answered something else"),
        (says(200, b'{"choices": [{"message": {"content": null}}]}'), "answered no text"),
    ],
    ids=range(5),
)
def test_whatever_is_no_text_is_an_error_that_says_so(handle: Handle, why: str):
    with server(handle) as url, pytest.raises(NoText, match=why):
        ChatServer(url, "small", "key-1")(STEPS, "How?")


def test_a_silent_model_and_one_that_is_not_there_are_not_waited_for():
    over = threading.Event()
    with server(lambda *_: over.wait(30) and None) as url:
        with pytest.raises(NoText, match="does not answer: timed out"):
            ChatServer(url, "small", seconds=0.2)(STEPS, "How?")
        over.set()
    with pytest.raises(NoText, match="does not answer"):
        ChatServer(url, "small", seconds=5)(STEPS, "How?")


def test_without_a_gateway_everybody_gets_the_usual_prompt_and_counts_for_nobody():
    with Client("http://127.0.0.1:9", timeout=0.2) as away:
        answered = answer(away, stand_in, "ada", "How do I sort?", language="en")
        assert answered == Answered(stand_in(DEFAULT, "How do I sort?"), "none", None)
        rate(away, answered, 5)  # nothing is sent: it would raise


def test_the_stand_in_costs_nothing_and_says_the_same_to_the_same_question():
    assert texts_from({}) is stand_in
    assert stand_in(STEPS, "How?") == stand_in(STEPS, "How?") != stand_in(DEFAULT, "How?")
    with pytest.raises(SystemExit, match="CHAT_MODEL"):
        texts_from({"CHAT_URL": "http://127.0.0.1:9"})
