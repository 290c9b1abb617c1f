"""What does a supervisor tell its workers?

One line on their standard input: the settings it was given itself, so that a worker asks no environment, and no secret
in them shows in the list of processes.
"""

from __future__ import annotations

import msgspec

from leaven.settings import Settings


def encode_settings(settings: Settings) -> bytes:
    """Return settings as one line, without its end."""
    facts = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    return msgspec.json.encode(facts, enc_hook=str)


def decode_settings(line: bytes) -> Settings:
    """Return the settings that `encode_settings` wrote."""
    return msgspec.json.decode(line, type=Settings, dec_hook=lambda kind, given: kind(given))
