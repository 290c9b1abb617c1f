"""How does a long-running command begin, and how is it told to stop?"""

from __future__ import annotations

import logging
import signal
import sys
import threading


def told_to_stop(*, name: str = "leaven") -> threading.Event:
    """Return an event that SIGTERM and SIGINT set, and send the log to stderr, a line an entry."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for noisy in ("dbos", "alembic", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: stop.set())
    return stop
