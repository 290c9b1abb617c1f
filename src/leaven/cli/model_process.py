"""Which parts is the process of one version made of?

Run by a gateway worker as `python -m leaven.cli.model_process SOCKET`: it loads the version that the first message
names and answers until the gateway is gone. Loading, which may take a core for seconds, gives way to everything else on
the machine; answering does not, but for a shadow, which nobody waits for. A thread's priority is its own and cannot be
raised again, so libraries and model are loaded by one thread, which gives its own away first, and another one answers.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaven.gateway.answering import Answers

_NICENESS = 15
_NICENESS_ASIDE = 10  # a tenth of a core that others want: enough that a shadow is not late for want of it


class Loading:
    """Loads on a thread that gives way."""

    def __init__(self) -> None:
        self._said = b""
        self._outcome: Any = None
        self._told, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._work, name="loading", daemon=True).start()

    def load(self, said: bytes) -> Answers:
        """Return the version that the gateway named, or raise what kept it from being loaded."""
        self._said = said
        self._told.set()
        self._ended.wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        model: Answers
        model, aside = self._outcome
        if aside:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS_ASIDE)
        return model

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        import leaven.gateway.isolation  # noqa: F401  which the other thread waits for

        self._told.wait()
        try:
            self._outcome = _version(self._said)
        except Exception as error:
            self._outcome = error
        self._ended.set()


def _version(said: bytes) -> tuple[Answers, bool]:
    """The version that the gateway names, and whether it is to give way."""
    import msgspec

    from leaven.cli.opening import load_artifact_of
    from leaven.gateway.handover import decode_settings
    from leaven.logs import begin_logging
    from leaven.settings import calm_threads, limit_memory

    calm_threads(1)
    hello = msgspec.msgpack.decode(said)
    settings = decode_settings(hello["settings"])
    begin_logging("model", form=settings.log, level=settings.log_level)
    limit_memory(settings.challenger_memory_mb)
    return load_artifact_of(settings, hello["artifact"]), hello["aside"]


def _end_with(there: socket.socket) -> None:
    """End this process when the gateway is gone, even while a version is still being loaded."""
    gone = select.poll()
    gone.register(there, select.POLLRDHUP)
    gone.poll()
    os._exit(0)


def main() -> None:
    """Answer over the socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the gateway ends us in its turn
    loading = Loading()
    with socket.socket(fileno=int(sys.argv[1])) as there:
        threading.Thread(target=_end_with, args=(there,), name="gateway-watch", daemon=True).start()
        from leaven.gateway.isolation import answer_until_closed

        try:
            answer_until_closed(there, loading.load)
        except BrokenPipeError:
            os._exit(0)  # the gateway went away while it was being told something


if __name__ == "__main__":
    main()
