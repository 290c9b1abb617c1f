"""Who is at the keyboard, and with which installation?"""

from __future__ import annotations

import getpass
from pathlib import Path

from leaven.app import App
from leaven.settings import settings_from


def app_at(home: Path | None) -> App:
    """Return the installation in `home`, or the one that the environment names."""
    return App(settings_from(home=home))


def me() -> str:
    """Return the name under which a person's decisions are recorded."""
    return f"person:{getpass.getuser()}"
