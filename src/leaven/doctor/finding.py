"""What does a check say?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from leaven.settings import Settings

Level = Literal["problem", "note"]  # a problem wants to be seen to; a note is good to know


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a check found."""

    level: Level
    what: str  # is wrong
    where: str
    mend: str  # what to do
    mendable: bool = False  # whether `--mend` does it
    mended: str | None = None  # what was done
    trouble: str | None = None  # why it could not be


Act = Callable[[], str]  # mends, and says what it did


@dataclass(frozen=True, slots=True)
class Trouble:
    """A finding, and what mends it where something can."""

    finding: Finding
    act: Act | None = None


@dataclass(slots=True)
class Examined:
    """What a check saw: in a line, and what is wrong."""

    summary: str = ""
    troubles: list[Trouble] = field(default_factory=list)

    def problem(self, what: str, *, where: object, mend: str, act: Act | None = None) -> None:
        """Add something that is wrong."""
        self._add("problem", what, where, mend, act)

    def note(self, what: str, *, where: object, mend: str, act: Act | None = None) -> None:
        """Add something that is good to know."""
        self._add("note", what, where, mend, act)

    def _add(self, level: Level, what: str, where: object, mend: str, act: Act | None) -> None:
        finding = Finding(level=level, what=what, where=str(where), mend=mend, mendable=act is not None)
        self.troubles.append(Trouble(finding, act))


@dataclass(frozen=True, slots=True)
class Subject:
    """The installation that is looked at."""

    settings: Settings
    environment: Mapping[str, str]
    now: int  # micros of the machine's clock
    host: str  # name of this machine
    port: int  # where a gateway would listen
    deep: bool = False  # look at all of it, however long that takes


Check = Callable[[Subject], Examined]
