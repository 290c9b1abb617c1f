"""Answers readers with a language model, under the prompt of the arm that the reader gets.

    python chat.py [READERS]

lets some made-up readers ask, rate and click. The model is a stand-in that costs nothing, unless CHAT_URL names a
server that speaks OpenAI's chat completions; then CHAT_MODEL is the model's name there, and CHAT_KEY the key.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from leaven import Client
from leaven.client import GatewayUnavailable

DEFAULT = {"system": "Answer the question.", "temperature": 0.2}  # for everybody, while the gateway is away
MOST_BYTES = 1_000_000  # of a reply

Texts = Callable[[dict, str], str]  # parameters and a question become a text


class NoText(Exception):
    """The language model gave no text."""


@dataclass(frozen=True)
class ChatServer:
    """A server that speaks OpenAI's chat completions; `url` is the whole address."""

    url: str
    model: str
    key: str = ""
    seconds: float = 20.0  # that it may be silent

    def __call__(self, parameters: dict, question: str) -> str:
        """Return its text.

        Raises:
            NoText: it is not there, says no, or says something else.
        """
        system = {"role": "system", "content": parameters["system"]}
        body = {"model": self.model, "temperature": parameters.get("temperature", 1.0)}
        body["messages"] = [system, {"role": "user", "content": question}]
        headers = {"content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        try:
            status, reply = self._post(json.dumps(body), headers)
            if status != 200:  # redirections among them: a key is for one address
                raise NoText(f"{self.url} answered {status}: {reply[:200].decode(errors='replace')}")
            text = json.loads(reply)["choices"][0]["message"]["content"]
        except (OSError, HTTPException) as error:
            raise NoText(f"{self.url} does not answer: {error or type(error).__name__}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise NoText(f"{self.url} answered something else: {error!r}") from error
        if not isinstance(text, str):
            raise NoText(f"{self.url} answered no text")
        return text

    def _post(self, body: str, headers: dict[str, str]) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.netloc, timeout=self.seconds)
        try:
            connection.request("POST", parts.path or "/", body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read(MOST_BYTES)
        finally:
            connection.close()


def stand_in(parameters: dict, question: str) -> str:
    """Say the same to the same question, in steps where the prompt asks for them."""
    subject = question.rstrip("?").lower()
    if "step" in parameters["system"]:
        return f"1. Look at {subject}. 2. Take the simplest way. 3. Check that it worked."
    return f"It depends on {subject}."


def texts_from(environment: dict[str, str]) -> Texts:
    """Return the language model that the environment names, or the stand-in."""
    if "CHAT_URL" not in environment:
        return stand_in
    if "CHAT_MODEL" not in environment:
        raise SystemExit("CHAT_URL names a server, and CHAT_MODEL no model of it. Set both.")
    return ChatServer(environment["CHAT_URL"], environment["CHAT_MODEL"], environment.get("CHAT_KEY", ""))


@dataclass(frozen=True)
class Answered:
    """A text, and what feedback about it refers to; None where no arm was given."""

    text: str
    arm: str
    exposure: str | None


def answer(client: Client, texts: Texts, reader: str, question: str, *, language: str) -> Answered:
    """Answer a reader under the prompt of their arm; under the usual one while the gateway is away."""
    try:
        given = client.assign("prompts", reader, context={"language": language})
    except GatewayUnavailable:
        return Answered(texts(DEFAULT, question), "none", None)
    return Answered(texts(given.parameters or DEFAULT, question), given.arm, given.exposure)


def rate(client: Client, answered: Answered, stars: int) -> None:
    """Tell how many stars, 1 to 5, the reader gave."""
    if answered.exposure is not None:
        client.feedback("prompts", prediction_id=answered.exposure, name="stars", value=stars)


def clicked(client: Client, reader: str) -> None:
    """Tell that the reader copied the text; whom it is about is enough, where no exposure is at hand."""
    client.feedback("prompts", unit=reader, name="copied", kind="event")


def drawn(reader: str, what: str) -> float:
    """Return a number of [0, 1) that is always the same for this reader."""
    return int.from_bytes(blake2b(f"{what} {reader}".encode(), digest_size=4).digest(), "big") / 2**32


def main(readers: int) -> None:
    """Let made-up readers ask; they like steps, and not all of them say so."""
    texts, stars = texts_from(dict(os.environ)), defaultdict(list)
    with Client(os.environ.get("LEAVEN_GATEWAY", "http://127.0.0.1:8080"), spool="chat-feedback") as client:
        for number in range(readers):
            reader = f"reader-{number}"
            language = "de" if drawn(reader, "language") < 0.5 else "en"
            answered = answer(client, texts, reader, "How do I sort a list?", language=language)
            liked = drawn(reader, "likes") < (0.8 if answered.text.startswith("1.") else 0.4)
            if drawn(reader, "rates") < 0.6:
                rate(client, answered, 5 if liked else 2)
                stars[answered.arm].append(5 if liked else 2)
            if liked:
                clicked(client, reader)
    for arm, given in sorted(stars.items()):
        print(f"{arm}: {len(given)} ratings, {sum(given) / len(given):.2f} stars")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
