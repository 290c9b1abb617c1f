"""How does a long-running command begin, and how is it told to stop?"""

from __future__ import annotations

import os
import signal
import threading

from leaven.logs import begin_logging
from leaven.settings import Settings

_LOOK_SECONDS = 0.5


def told_to_stop(part: str, settings: Settings) -> threading.Event:
    """Return an event that SIGTERM, SIGINT or the end of the process that started this one sets; its log begins."""
    begin_logging(part, form=settings.log, level=settings.log_level)
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: stop.set())
    parent = settings.parent
    if parent is not None:
        threading.Thread(target=_watch, args=(parent, stop), name="parent", daemon=True).start()
    return stop


def _watch(parent: int, stop: threading.Event) -> None:
    """A part outlives `leaven up` by no more than a moment, even where that was killed without a word."""
    while not stop.wait(_LOOK_SECONDS):
        if os.getppid() != parent:
            stop.set()
