"""Are tokens kept so that they can be checked, listed and taken back, and not be read?"""

from __future__ import annotations

import os
from datetime import date

import pytest
from sqlalchemy import text

from leaven.errors import BadDefinition
from leaven.registry import tokens
from leaven.registry.loops import UnknownLoop
from leaven.registry.tokens import UnknownToken
from leaven.storage.control.database import ControlDatabase
from tests.control_databases import a_version


def make(database: ControlDatabase, name: str = "shop", **facts: object) -> tuple[str, tokens.TokenRecord]:
    given = {"random": os.urandom(40), "by": "person:me", "at": 100} | facts
    roles = given.pop("roles", ["serve"])
    with database.write() as connection:
        return tokens.create(connection, name, roles, **given)


def test_a_token_that_was_made_is_let_through_and_its_text_is_nowhere(database: ControlDatabase):
    token, record = make(database, roles=["feedback", "serve", "serve"])
    assert record.roles == ("serve", "feedback")
    known = tokens.newer(database, None)
    assert known is not None
    assert known.allowed(token, "feedback", "any", now=200).id == record.id
    with database.read() as connection:
        rows = connection.execute(text("SELECT * FROM tokens")).all()
    assert token not in str(rows)
    assert token[-43:] not in str(rows)


def test_a_change_is_seen_once_by_whoever_asks(database: ControlDatabase):
    empty = tokens.newer(database, None)
    assert empty is not None
    assert not empty.entries
    assert tokens.newer(database, empty.revision) is None
    token, record = make(database)
    known = tokens.newer(database, empty.revision)
    assert known is not None
    assert tokens.newer(database, known.revision) is None
    with database.write() as connection:
        tokens.revoke(connection, record.id, at=300)
    after = tokens.newer(database, known.revision)
    assert after is not None
    assert after.allowed(token, "serve", None, now=400) == "revoked"


def test_revoking_twice_keeps_the_first_moment_and_wakes_nobody(database: ControlDatabase):
    _, record = make(database)
    with database.write() as connection:
        first = tokens.revoke(connection, record.id, at=300)
        before = tokens.current(connection).revision
        again = tokens.revoke(connection, record.id, at=500)
        assert tokens.current(connection).revision == before
    assert (first, again.revoked_at) == (again, 300)
    with database.write() as connection, pytest.raises(UnknownToken, match=f"'nobody'. There are {record.id}"):
        tokens.revoke(connection, "nobody", at=1)


def test_a_token_can_be_limited_to_loops_that_exist(database: ControlDatabase):
    with database.write() as connection:
        a_version(connection, "flights")
    _, record = make(database, only=["flights"])
    assert record.loops == ("flights",)
    with pytest.raises(UnknownLoop):
        make(database, only=["hotels"])
    with database.read() as connection:
        assert len(tokens.tokens(connection)) == 1


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"name": " "}, "says nobody"),
        ({"name": "a\nb"}, "says nobody"),
        ({"roles": []}, "none given"),
        ({"roles": ["root"]}, "root given"),
        ({"expires": 100}, "passed already"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(database: ControlDatabase, facts: dict[str, object], why: str):
    with pytest.raises(BadDefinition, match=why):
        make(database, **facts)


def test_the_day_of_use_only_moves_on(database: ControlDatabase):
    _, record = make(database)
    _, other = make(database, "other")
    for day in (date(2026, 3, 2), date(2026, 3, 1), date(2026, 3, 3)):
        with database.write() as connection:
            before = tokens.current(connection).revision
            tokens.used(connection, [record.id], day=day)
            assert tokens.current(connection).revision == before  # gateways need not fetch anything for that
    with database.read() as connection:
        assert {one.id: one.used_on for one in tokens.tokens(connection)} == {record.id: "2026-03-03", other.id: None}


def test_a_token_is_valid_until_it_expires(database: ControlDatabase):
    _, record = make(database, expires=200)
    assert [record.state(now=now) for now in (199, 200)] == ["valid", "expired"]
