"""From the request to the last file: an installation erases units and drops old days."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from leaven.app import App
from leaven.controller import state
from leaven.controller.keeping import Keeping, days_kept
from leaven.curation.snapshot import SnapshotErased, define_snapshot, examples_digest, read_snapshot
from leaven.curation.windows import Part
from leaven.duration import micros
from leaven.errors import BadDefinition
from leaven.events.source import Span
from leaven.registry import erasures, loops
from leaven.settings import settings_from
from leaven.storage.flusher import Flusher
from leaven.storage.frames import Reject
from leaven.storage.quarantine import put_aside
from leaven.storage.writers import StoredSegment
from leaven.triggers import Cause
from tests.control_databases import a_loop
from tests.storage.builders import LATE, NOON, a_label, a_prediction, commit, minutes, seal

HOUR = 3_600_000_000


class Installation:
    """An installation whose clock, and whose idea of real time, the test moves."""

    def __init__(self, home, **settings):
        self.app = App(settings_from({"LEAVEN_CLOCK": f"file:{home / 'clock'}", **settings}, home=home))
        self.app.clock.set(minutes(600))
        self.wall = self.app.clock.micros()
        self.keeping = Keeping(self.app, lambda: True, wall=lambda: self.wall)
        self.flusher = Flusher(self.app.settings.wal, self.app.lake)

    @property
    def lake(self):
        return self.app.lake

    def ask(self, *units, due=0.0, grace=0.0):
        now = self.app.clock.micros()
        with self.app.database.write() as connection:
            return erasures.ask(connection, "flights", units, at=now, by="me", due_at=now + round(due * HOUR),
                                grace_until=now + round(grace * HOUR))  # fmt: skip

    def erasures(self):
        with self.app.database.read() as connection:
            return erasures.erasures(connection)

    def states(self):
        return [each.state for each in self.erasures()]

    def pass_hours(self, hours):
        self.app.clock.set(self.app.clock.now() + timedelta(hours=hours))
        self.wall += round(hours * HOUR)

    def log(self, *events):
        seal(self.app.settings.home, *events)
        self.flusher.flush_once()

    def units(self):
        return [row["unit"] for row in self.lake.tail("flights", 99)]


@pytest.fixture
def installed(tmp_path):
    made = Installation(tmp_path / "home")
    commit(made.lake, *(a_prediction(f"p{i}", unit="ab"[i % 2], at=minutes(i)) for i in range(10)))
    commit(made.lake, *(a_label(f"p{i}", float(i * 10), at=minutes(i + 1)) for i in range(10)))
    yield made
    made.app.close()


def test_requests_wait_for_their_batch_and_go_together(installed):
    installed.ask("a", due=24)
    installed.pass_hours(20)
    installed.ask("nobody", due=24)
    installed.keeping.erase_due()
    assert installed.states() == ["requested", "requested"]
    assert installed.units() == ["a", "b"] * 5
    installed.pass_hours(5)
    installed.keeping.erase_due()  # the first is due, and takes the second with it
    assert installed.states() == ["rewritten", "rewritten"]
    assert [(each.predictions, each.feedback) for each in installed.erasures()] == [(5, 5), (0, 0)]
    assert installed.units() == ["b"] * 5


def test_what_comes_within_the_grace_is_erased_too_and_then_it_is_done_and_forgotten(installed):
    installed.ask("a", grace=24)
    installed.keeping.erase_due()
    assert installed.states() == ["rewritten"]
    installed.log(a_prediction("late", unit="a", at=minutes(500)), a_label("p2", 1.0, at=minutes(501), id="late"))
    installed.pass_hours(23)
    installed.keeping.erase_due()
    assert installed.units() == ["b"] * 5 + ["a"]  # for now: the last round is after the grace
    installed.pass_hours(2)
    installed.lake.vacuum("flights", hours=0)
    installed.keeping.erase_due()
    installed.lake.vacuum("flights", hours=0)
    installed.keeping.erase_due()
    assert installed.units() == ["b"] * 5
    (done,) = installed.erasures()
    assert (done.state, done.unit, done.salt) == ("done", None, None)
    assert (done.predictions, done.feedback) == (6, 6)
    installed.log(a_prediction("much later", unit="a", at=minutes(900)))
    installed.keeping.erase_due()
    assert installed.units()[-1] == "a"


def test_it_is_not_done_while_a_file_on_the_disk_holds_the_unit(installed):
    installed.wall = 4_000_000_000_000_000  # later than the files were written, as real time is
    installed.ask("a")
    for _ in range(3):
        installed.keeping.erase_due()
        assert installed.states() == ["rewritten"]
        installed.wall += 7 * HOUR
    assert installed.lake.superseded("flights") > 0
    installed.lake.vacuum("flights", hours=0)
    installed.keeping.erase_due()
    assert installed.states() == ["done"]


def test_a_reader_that_is_at_a_file_is_waited_for(installed):
    with installed.lake.query() as connection:
        table = installed.lake.table("flights", "predictions")
        table.refresh()
        from leaven.storage.lake import parquet

        pinned = parquet(table.files())
        installed.ask("a")
        installed.keeping.erase_due()
        installed.lake.compact("flights")
        assert installed.lake.vacuum("flights", hours=0) == 0
        assert connection.execute(f"SELECT count(*) FROM {pinned}").fetchall() == [(10,)]
    assert installed.lake.vacuum("flights", hours=0) > 0


def test_a_unit_that_is_asked_for_again_is_one_request(installed):
    (first,) = installed.ask("a", due=24)
    (again,) = installed.ask("a", due=1, grace=5)
    assert (first.id, len(installed.erasures())) == (again.id, 1)
    assert again.grace_until - again.requested_at == 5 * HOUR
    installed.pass_hours(2)
    installed.keeping.erase_due()
    installed.log(a_prediction("new", unit="a", at=minutes(500)))
    installed.ask("a")
    installed.keeping.erase_due()
    assert installed.units() == ["b"] * 5
    assert installed.erasures()[0].predictions == 6


def test_what_was_put_aside_is_searched_too(installed):
    wal = installed.app.settings.wal
    wal.mkdir(parents=True, exist_ok=True)
    for number, unit in enumerate(["a", "aa"]):
        content = msgspec.msgpack.encode(a_prediction("p", loop="../x", unit=unit))
        put_aside(wal, StoredSegment("w", number, wal / "x"), [Reject(0, "no name of a loop", content)])
    installed.ask("a")
    installed.keeping.erase_due()
    assert [path.name for path in (wal / ".quarantine").iterdir()] == ["w-0000000001.jsonl"]


def a_snapshot(source):
    as_of = minutes(600)
    defined = define_snapshot("flights", [Part(Span(NOON, minutes(60)))], holdout=None, rule=LATE, as_of=as_of,
                              marks=source.marks(), seed=0)  # fmt: skip
    examples = read_snapshot(defined, source, LATE)
    return msgspec.structs.replace(defined, rows=len(examples), digest=examples_digest(examples))


def test_a_snapshot_says_how_many_of_its_rows_were_erased(installed):
    source = installed.app.source("flights")
    before = a_snapshot(source)
    installed.lake.compact("flights")
    installed.lake.vacuum("flights", hours=0)
    assert len(read_snapshot(before, source, LATE)) == 10
    installed.ask("a")
    installed.keeping.erase_due()
    with pytest.raises(SnapshotErased, match=r"10 rows erased since .* it held 10 examples and now reads as 5") as told:
        read_snapshot(before, source, LATE)
    assert (told.value.erased, told.value.taken, told.value.rows) == (10, 10, 5)
    after = a_snapshot(source)
    assert len(read_snapshot(after, source, LATE)) == 5
    installed.ask("nobody")
    installed.keeping.erase_due()
    assert len(read_snapshot(after, source, LATE)) == 5


@pytest.mark.parametrize(
    ("setting", "days"),
    [("", None), ("400", 400), ("400,other=3", 400), ("400, flights=30", 30), ("400,flights=forever", None),
     ("forever,flights=7", 7), ("flights=7,9", 7)],
)  # fmt: skip
def test_how_long_a_loop_is_kept(setting, days):
    assert days_kept(setting, "flights") == days


@pytest.mark.parametrize("setting", ["soon", "0", "-3", "flights=", "=4", "flights=4d"])
def test_a_length_that_is_none_is_refused(setting):
    with pytest.raises(BadDefinition, match="LEAVEN_KEEP_DAYS"):
        days_kept(setting, "flights")


def test_days_that_grew_too_old_go_and_those_that_a_refresh_reads_stay(tmp_path):
    installed = Installation(tmp_path, LEAVEN_KEEP_DAYS="3")
    commit(installed.lake, *(a_prediction(f"p{i}", at=minutes(i * 1440)) for i in range(6)))
    installed.app.clock.set(minutes(5 * 1440))
    with installed.app.database.write() as connection:
        loops.put(connection, a_loop("flights"), path="x", source="x", at=0)
        opened = state.open_refresh(connection, "flights", Cause("x", "y"), as_of=0, now=0)
    assert installed.keeping.drop_old() == {}  # its snapshot may hold them
    with installed.app.database.write() as connection:
        state.save_refresh(connection, msgspec.structs.replace(opened, state="nothing"), now=micros(NOON))
    assert installed.keeping.drop_old() == {"flights": 2}
    assert [row["id"] for row in installed.lake.tail("flights", 99)] == ["p2", "p3", "p4", "p5"]
    assert installed.keeping.drop_old() == {}
    installed.app.close()
