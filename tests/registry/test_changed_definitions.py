"""Which edits of a loop are taken, and which are refused?"""

from __future__ import annotations

import pytest

from leaven.events import Label
from leaven.learners import Parameters
from leaven.loop import NOTHING, Feature
from leaven.registry import aliases, loops
from leaven.registry.changes import ChangeRefused, features_of
from leaven.storage.control.database import ControlDatabase
from tests.control_databases import a_loop, a_version

A_NUMBER = Label("y", within="1h")
NO_MODEL = {"learner": Parameters(), "data": NOTHING, "plan": NOTHING}


def put(connection, loop, at=9):
    return loops.put(connection, loop, path="loop.py", source="…", at=at)


def test_another_kind_of_answer_is_refused_while_a_version_serves(database: ControlDatabase):
    with database.write() as connection:
        put(connection, a_loop())
        assert put(connection, a_loop(label=A_NUMBER)).schema.task == "regression"  # nothing was made yet
        put(connection, a_loop())
        number = a_version(connection)
        aliases.set_alias(connection, "flights", "champion", number, decision="d", at=1)
    with database.write() as connection:
        with pytest.raises(ChangeRefused, match=r"a regression one, and version 1, which serves, gives binary ones"):
            put(connection, a_loop(label=A_NUMBER))
        assert loops.loop(connection, "flights").digest == a_loop().digest
        assert loops.definition(connection, "flights", a_loop(label=A_NUMBER).digest) is not None  # of before


def test_a_model_does_not_take_the_place_of_parameters_that_serve_nor_they_its(database: ControlDatabase):
    kinds = [a_loop(**NO_MODEL), a_loop()]
    with database.write() as connection:
        for loop in (*kinds, kinds[0]):
            put(connection, loop)  # nothing serves
        aliases.set_alias(connection, "flights", "champion", a_version(connection), decision="d", at=1)
    with database.write() as connection:
        with pytest.raises(ChangeRefused, match=r"would be a model, and version 1, which serves, is parameters"):
            put(connection, kinds[1])
        assert put(connection, a_loop(unit="visit", **NO_MODEL)).digest != kinds[0].digest


@pytest.mark.parametrize(
    "edit",
    [
        {"label": Label("y", above=3, within="2h")},
        {"unit": "visit"},
        {"features": [Feature("x", "category"), Feature("new", "int", required=True)]},
        {"features": [Feature("other", "bool")]},
    ],
)
def test_other_edits_are_taken_while_a_version_serves(database: ControlDatabase, edit):
    with database.write() as connection:
        aliases.set_alias(connection, "flights", "champion", a_version(connection), decision="d", at=1)
        changed = a_loop(**edit)
        assert put(connection, changed).schema == changed.schema


def test_the_features_of_a_definition_can_be_told_from_its_text():
    loop = a_loop(features=[Feature('a "b"', "category", required=True), Feature("c", "int")])
    assert features_of(repr(loop)) == (('a "b"', "category"), ("c", "int"))
    assert features_of("Loop('x')") == ()
