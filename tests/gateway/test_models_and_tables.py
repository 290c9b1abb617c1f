"""A table serves once all its models are loaded, or not at all; a gateway alone goes on with what it has."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from leaven.experiments.routing import RoutingTable, ShadowRoute
from leaven.gateway.answering import Answerer, Place
from leaven.gateway.models import ModelHost, TableRefused
from leaven.gateway.watch import TableWatch
from leaven.loop import Schema
from tests.gateway.fakes import SCHEMA, Says, a_serving, an_answerer


class Shelf:
    """Artifacts by digest; those named `broken …` cannot be opened, those in `slow` take until they are let go."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, bool]] = []
        self.slow: dict[str, threading.Event] = {}

    def __call__(self, artifact: str, schema: Schema, place: Place) -> Answerer:
        self.opened.append((artifact, place))
        if artifact in self.slow:
            assert self.slow[artifact].wait(60)
        if "broken" in artifact:
            raise OSError("no such file")
        return an_answerer(Says(float))


class Publisher:
    """A source of tables that may be away."""

    def __init__(self, *tables: RoutingTable) -> None:
        self.tables, self.away, self.reports = list(tables), False, list[dict[str, int]]()

    def newer(self, known: Mapping[str, int]) -> list[RoutingTable]:
        if self.away:
            raise ConnectionError("database is gone")
        return [table for table in self.tables if table.revision > known.get(table.loop, -1)]

    def report(self, revisions: Mapping[str, int]) -> None:
        self.reports.append(dict(revisions))

    def leave(self) -> None:
        self.reports.clear()


def a_table(version: str, *, revision: int = 1, canary: str | None = None, loop: str = "loop") -> RoutingTable:
    versions = {version: Says(float)} | ({canary: Says(float)} if canary else {})
    table = a_serving(versions, canary=canary).table
    return RoutingTable(loop, revision, 0, SCHEMA, "salt", table.arms)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def host(shelf: Shelf) -> ModelHost:
    return ModelHost(shelf)


def a_watch(host: ModelHost, source: Publisher, folder: Path) -> TableWatch:
    now = iter(range(10**6))
    return TableWatch(host, source, cache=folder / "tables", timer=lambda: float(next(now)), beat=100.0, retry=4.0)


def test_a_model_is_loaded_once_while_anything_needs_it(host: ModelHost, shelf: Shelf):
    host.install(a_table("1"))
    host.install(a_table("1", revision=2))
    assert shelf.opened == [("artifact 1", "here")]


def test_a_challenger_is_opened_apart_and_here_once_it_is_champion(host: ModelHost, shelf: Shelf):
    host.install(a_table("1", canary="2"))
    host.install(a_table("2", revision=2))
    assert shelf.opened == [("artifact 2", "apart"), ("artifact 1", "here"), ("artifact 2", "here")]


def test_a_shadow_is_opened_aside_and_apart_once_it_serves_somebody(host: ModelHost, shelf: Shelf):
    shadowed = a_table("1")
    shadows = (ShadowRoute("2", "artifact 2", 2**32),)
    host.install(RoutingTable("loop", 1, 0, SCHEMA, "salt", shadowed.arms, shadows))
    host.install(a_table("1", canary="2", revision=2))
    host.install(a_table("2", revision=3))
    assert shelf.opened == [
        ("artifact 1", "here"), ("artifact 2", "aside"), ("artifact 2", "apart"), ("artifact 2", "here"),
    ]  # fmt: skip


def test_a_champion_nobody_tried_here_is_opened_apart_before_it_takes_over(host: ModelHost, shelf: Shelf):
    host.install(a_table("1"))
    host.install(a_table("2", revision=2))
    assert shelf.opened == [("artifact 1", "here"), ("artifact 2", "apart"), ("artifact 2", "here")]


def test_a_table_that_was_overtaken_while_it_was_opened_does_not_serve(host: ModelHost):
    host.install(a_table("1", revision=3))
    assert not host.install(a_table("2", revision=2))
    assert host.revisions() == {"loop": 3}


def test_a_version_that_is_slow_to_load_holds_up_neither_other_loops_nor_the_rollback(host, shelf, tmp_path):
    shelf.slow["artifact 2"] = threading.Event()
    source = Publisher(a_table("1"), a_table("1", loop="other"))
    watch = a_watch(host, source, tmp_path)
    watch.step()
    source.tables = [a_table("1", canary="2", revision=2), a_table("3", loop="other", revision=2)]
    watch.step()
    assert host.revisions() == {"loop": 1, "other": 2}
    source.tables = [a_table("1", revision=3)]
    watch.step()
    assert host.revisions() == {"loop": 3, "other": 2}
    shelf.slow["artifact 2"].set()
    for thread in threading.enumerate():
        if thread.name.startswith("open "):
            thread.join(60)
    assert host.revisions() == {"loop": 3, "other": 2}


def test_a_model_that_no_table_names_goes_with_the_last_request_that_holds_it(host: ModelHost):
    host.install(a_table("1"))
    request = host.serving["loop"]
    host.install(a_table("2", revision=2))
    assert host.draining() == ["artifact 1"]
    del request
    gc.collect()
    assert host.draining() == []


def test_a_table_with_a_model_that_cannot_be_loaded_is_refused_whole(host: ModelHost):
    host.install(a_table("1"))
    with pytest.raises(TableRefused, match=r"version broken cannot be loaded .*no such file"):
        host.install(a_table("2", canary="broken", revision=2))
    assert host.revisions() == {"loop": 1}


def test_one_refused_table_holds_up_no_other_loop_and_is_tried_again_later(host, shelf, tmp_path):
    source = Publisher(a_table("broken"), a_table("1", loop="other"))
    watch = a_watch(host, source, tmp_path)
    for _ in range(6):
        watch.step()
    assert host.revisions() == {"other": 1}
    assert 2 <= shelf.opened.count(("artifact broken", "here")) <= 4
    source.tables[0] = a_table("1", revision=2)
    watch.step()
    assert host.revisions() == {"loop": 2, "other": 1}


def test_while_the_database_is_away_the_last_table_serves_and_it_is_said_once(host, tmp_path, caplog):
    source = Publisher(a_table("1"))
    watch = a_watch(host, source, tmp_path)
    assert watch.step()
    source.away = True
    with caplog.at_level(logging.WARNING):
        assert [watch.step() for _ in range(3)] == [False] * 3
        assert host.revisions() == {"loop": 1}
        source.away, source.tables = False, [a_table("2", revision=2)]
        assert watch.step()
    assert host.revisions() == {"loop": 2}
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "the control database does not answer", "the control database answers again",
    ]  # fmt: skip


def test_a_gateway_that_starts_without_the_database_serves_the_kept_table(host, shelf, tmp_path):
    a_watch(host, Publisher(a_table("1", revision=7)), tmp_path).step()
    started = ModelHost(shelf)
    source = Publisher()
    source.away = True
    watch = a_watch(started, source, tmp_path)
    watch.step()
    watch.restore()
    assert started.revisions() == {"loop": 7}


def test_a_kept_table_that_is_damaged_is_passed_over(host, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "loop.json").write_text(json.dumps({"loop": "loop"}))
    a_watch(host, Publisher(), tmp_path).restore()
    assert host.revisions() == {}


def test_a_gateway_reports_what_it_runs_when_that_changes(host, tmp_path):
    source = Publisher(a_table("1"))
    watch = a_watch(host, source, tmp_path)
    watch.step()
    watch.step()
    source.tables = [a_table("2", revision=2)]
    watch.step()
    assert source.reports == [{"loop": 1}, {"loop": 2}]
