"""Which parts is the process of one version made of?

Run by a gateway worker as `python -m leaven.cli.model_process SOCKET`: it loads the version that the first message
names and answers until the gateway is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import msgspec

from leaven.cli.opening import load_artifact_of
from leaven.gateway.answering import Answers
from leaven.gateway.handover import decode_settings
from leaven.gateway.isolation import answer_until_closed
from leaven.settings import calm_threads, limit_memory


class Hello(msgspec.Struct):
    """What the gateway says first."""

    artifact: str
    settings: bytes


def _loaded(said: bytes) -> Answers:
    hello = msgspec.msgpack.decode(said, type=Hello)
    settings = decode_settings(hello.settings)
    limit_memory(settings.challenger_memory_mb)
    return load_artifact_of(settings, hello.artifact)


def main() -> None:
    """Answer over the socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the gateway ends us in its turn
    calm_threads(1)
    with socket.socket(fileno=int(sys.argv[1])) as there:
        try:
            answer_until_closed(there, _loaded)
        except BrokenPipeError:
            os._exit(0)  # the gateway went away while it was being told something


if __name__ == "__main__":
    main()
