"""Can two processes ever act under one lease?"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select

from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.leases import Lease, LeaseLost, fenced
from tests.control_databases import migrated

ACTS = Table("acts", MetaData(), Column("seq", Integer, primary_key=True), Column("token", Integer),
             Column("holder", Text))  # fmt: skip

# Takes the lease again and again; writes what it did under the fence, and when it held it; at times it sleeps over the
# lease's end and tries to write under the old token.
CONTENDER = """
import json, random, sys, time
from sqlalchemy import text
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.leases import Lease, LeaseLost, fenced

url, holder, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
database, rng, held = ControlDatabase(url), random.Random(holder), []
lease = Lease(database, "controller", holder, seconds=0.1)
end = time.time() + seconds
while time.time() < end or (len(held) < 3 and time.time() < end + 60):
    if not lease.acquire():
        time.sleep(rng.uniform(0.002, 0.02))
        continue
    began = time.time()
    time.sleep(0.2 if rng.random() < 0.2 else rng.uniform(0, 0.05))
    try:
        with database.write() as connection:
            fenced(connection, "controller", lease.token)
            act = text("INSERT INTO acts (token, holder) VALUES (:token, :holder)")
            connection.execute(act, {"token": lease.token, "holder": holder})
    except LeaseLost:
        continue
    ended = time.time()  # before it is asked, so that a pause in between adds nothing to what was held
    if lease.held():
        held.append((began, ended))
    if rng.random() < 0.5:
        lease.release()
        time.sleep(rng.uniform(0, 0.03))
print(json.dumps(held))
"""


class Wall:
    """Real time, as the test wants it."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def wall() -> Wall:
    return Wall()


def holding(database: ControlDatabase, lease: Lease) -> bool:
    with database.read() as connection:
        try:
            fenced(connection, "controller", lease.token)
        except LeaseLost:
            return False
    return True


def test_the_second_waits_until_the_first_has_run_out(database: ControlDatabase, wall: Wall):
    a, b = (Lease(database, "controller", name, seconds=10, wall=wall) for name in "ab")
    assert (a.acquire(), b.acquire(), a.token) == (True, False, 1)
    wall.seconds += 9.9
    assert (a.held(), b.acquire(), b.held()) == (True, False, False)
    wall.seconds += 0.2
    assert (a.held(), b.acquire(), b.token) == (False, True, 2)
    assert (a.acquire(), holding(database, a), holding(database, b)) == (False, False, True)


def test_prolonging_keeps_the_token_and_only_a_change_of_holder_raises_it(database: ControlDatabase, wall: Wall):
    a, b = (Lease(database, "controller", name, seconds=10, wall=wall) for name in "ab")
    tokens = []
    for lease in (a, a, b, b, a):
        wall.seconds += 11  # whoever held it has run out
        assert lease.acquire()
        tokens.append(lease.token)
    assert tokens == [1, 1, 2, 2, 3]


def test_a_lease_given_back_is_free_at_once_and_its_token_is_dead(database: ControlDatabase, wall: Wall):
    a, b = (Lease(database, "controller", name, seconds=10, wall=wall) for name in "ab")
    a.acquire()
    a.release()
    assert not a.held()
    assert not holding(database, a)
    assert (b.acquire(), b.token) == (True, 2)
    a.release()  # what is another's cannot be given back
    assert (b.held(), holding(database, b), a.acquire()) == (True, True, False)


def test_leases_of_other_names_are_others(database: ControlDatabase, wall: Wall):
    assert Lease(database, "controller", "a", wall=wall).acquire()
    assert Lease(database, "flusher", "b", wall=wall).acquire()


def test_keeping_a_lease_writes_only_now_and_then_and_never_beyond_its_end(tmp_path: Path, wall: Wall):
    file = tmp_path / "control.db"
    database = migrated(f"sqlite:///{file}")
    lease = Lease(database, "flusher", "a", seconds=9, wall=wall)
    assert lease.keep()
    file.rename(tmp_path / "away.db")
    wall.seconds += 2.9
    assert lease.keep()  # asks nobody yet
    wall.seconds += 6
    assert lease.keep()  # nobody answers, and it has not run out
    wall.seconds += 0.2
    assert not lease.keep()
    (tmp_path / "away.db").rename(file)
    assert lease.keep()
    assert lease.token == 1
    database.dispose()


def test_a_write_behind_the_fence_is_taken_back_with_its_transaction(database: ControlDatabase, wall: Wall):
    a, b = (Lease(database, "controller", name, seconds=10, wall=wall) for name in "ab")
    with database.write() as connection:
        ACTS.create(connection)
    a.acquire()
    wall.seconds += 11
    b.acquire()

    def act_late() -> None:
        with database.write() as connection:
            connection.execute(insert(ACTS).values(token=a.token, holder="a"))
            fenced(connection, "controller", a.token)

    with pytest.raises(LeaseLost, match="'controller' is no longer held under token 1"):
        act_late()
    with database.write() as connection:
        fenced(connection, "controller", b.token)
        assert connection.execute(select(ACTS)).all() == []
        ACTS.drop(connection)
    with database.read() as connection, pytest.raises(LeaseLost):
        fenced(connection, "nobody's", 1)
    error = LeaseLost("a", 1)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_of_processes_that_contend_for_a_lease_never_two_hold_it(shared: ControlDatabase, shared_url: str):
    with shared.write() as connection:
        ACTS.create(connection)
    processes = [
        subprocess.Popen([sys.executable, "-c", CONTENDER, shared_url, name, "3"], stdout=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    said = [json.loads(process.communicate(timeout=180)[0]) for process in processes]
    spans = sorted((*span, who) for who, each in zip("abc", said, strict=True) for span in each)
    for (_, end, one), (start, _, other) in pairwise(spans):
        assert one == other or end <= start
    with shared.read() as connection:
        acts = connection.execute(select(ACTS).order_by(ACTS.c.seq)).all()
    tokens = [act.token for act in acts]
    assert tokens == sorted(tokens)  # nobody acted under a token older than one that had acted
    assert len({(act.token, act.holder) for act in acts}) == len(set(tokens))  # one holder per token
    # The test had something to find: several holdings, by more than one.
    assert len(spans) > 5
    assert len({act.holder for act in acts}) > 1
