"""Many requests wait for the log at the price of one, and none suffers for another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from leaven.events.log import LogUnavailable
from leaven.events.records import Event
from leaven.gateway.acknowledging import Acknowledging
from leaven.storage.frames import EventRefused
from tests.gateway.fakes import ListLog
from tests.storage.builders import a_label, a_log, until


class CountedLog(ListLog):
    """Counts how often it is asked."""

    asked = 0

    def append_durably(self, events: Sequence[Event]):
        self.asked += 1
        return super().append_durably(events)


def test_what_is_handed_over_at_the_same_time_is_one_matter_for_the_log() -> None:
    log = CountedLog()

    async def both() -> None:
        acknowledging = Acknowledging(log, seconds=60)
        await asyncio.gather(*(acknowledging.keep([a_label(f"p{i}"), a_label(f"q{i}")]) for i in range(50)))
        await acknowledging.keep([a_label("later")])

    asyncio.run(both())
    assert log.asked == 2
    assert len(log.events) == 101


def test_one_that_cannot_be_written_down_harms_no_other(tmp_path: Path) -> None:
    log = a_log(tmp_path)

    async def three() -> list[object]:
        acknowledging = Acknowledging(log, seconds=60)
        events = [a_label("a"), a_label("b", source="\ud800"), a_label("c")]
        return await asyncio.gather(*(acknowledging.keep([each]) for each in events), return_exceptions=True)

    first, second, third = asyncio.run(three())
    assert (first, third) == (None, None)
    assert isinstance(second, EventRefused)
    log.close()
    assert log.counters()["feedback"] == 2


def test_who_waits_too_long_is_told_and_disturbs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = a_log(tmp_path)

    async def impatient() -> list[object]:
        late = Acknowledging(log, seconds=0.05)
        patient = Acknowledging(log, seconds=60)
        with log._changed:  # the log's thread cannot write meanwhile
            waiting = [asyncio.ensure_future(each.keep([a_label()])) for each in (late, late, patient)]
            await asyncio.sleep(0.2)
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, second, third = asyncio.run(impatient())
    assert all(isinstance(each, LogUnavailable) and "0.05 s" in str(each) for each in (first, second))
    assert third is None
    until(lambda: log.counters()["feedback"] == 3)
    log.close()


def test_a_log_that_refuses_refuses_all_who_wait(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    log.close()

    async def ask() -> list[object]:
        acknowledging = Acknowledging(log, seconds=60)
        return await asyncio.gather(*(acknowledging.keep([a_label()]) for _ in range(3)), return_exceptions=True)

    assert all(isinstance(each, LogUnavailable) for each in asyncio.run(ask()))
