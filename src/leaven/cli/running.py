"""How does a long-running command begin, and how is it told to stop?"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from leaven.settings import Settings, settings_from

_LOOK_SECONDS = 0.5


def told_to_stop(settings: Settings | None = None) -> threading.Event:
    """Return an event that SIGTERM, SIGINT or the end of the process that started this one sets; logs go to stderr."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for noisy in ("dbos", "alembic", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: stop.set())
    parent = (settings or settings_from()).parent
    if parent is not None:
        threading.Thread(target=_watch, args=(parent, stop), name="parent", daemon=True).start()
    return stop


def _watch(parent: int, stop: threading.Event) -> None:
    """A part outlives `leaven up` by no more than a moment, even where that was killed without a word."""
    while not stop.wait(_LOOK_SECONDS):
        if os.getppid() != parent:
            stop.set()
