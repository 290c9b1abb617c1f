"""A shop whose visitors buy or do not: a past, a loop file, an installation, and the real processes on it.

Time is a file that the test moves from tick to tick, so what is decided does not depend on the machine's speed. The
gateway's answers come back over HTTP; nothing in the processes knows that it is tested.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from sqlalchemy import func, insert, select, text, update

from leaven.app import App
from leaven.clock import FileClock
from leaven.controller import state
from leaven.demo.stream import Sender
from leaven.duration import micros
from leaven.loop import Loop
from leaven.loopfile import load_loop
from leaven.registry import aliases, decisions, loops, routing, versions
from leaven.settings import Settings, environment_for_parts, settings_from
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import leases, metadata, routing_tables
from leaven.storage.history_file import History
from leaven.storage.importing import import_history
from leaven.storage.lake import Lake, parquet
from tests.controller.pasts import a_past, day
from tests.servers.postgres import PostgresServer

SERVED_FROM = 6.0  # days of history before the loop begins
PATIENCE = 120.0

LOOP_FILE = """
from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.experiments import Canary, Shadow
from leaven.gates import NotWorse, Sane
from leaven.learners import XGBoost
from leaven.training import Stateless
from leaven.triggers import Every
{extra}
loop = Loop(
    "shop",
    features=[Feature("x", "float"), Feature("z", "float")],
    unit="user",
    label=Label("bought", above=0.5, within="6h"),
    learner={learner},
    data=Recent("4d"),
    plan=Stateless(),
    triggers={triggers},
    gates={gates},
    rollout={rollout},
    holdout="1d",
    tick="12h",
)
"""
LOOP = {
    "extra": "",
    "learner": "XGBoost(rounds=5, max_depth=2, threads=1)",
    "triggers": '[Every("4d")]',
    "gates": '[Sane(), NotWorse("log_loss", margin=0.25, min_rows=50)]',
    "rollout": '[Shadow("12h", margin=0.25, min_units=40), Canary(0.5, each="12h", margin=0.75, min_units=20)]',
}
# A learner that takes its time, so that somebody can call it off, or kill its process, in the middle of it.
SLOW_LEARNER = """
import time


class Slow(XGBoost):
    def fit(self, data, *, seed):
        time.sleep({seconds})
        return super().fit(data, seed=seed)
"""


def write_loop(folder: Path, **parts: str) -> Path:
    """Write a loop file; parts that are not given are those of `LOOP`."""
    path = folder / "shop.py"
    path.write_text(LOOP_FILE.format(**(LOOP | parts)))
    return path


@dataclass
class Started:
    """A part of the installation, running as a process of its own."""

    name: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def end(self, seconds: float = 60) -> int:
        """Ask the process to end, and wait for it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # one that a test stopped would never end
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@dataclass
class World:
    """One installation with its clock; processes are started and ended by name."""

    home: Path
    loop_file: Path
    past: History
    seal_seconds: float = 0.05
    running: dict[str, Started] = field(default_factory=dict)
    sender: Sender | None = None
    gateway_port: int = 0
    besides: dict[str, str] = field(default_factory=dict)  # of the environment of its processes
    given: dict[str, str] = field(default_factory=dict)  # settings that are not the defaults
    postgres: PostgresServer | None = None  # where the control database is, if not in a file

    @cached_property
    def settings(self) -> Settings:
        plain = settings_from(self.given, home=self.home)
        clock = f"file:{plain.run / 'clock'}"
        # A challenger may take its time: what it answers is the story, not how fast this machine is.
        return replace(plain, clock=clock, seal_seconds=self.seal_seconds, challenger_seconds=60.0)

    @cached_property
    def clock(self) -> FileClock:
        return FileClock(self.settings.run / "clock")

    @cached_property
    def app(self) -> App:
        return App(self.settings)

    @cached_property
    def loop(self) -> Loop:
        return load_loop(self.loop_file)

    @property
    def environment(self) -> dict[str, str]:
        """Of every process of this installation."""
        ours = environment_for_parts(self.settings, parent=os.getpid()) | self.besides
        return {name: value for name, value in ours.items() if name != "LEAVEN_TEST_DATA"}  # the tests', not Leaven's

    def begin(self, at: float = SERVED_FROM) -> World:
        """Register the loop and bring in the history before day `at`, which the clock then shows."""
        self.clock.set(day(at))
        self.app.enter(self.loop_file)
        self.remember(at)
        return self

    def remember(self, at: float) -> None:
        """Bring in the history before day `at`; what is there already stays as it is."""
        until = int((self.past.at < _moment(day(at))).sum())
        file = self.home / "history.csv"
        file.write_text(_csv(self.past, until))
        import_history(self.app.lake, self.loop, file, time="at", label_time="told", unit="user")
        file.unlink()

    # Processes

    def start(self, name: str, *arguments: str, key: str | None = None, by: tuple[str, ...] = ("leaven",)) -> Started:
        """Start `leaven NAME ARGUMENTS…` on this installation; `by` is the module that runs it, with its own words."""
        log = self.home / "logs" / f"{key or name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *by, name, *arguments, "--home", str(self.home)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment,
            )  # fmt: skip
        started = self.running[key or name] = Started(name, process)
        return started

    def start_gateway(self, *, workers: int = 1) -> None:
        """Start a gateway on a free port, and a flusher, and wait until the gateway is ready."""
        log = self.home / "logs" / "gateway.log"
        said = log.stat().st_size if log.exists() else 0  # by those before it
        self.start("gateway", "--json", "--port", "0", "--workers", str(workers))
        self.start("flusher")
        self.gateway_port = self.wait(lambda: _port(log, said), "the gateway's port")

    def start_another_gateway(self) -> int:
        """Start one more gateway on the same installation, and return its port."""
        self.start("gateway", "--json", "--port", "0", key="gateway-2")
        return int(self.wait(lambda: _port(self.home / "logs" / "gateway-2.log", 0), "the second gateway's port"))

    def start_up(self, *, workers: int = 1) -> Started:
        """Start `leaven up` on a free port, and wait until everything runs."""
        up = self.start("up", str(self.loop_file), "--port", "0", "--workers", str(workers))
        self.wait(lambda: "Ctrl-C stops" in self.said(), "everything to run")
        self.gateway_port = int(self.said().partition("gateway     http://127.0.0.1:")[2].split()[0])
        return up

    def said(self) -> str:
        """What `leaven up` and its parts have said so far."""
        return (self.home / "logs" / "up.log").read_text()

    def workers(self) -> list[int]:
        """Process ids of the gateway's workers."""
        gateway = self.running["gateway"].pid if "gateway" in self.running else self.part("gateway")
        task = Path(f"/proc/{gateway}/task/{gateway}/children")
        return [int(pid) for pid in task.read_text().split()]

    def kill_worker(self, chance: random.Random) -> float:
        """Kill one of the gateway's workers, and wait until another stands in its place; return when it was gone."""
        before = self.workers()
        gone = chance.choice(before)
        os.kill(gone, signal.SIGKILL)
        killed = time.monotonic()
        self.wait(lambda: gone not in (now := self.workers()) and len(now) == len(before), "a new worker")
        return killed

    def part(self, name: str) -> int:
        """Process id of a part that `leaven up` runs, 0 while there is none."""
        found = [pid for pid, command in processes_of(self.home).items() if f" -m leaven {name} " in command]
        return found[0] if found else 0

    def run(self, *arguments: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a command of `leaven` on this installation to its end."""
        environment = self.environment | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
        return subprocess.run(
            [sys.executable, "-m", "leaven", *arguments, "--home", str(self.home)],
            capture_output=True, text=True, timeout=seconds, env=environment, check=False,
        )  # fmt: skip

    def kill_controller(self, key: str = "controller") -> None:
        """Kill the controller; its lease then ends at once, as it would by itself ten seconds later."""
        self.running.pop(key).kill()
        self.end_lease()

    def kill_flusher(self) -> None:
        """Kill the flusher; its lease ends at once as well."""
        self.running.pop("flusher").kill()
        self.end_lease("flusher")

    def end_lease(self, name: str = "controller") -> None:
        with self.app.database.write() as connection:
            connection.execute(update(leases).where(leases.c.name == name).values(until=0))

    def close(self) -> None:
        """End every process."""
        if self.sender is not None:
            self.sender.close()
        for name in ("gateway", "flusher", *self.running):
            if name in self.running:
                self.running.pop(name).end()
        self.app.close()
        if "clock" in self.__dict__:
            self.__dict__.pop("clock").close()

    # Time

    def begin_sending(self) -> Sender:
        self.sender = Sender(self.loop, self.past, host="127.0.0.1", port=self.gateway_port, clock=self.clock)
        return self.sender

    def send_until(self, days: float, *, shy: bool = False) -> None:
        """Send what happens before day `days`; `shy` leaves the clock just before it, and waits for the lake."""
        until = day(days) - timedelta(microseconds=1) if shy else day(days)
        if self.sender is None:
            self.clock.set(until)
        else:
            self.sender.send_until(until)
        if shy:
            self.wait(lambda: self.app.watermark() >= until, "the lake to hold everything", every=0.1)

    def pass_to(self, days: float) -> None:
        """Let time pass to day `days`: send what happens before it, and wait until all that it caused is done."""
        self.send_until(days)
        self.settle(days)

    def settle(self, days: float) -> None:
        self.wait(lambda: self.looked() >= micros(day(days)), "the controller to look")
        self.wait(lambda: not self.in_steps(), "the refresh to take its steps")
        if "gateway" in self.running:
            self.wait(self.in_force, "the gateways to take the routes")

    def wait(self, holds: Callable[[], Any], what: str, *, seconds: float = PATIENCE, every: float = 0.05) -> Any:
        """Wait until `holds` says something; `every` so many seconds it is asked, the less often the more it costs."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds:g} s in vain for {what}\n{self.logs()}")
            time.sleep(every)
        return found

    def logs(self) -> str:
        """The last lines of every process, for a message."""
        files = sorted((self.home / "logs").glob("*.log"))
        return "\n".join(f"--- {file.name}\n" + "\n".join(file.read_text().splitlines()[-15:]) for file in files)

    # What there is

    @property
    def control_file(self) -> Path:
        return self.home / "control.db"

    def looked(self) -> int:
        with self.app.database.read() as connection:
            return loops.loop(connection, "shop").looked_at or 0

    def refresh(self) -> state.Refresh | None:
        with self.app.database.read() as connection:
            return state.active_refresh(connection, "shop")

    def refreshes(self) -> list[state.Refresh]:
        with self.app.database.read() as connection:
            return state.latest_refreshes(connection, "shop", limit=100)

    def in_steps(self) -> bool:
        active = self.refresh()
        return active is not None and active.state != "proving"

    def trial(self) -> Any:
        with self.app.database.read() as connection:
            return state.active_trial(connection, "shop")

    def decisions(self, kind: str | None = None) -> list[Any]:
        with self.app.database.read() as connection:
            return decisions.decisions(connection, "shop", kind=kind)

    def alias(self, name: str = "champion") -> int | None:
        with self.app.database.read() as connection:
            return aliases.alias(connection, "shop", name)

    def version_numbers(self) -> list[int]:
        with self.app.database.read() as connection:
            return [version.number for version in versions.versions(connection, "shop")]

    def table(self) -> Any:
        with self.app.database.read() as connection:
            return routing.latest(connection, "shop")

    def newest_revision(self) -> int:
        """Of all routing tables."""
        with self.app.database.read() as connection:
            return connection.execute(select(func.max(routing_tables.c.revision))).scalar() or 0

    def in_force(self) -> bool:
        """Whether every gateway that lives routes by the latest table."""
        with self.app.database.read() as connection:
            latest = routing.latest(connection, "shop")
            serving = [one for one in routing.gateways(connection) if Path(f"/proc/{one.pid}").exists()]
        if latest is None:
            return True
        return bool(serving) and all(one.revisions.get("shop", 0) >= latest.revision for one in serving)

    def lease(self) -> tuple[str, int]:
        """Holder and token of the controller's lease."""
        query = select(leases.c.holder, leases.c.token).where(leases.c.name == "controller")
        with self.app.database.read() as connection:
            found = connection.execute(query).one_or_none()
        return (found.holder, found.token) if found else ("", 0)

    def lease_ended(self) -> bool:
        """Whether the controller's lease has run out, or was given back."""
        query = select(leases.c.until).where(leases.c.name == "controller")
        with self.app.database.read() as connection:
            return int(connection.execute(query).scalar_one()) <= time.time_ns() // 1000

    def feedback_ids(self) -> list[str]:
        """Ids of all feedback in the lake, as often as they are there."""
        return self.ids_in("feedback")

    def ids_in(self, table: str) -> list[str]:
        """Ids of all rows of a table of the lake, as often as they are there; those of shadows are left out."""
        live = "WHERE role = 'live'" if table == "predictions" else ""
        with TemporaryDirectory() as scratch, closing(Lake(self.settings.lake, scratch=Path(scratch))) as lake:
            kept = lake.table("shop", table)
            kept.refresh()
            if not (files := kept.files()):
                return []
            with lake.query() as opened:
                return [row[0] for row in opened.execute(f"SELECT id FROM {parquet(files)} {live}").fetchall()]

    def everything(self) -> dict[str, Any]:
        """All that the control database holds of the loop, but the seconds that something happened to take."""
        with self.app.database.read() as connection:
            tables = select(routing_tables).where(routing_tables.c.loop == "shop").order_by(routing_tables.c.revision)
            found = {
                "refreshes": state.latest_refreshes(connection, "shop", limit=100),
                "trials": state.latest_trials(connection, "shop", limit=100),
                "versions": versions.versions(connection, "shop"),
                "aliases": aliases.aliases(connection, "shop"),
                "who served when": aliases.history(connection, "shop"),
                "decisions": decisions.decisions(connection, "shop"),
                "routes": [dict(row._mapping) for row in connection.execute(tables)],
            }
        plain = msgspec.to_builtins(found, str_keys=True)
        for costly in [one["payload"] for one in plain["refreshes"]] + [one["lineage"] for one in plain["versions"]]:
            for what in (
                costly.get("training", {}),
                costly.get("otherwise", {}),
                costly.get("compared", {}).get("other", {}),
            ):
                for cost in ("cpu_seconds", "wall_seconds", "peak_memory_mb"):
                    what.pop(cost, None)
        for one in plain["decisions"]:
            arms = [one["evidence"].get(arm) or {} for arm in ("champion", "canary")]
            for seen, took in ((one["evidence"], "champion_seconds"), (one["evidence"], "shadow_seconds"),
                               *((arm, "seconds") for arm in arms)):  # fmt: skip
                seen.pop(took, None)
        return json.loads(json.dumps(plain, sort_keys=True, default=str))

    def copy_to(self, home: Path) -> None:
        """Keep in `home` all that there is now, as a killed machine would leave it; processes may run, at rest."""
        home.mkdir(parents=True)
        for name in ("control.db", "workflows.db"):
            if (self.home / name).exists():
                with closing(sqlite3.connect(self.home / name)) as ours, closing(sqlite3.connect(home / name)) as other:
                    ours.backup(other)
                    other.execute("PRAGMA journal_mode = WAL")
        for folder in ("lake", "artifacts", "run"):
            if (self.home / folder).exists():
                shutil.copytree(self.home / folder, home / folder)

    def move_database_to(self, server: PostgresServer) -> None:
        """Copy the control database, which nobody uses yet, into an empty PostgreSQL, and use that from now on."""
        self.given["LEAVEN_DATABASE"], self.postgres = server.url, server
        source, target = ControlDatabase(f"sqlite:///{self.control_file}"), ControlDatabase(server.url)
        target.migrate()
        with source.read() as ours, target.write() as theirs:
            for table in metadata.sorted_tables:
                rows = [dict(row) for row in ours.execute(select(table)).mappings()]
                if rows:
                    theirs.execute(insert(table), rows)
                for column in table.primary_key.columns:
                    if column.autoincrement is True:
                        ahead = f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), {10**6})"
                        theirs.execute(text(ahead))
        source.dispose()
        target.dispose()
        self.control_file.unlink()

    @contextmanager
    def database_away(self) -> Iterator[None]:
        """Take the control database away, and bring it back at the end."""
        if self.postgres is not None:
            self.postgres.end()
            yield
            self.postgres.start()
            return
        names = ("control.db", "control.db-wal", "control.db-shm")
        elsewhere = self.home.with_name("elsewhere")
        elsewhere.mkdir()
        for name in names:  # the file itself first: nobody can open it from then on
            if (self.home / name).exists():
                (self.home / name).rename(elsewhere / name)
        yield
        assert not self.control_file.exists(), "somebody made a new database in the place of the one that is away"
        for name in reversed(names):
            if (elsewhere / name).exists():
                (elsewhere / name).rename(self.home / name)


@contextmanager
def a_world(
    folder: Path, *, at: float = SERVED_FROM, given: dict[str, str] | None = None, **loop: str
) -> Iterator[World]:
    """An installation with history and nothing running yet; all that is started in the block ends with it."""
    folder.mkdir(parents=True, exist_ok=True)
    world = World(folder / "home", write_loop(folder, **loop), shop_past(), given=given or {})
    world.home.mkdir()
    try:
        yield world.begin(at)
    finally:
        world.close()


def shop_past() -> History:
    return a_past(16, per_day=200)


@contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Whether this process is the first of a test run to come here; the others wait until the first is through."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        first = not done.exists()
        yield first
        done.touch()


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two states differ, a line each; empty where they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [line for key in keys for line in differences(one.get(key), other.get(key), f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for at, (left, right) in pairs for line in differences(left, right, f"{where}/{at}")]
    return [] if one == other else [f"{where}: {one!r} is not {other!r}"]


def processes_of(home: Path) -> dict[int, str]:
    """Process ids and command lines of all living processes that name `home`, or that were started with it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            given = (entry / "environ").read_bytes()
            living = (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
            if living and (str(home) in command or f"LEAVEN_HOME={home}".encode() + b"\0" in given):
                found[int(entry.name)] = command
    return found


def _port(log: Path, since: int) -> int | None:
    for line in log.read_bytes()[since:].splitlines() if log.exists() else []:
        with suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["url"].rsplit(":", 1)[1])
    return None


def _moment(at: datetime) -> Any:
    import numpy as np

    return np.datetime64(at.replace(tzinfo=None), "us")


def _csv(past: History, rows: int) -> str:
    lines = ["at,told,user,x,z,bought"]
    for row in range(rows):
        told = "" if str(past.label_at[row]) == "NaT" else str(past.label_at[row])
        bought = past.outcome[row] if told else ""
        lines.append(f"{past.at[row]},{told},{past.unit[row]},{past.features['x'][row]!r},{past.features['z'][row]!r},"
                     f"{bought}")  # fmt: skip
    return "\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n"
