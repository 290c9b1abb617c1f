"""When does the leading controller look?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from leaven.controller.service import Leader
from leaven.duration import micros
from leaven.registry import loops
from leaven.storage.control.database import ControlDatabase
from tests.controller.pasts import FIRST, a_loop, day

HOUR = timedelta(hours=1)


@dataclass
class Office:
    """An installation whose clock and whose log are where the test puts them."""

    database: ControlDatabase
    tick: str = "1h"
    time: datetime = FIRST
    behind: timedelta = timedelta(0)

    @property
    def clock(self) -> Office:
        return self

    def now(self) -> datetime:
        return self.time

    def micros(self) -> int:
        return micros(self.time)

    def watermark(self) -> datetime:
        return self.time - self.behind

    def loop(self, name: str) -> Any:
        return a_loop(tick=self.tick)

    def loop_names(self) -> list[str]:
        return ["shop"]

    def leader(self) -> Leader:
        return Leader(self, self, lambda connection: None)  # type: ignore[arg-type]


class Ticking:
    """A controller that notes when it was asked to look."""

    def __init__(self, looks: list[datetime]) -> None:
        self._looks = looks

    def tick(self, loop: Any, now: datetime) -> None:
        self._looks.append(now)


@pytest.fixture
def office():
    database = ControlDatabase("sqlite://")
    database.migrate()
    with database.write() as connection:
        loops.put(connection, a_loop(), path="", source="", at=micros(FIRST))
    return Office(database)


def looks(office: Office, until: timedelta, *, step: timedelta, leader: Leader | None = None) -> list[datetime]:
    """When it looks as time passes in steps, by the moment that each look is as of."""
    seen: list[datetime] = []
    leader = leader or office.leader()
    leader.controller = Ticking(seen)  # type: ignore[assignment]
    end = office.time + until
    while office.time < end:
        office.time += step
        leader.look()
    return seen


def test_it_looks_once_at_each_tick_when_all_before_it_can_be_read(office):
    office.behind = timedelta(minutes=5)
    assert looks(office, 3 * HOUR + timedelta(minutes=10), step=timedelta(minutes=1)) == [
        day(0), day(0) + HOUR, day(0) + 2 * HOUR, day(0) + 3 * HOUR,
    ]  # fmt: skip


def test_a_log_that_is_always_behind_by_more_than_a_tick_does_not_keep_it_from_looking(office):
    office.tick, office.behind = "1s", timedelta(seconds=10)
    seen = looks(office, timedelta(seconds=60), step=timedelta(seconds=0.5))
    assert seen == [FIRST + timedelta(seconds=second) for second in range(1, 51)]


def test_a_controller_that_takes_over_does_not_look_back_at_what_was_looked_at(office):
    looks(office, 2 * HOUR, step=timedelta(minutes=30))
    office.behind = timedelta(minutes=90)
    assert looks(office, HOUR, step=timedelta(minutes=30)) == []
    assert looks(office, 2 * HOUR, step=timedelta(minutes=30)) == [day(0) + 3 * HOUR]
