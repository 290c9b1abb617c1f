"""Is what is wrong with an installation seen, left alone, and mended when that is asked for?"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from leaven.doctor.checks import CHECKS
from leaven.doctor.examination import CheckResult, examine
from leaven.doctor.filesystem import kind_of, probe
from leaven.doctor.finding import Examined, Finding, Subject
from leaven.experiments.routing import RoutingTable, arms_for
from leaven.loop import Schema
from leaven.registry import aliases, routing
from leaven.registry.artifacts import ArtifactStore
from leaven.registry.remote_artifacts import artifacts_at
from leaven.runfile import announced, stored_parts
from leaven.settings import settings_from
from leaven.storage.control import migrate
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.leases import Lease
from leaven.storage.flusher import Flusher
from leaven.storage.lake import Lake
from tests.contracts.conftest import bucket, s3_server
from tests.control_databases import a_version, migrated, postgres_server, postgres_url
from tests.storage.builders import a_label, a_lake, a_log, a_prediction, commit

__all__ = ["bucket", "postgres_server", "postgres_url", "s3_server"]

NOW = time.time_ns() // 1000


def subject_of(home: Path, **environment: str) -> Subject:
    return Subject(
        settings_from(environment, home=home), environment, time.time_ns() // 1000, socket.gethostname(), 1, deep=True
    )


def look(subject: Subject, *only: str, mend: bool = False, seconds: float = 30) -> dict[str, CheckResult]:
    checks = {name: check for name, check in CHECKS.items() if not only or name in only}
    results = examine(subject, checks, seconds=seconds, timer=time.perf_counter, mend=mend)
    return {result.check: result for result in results}


def found(result: CheckResult) -> Finding:
    (finding,) = result.findings
    return finding


def tree(home: Path) -> dict[str, tuple[int, bytes]]:
    """Everything there is, but what SQLite's readers themselves touch."""
    return {
        str(path.relative_to(home)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(home.rglob("*"))
        if not path.name.endswith(("-shm", "-wal"))
    }


@pytest.fixture
def home(tmp_path: Path, well: Path) -> Path:
    """An installation that is well, and may be spoilt."""
    shutil.copytree(well, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that serves, events in the lake."""
    home = tmp_path_factory.mktemp("well") / "home"
    database = migrated(f"sqlite:///{home / 'control.db'}")
    digest = ArtifactStore(home / "artifacts").put({"model": b"weights"})
    with database.write() as connection:
        a_version(connection, artifact=digest)
        aliases.set_alias(connection, "flights", "champion", 1, decision="d", at=1)
    database.dispose()
    lake = a_lake(home)
    commit(lake, a_prediction("p1"), a_label("p1"))
    commit(lake, a_label("p2"))
    lake.close()
    (home / "wal").mkdir()
    (home / "run").mkdir()
    return home


def database_of(home: Path) -> ControlDatabase:
    return ControlDatabase(f"sqlite:///{home / 'control.db'}")


def test_a_healthy_installation_is_called_so_and_left_as_it_is(home: Path):
    before = tree(home)
    results = look(subject_of(home))
    wrong = [(name, each.what) for name, result in results.items() for each in result.findings
             if each.level == "problem"]  # fmt: skip
    assert wrong == []
    assert list(results) == list(CHECKS)
    assert "3 rows in 3 files of 2 tables" in results["lake"].summary
    assert tree(home) == before


# What is done to it -> check that sees it, what it says, whether it can be mended.
def no_folder(home: Path) -> None:
    (home / "wal").rmdir()
    (home / "run").rmdir()


def open_to_all(home: Path) -> None:
    home.chmod(0o777)


def torn_commit(home: Path) -> None:
    log = home / "lake" / "flights" / "feedback" / "_delta_log"
    newest = max(log.glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:40])


def empty_commit(home: Path) -> None:
    max((home / "lake" / "flights" / "feedback" / "_delta_log").glob("*.json")).write_bytes(b"")


def lost_file(home: Path) -> None:
    """Of a commit so old that it was synced for certain: no power cut did that."""
    lake = a_lake(home)
    for number in range(8):
        commit(lake, a_label(f"later-{number}"))
    lake.close()
    oldest = min((home / "lake" / "flights" / "feedback" / "_delta_log").glob("*1.json"))
    path = next(json.loads(line)["add"]["path"] for line in oldest.read_text().splitlines() if '"add"' in line)
    (home / "lake" / "flights" / "feedback" / path).unlink()


def rotten_file(home: Path) -> None:
    path = next((home / "lake" / "flights" / "predictions").glob("*/*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    path.write_bytes(content)


def dead_writer(home: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tests.storage.builders import a_log, a_label\n"
        "log = a_log(Path(sys.argv[1]), seal_seconds=60); log.append_durably([a_label('late')]).result(60)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, home], check=False, env=os.environ | {
        "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{Path.cwd()}"})  # fmt: skip
    assert list((home / "wal").glob("*/*.open"))


def empty_writer(home: Path) -> None:
    (home / "wal" / "1-dead").mkdir()
    (home / "wal" / "1-dead" / "lock").touch()


def waiting(home: Path) -> None:
    log = a_log(home, seal_seconds=60)
    log.append_durably([a_label("late")]).result(60)
    log.close()
    (sealed,) = (home / "wal").glob("*/*.sealed")
    os.utime(sealed, (time.time() - 900, time.time() - 900))


def set_aside(home: Path) -> None:
    (home / "wal" / ".quarantine").mkdir()
    (home / "wal" / ".quarantine" / "w-0000000001.jsonl").write_text("{}\n")


def lost_artifact(home: Path) -> None:
    next((home / "artifacts").glob("*/*.zip")).unlink()


def rotten_artifact(home: Path) -> None:
    path = next((home / "artifacts").glob("*/*.zip"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def no_database(home: Path) -> None:
    (home / "control.db").unlink()


def never_made(home: Path) -> None:
    for path in home.glob("control.db*"):
        path.unlink()


def no_write_ahead(home: Path) -> None:
    with closing(sqlite3.connect(home / "control.db")) as opened:
        opened.execute("PRAGMA journal_mode = DELETE")


def rotten_database(home: Path) -> None:
    with closing(sqlite3.connect(home / "control.db")) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'versions'").fetchone()[0]
    content = bytearray((home / "control.db").read_bytes())
    content[(page - 1) * 4096 : page * 4096] = os.urandom(4096)
    (home / "control.db").write_bytes(content)


def no_database_at_all(home: Path) -> None:
    (home / "control.db").write_bytes(b"Dear Sir or Madam, " * 1_000)


def dangling(home: Path) -> None:
    with closing(sqlite3.connect(home / "control.db")) as opened, opened:
        opened.execute("UPDATE versions SET snapshot = 'none'")


def older(home: Path) -> None:
    never_made(home)
    database = database_of(home)
    database.create()
    with database.write() as connection:
        migrate.upgrade(connection, to="0001")
    database.dispose()


def newer(home: Path) -> None:
    with closing(sqlite3.connect(home / "control.db")) as opened, opened:
        opened.execute("UPDATE alembic_version SET version_num = '9999'")


def left_behind(home: Path) -> None:
    path = home / "artifacts" / "ab"
    path.mkdir()
    (path / ".writing-xyz").touch()
    os.utime(path / ".writing-xyz", (0, 0))


def killed_part(home: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from leaven.runfile import announced\n"
        "with announced(Path(sys.argv[1]), 'flusher', at=1): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, home / "run"], check=False)


def silent_gateway(home: Path) -> None:
    database = database_of(home)
    routing.report(database, "g", {}, host=socket.gethostname(), pid=2**22 + 1, started_at=1, seen_at=NOW - 60_000_000)
    database.dispose()


def tomorrow(home: Path) -> None:
    database = database_of(home)
    in_a_day = time.time_ns() // 1_000 + 86_700_000_000  # now, not when this file was read: the tests take a while
    routing.report(database, "g", {}, host="elsewhere", pid=1, started_at=1, seen_at=in_a_day)
    database.dispose()


TROUBLES: list[tuple[Callable[[Path], None], str, str, bool]] = [
    (no_folder, "home", "wal, run: not there yet", True),
    (open_to_all, "home", "everybody on this machine may write", True),
    (torn_commit, "lake", "its log ends in what cannot be read: 00000000000000000002.json (it is torn", True),
    (empty_commit, "lake", "it is empty", True),
    (lost_file, "lake", "1 of its 10 files are missing", False),
    (rotten_file, "lake", "cannot be read", False),
    (dead_writer, "log", "its process died and left a segment open", True),
    (empty_writer, "log", "all that it wrote is in the lake", True),
    (waiting, "log", "1 sealed segments wait to be flushed, the oldest for 90", False),
    (set_aside, "log", "held what is no event", False),
    (lost_artifact, "artifacts", "is missing", False),
    (rotten_artifact, "artifacts", "its content has another digest", False),
    (no_database, "database", "it was here and is gone", False),
    (never_made, "database", "there is none yet", True),
    (no_write_ahead, "database", "keeps no write-ahead log", True),
    (rotten_database, "database", "malformed", False),
    (no_database_at_all, "database", "it cannot be read", False),
    (dangling, "database", "a row of versions refers to none of snapshots", False),
    (older, "database", "those of revision 0001", True),
    (newer, "database", "at revision 9999", False),
    (left_behind, "disk", "left it behind", True),
    (killed_part, "parts", "was killed and left its file", True),
    (silent_gateway, "parts", "its process is gone", True),
    (tomorrow, "clock", "something was recorded 86,", False),
]


@pytest.mark.parametrize(("spoil", "check", "says", "mendable"), TROUBLES, ids=[each[0].__name__ for each in TROUBLES])
def test_what_is_wrong_is_seen_left_alone_and_mended_when_asked(
    home: Path, spoil: Callable[[Path], None], check: str, says: str, mendable: bool
):
    spoil(home)
    before = tree(home)
    seen = [each for each in look(subject_of(home), check)[check].findings if says in each.what]
    assert len(seen) == 1
    assert (seen[0].mendable, seen[0].mended) == (mendable, None)
    assert seen[0].mend
    assert tree(home) == before
    mended = [each for each in look(subject_of(home), check, mend=True)[check].findings if says in each.what]
    assert (mended[0].mended is not None) == mendable, mended
    again = [each for each in look(subject_of(home), check)[check].findings if says in each.what]
    assert len(again) == (0 if mendable else 1)


def test_events_that_a_torn_commit_and_a_dead_writer_left_reach_the_lake_after_mending(home: Path):
    dead_writer(home)
    torn_commit(home)
    results = look(subject_of(home), "log", "lake", mend=True)
    assert {result.state for result in results.values()} == {"healthy"}
    lake = a_lake(home)
    assert Flusher(home / "wal", lake).flush_once() == 1
    assert lake.stats("flights").feedback.rows == 2  # the torn commit's row was never acknowledged as being there
    lake.close()


def test_a_table_that_a_flusher_works_on_is_not_mended(home: Path):
    torn_commit(home)
    database = database_of(home)
    lease = Lease(database, "flusher", "somebody")
    assert lease.acquire()
    finding = found(look(subject_of(home), "lake", mend=True)["lake"])
    assert finding.mended is None
    assert finding.trouble is not None
    assert "a flusher runs" in finding.trouble
    database.dispose()


def test_a_gateway_that_does_not_follow_is_told_from_one_that_does(home: Path):
    database = database_of(home)
    schema = Schema((("x", "float", False),), "user", "binary")
    with database.write() as connection:
        for revision in (1, 2):
            arms = arms_for(("1", "a"), None)
            routing.publish(connection, RoutingTable("flights", revision, 1, schema, "s", arms, (), ()))

    def report(name: str, revision: int) -> None:
        routing.report(
            database, name, {"flights": revision}, host="h", pid=1, started_at=1, seen_at=time.time_ns() // 1000
        )

    report("follows", 2)
    report("stays", 1)
    report("is about to", 1)
    later = threading.Timer(0.5, lambda: report("is about to", 2))
    later.start()
    finding = found(look(subject_of(home), "parts")["parts"])
    assert finding.where == "gateway stays"
    assert finding.what == "it routes flights by table 1, and 2 is published"
    later.join()
    database.dispose()


def test_parts_of_another_version_and_a_missing_flusher_are_seen(home: Path, monkeypatch: pytest.MonkeyPatch):
    import leaven.runfile

    monkeypatch.setattr(leaven.runfile, "__version__", "0.0.9")
    with announced(home / "run", "controller", at=1):
        results = look(subject_of(home), "versions", "parts")
    assert any("0.0.9" in each.what for each in results["versions"].findings)
    assert [each.what for each in results["parts"].findings] == ["no flusher runs"]
    assert stored_parts(home / "run") == []


def test_mistakes_in_the_environment_are_named(home: Path):
    subject = subject_of(home)
    spoilt = replace(subject, environment={"LEAVEN_DURABILTY": "os", "LEAVEN_LOG": "xml", "HOME": "/"})
    findings = {each.where: each for each in look(spoilt, "settings")["settings"].findings}
    assert findings["LEAVEN_DURABILTY"].mend == "Did you mean LEAVEN_DURABILITY?"
    assert "'xml' is none" in findings["LEAVEN_LOG"].what


def test_a_clock_file_is_looked_at_and_not_made(home: Path, tmp_path: Path):
    path = tmp_path / "clock"
    subject = subject_of(home, LEAVEN_CLOCK=f"file:{path}")
    assert "no clock file" in found(look(subject, "clock")["clock"]).what
    assert not path.exists()
    path.write_bytes(struct.pack("<q", 0))
    assert "nobody has ever set it" in found(look(subject, "clock")["clock"]).what
    path.write_bytes(struct.pack("<q", NOW))
    result = look(subject, "clock")["clock"]
    assert (result.state, found(result).level) == ("notes", "note")


def test_postgresql_is_looked_at_and_compared_with_our_clock(home: Path, postgres_url: str):
    subject = subject_of(home, LEAVEN_DATABASE=postgres_url)
    assert "no tables yet" in found(look(subject, "database")["database"]).what
    assert look(subject, "database", mend=True)["database"].state == "healthy"
    results = look(subject)
    assert results["database"].state == "healthy"
    assert "PostgreSQL" in results["database"].summary
    assert "s from the database server's" in results["clock"].summary


def test_a_probe_leaves_nothing_and_knows_the_file_system(tmp_path: Path):
    assert probe(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
    assert kind_of(Path("/proc")) == "proc"


def test_a_lock_that_two_can_hold_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path):
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)  # as on a network file system mounted without locks
    assert "two can hold one lock" in found(look(subject_of(home), "home")["home"]).what
    assert not list(home.glob(".doctor-*"))


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.slow  # it waits for a time limit, twice
def test_a_database_that_never_answers_costs_its_time_and_no_more(home: Path, silent_server: int, leaven):
    began = time.monotonic()
    ran = leaven("doctor", "--home", home, "--json", "--seconds", 6,
                 LEAVEN_DATABASE=f"postgresql+psycopg://x@127.0.0.1:{silent_server}/x")  # fmt: skip
    assert time.monotonic() - began < 90
    assert ran.returncode == 1
    results = {each["check"]: each for each in json.loads(ran.stdout)["checks"]}
    # Whichever is first on a busy machine: the check's own time, or the client's.
    summary = results["database"]["summary"]
    assert summary == "did not end within 6 s" or "connection timeout expired" in summary
    assert results["lake"]["state"] == "healthy"


def test_a_check_that_breaks_is_no_verdict_about_the_rest(home: Path):
    def broken(subject: Subject) -> Examined:
        raise ZeroDivisionError("so")

    results = examine(subject_of(home), {"broken": broken, "disk": CHECKS["disk"]}, seconds=60, timer=time.perf_counter)
    assert [result.state for result in results] == ["failed", "healthy"]
    assert found(results[0]).what == "ZeroDivisionError: so"


def test_the_command_says_it_all_and_ends_as_it_should(home: Path, leaven):
    well = leaven("doctor", "--home", home)
    assert well.returncode == 0, well.stdout + well.stderr
    assert "nothing is wrong" in well.stdout
    dead_writer(home)
    ill = leaven("doctor", "--home", home)
    assert ill.returncode == 1
    assert "1 problem; 1 of what was found can be mended: leaven doctor --mend" in ill.stdout
    mended = leaven("doctor", "--home", home, "--mend", "--json")
    assert mended.returncode == 0
    assert json.loads(mended.stdout)["healthy"]
    assert leaven("doctor", "--home", home, "--only", "liver").returncode == 2


def test_artifacts_in_a_bucket_are_read_there_and_not_copied(home: Path, bucket: str):
    subject = subject_of(home, LEAVEN_ARTIFACTS=f"{bucket}/models")
    assert "is missing" in found(look(subject, "artifacts")["artifacts"]).what
    artifacts_at(f"{bucket}/models", copies=home / "elsewhere").put({"model": b"weights"})
    shutil.rmtree(home / "elsewhere")
    before = tree(home)
    result = look(subject, "artifacts")["artifacts"]
    assert (result.state, result.summary) == ("healthy", "1 versions, the files of 1 read")
    assert tree(home) == before


def test_a_lake_in_a_bucket_is_looked_at_there(home: Path, bucket: str):
    lake = Lake(f"{bucket}/lake", scratch=home / "run" / "lake")
    commit(lake, a_label("p1"))
    lake.close()
    result = look(subject_of(home, LEAVEN_LAKE=f"{bucket}/lake"), "lake")["lake"]
    assert result.state == "healthy"
    assert result.summary.startswith("1 rows in 1 files of 1 tables, s3://")
