"""In which ways can a server elsewhere fail to answer?"""

from __future__ import annotations

from typing import Literal

from leaven.errors import LeavenError

Reason = Literal[
    "no connection",  # refused, unknown name, TLS not trusted, or not there in time
    "too slow",  # no whole reply within the time limit
    "broken off",  # the connection ended before the reply did
    "no answer",  # a reply that is not one of the protocol, or too long, or of another number of rows
    "refused",  # 4xx: it does not take what it was sent
    "server error",  # 5xx, or 429
    "busy",  # too many requests wait for it here
    "not asked",  # the rows, or the headers, could not be put into a request
]
_SAYS_NOTHING = ("busy", "not asked")  # of the server
_IS_ALIVE = ("refused",)


class EndpointFailed(LeavenError, OSError):  # OSError: worth another try, which the controller's steps give it
    """An endpoint gave no answer; the text is what it did."""

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(reason, what)
        self.reason, self.what = reason, what

    def __str__(self) -> str:
        return f"the endpoint {self.what}"

    @property
    def outcome(self) -> Literal["good", "bad", "void"]:
        """What it means for the breaker: a refusal speaks of the rows, not of the server's health."""
        return "void" if self.reason in _SAYS_NOTHING else "good" if self.reason in _IS_ALIVE else "bad"
