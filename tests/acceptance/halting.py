"""A controller that stands still once it has written down that a step begins, so that it can be killed just there.

`python -m tests.acceptance.halting STEP controller …` is `leaven controller …`, but for that. Looking for the moment
from outside misses it where a step takes less time than a look, as on a busy machine.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from leaven.cli import main
from leaven.controller import durable


def halt_in(step: str) -> None:
    """Let this process stop itself, as by SIGSTOP from outside, when a refresh has been noted to be in `step`."""
    noter = durable.noter

    def halting_noter(*parts: Any) -> Callable[..., None]:
        note = noter(*parts)

        def note_and_halt(name: str, payload: Any, stands: Any, error: str | None) -> None:
            note(name, payload, stands, error)
            if (name, stands) == (step, "running"):
                os.kill(os.getpid(), signal.SIGSTOP)

        return note_and_halt

    durable.noter = halting_noter


if __name__ == "__main__":
    halt_in(sys.argv.pop(1))
    sys.exit(main())
