import sys
from textwrap import dedent

import pytest

from leaven.errors import BadDefinition
from leaven.loopfile import BadLoopFile, load_loop, load_loops

HEAD = """\
from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.learners import XGBoost
from leaven.training import Stateless

def a_loop(name, **other):
    return Loop(name, **{**dict(features=[Feature("x", "float")], unit="user", label=Label("y", above=0, within="1d"),
                learner=XGBoost(), data=AllHistory(), plan=Stateless()), **other})

"""


@pytest.fixture
def loop_file(tmp_path):
    def write(body, *, head=HEAD, name="own.py"):
        path = tmp_path / name
        path.write_text(head + dedent(body))
        return path

    return write


def test_the_variable_loop_is_preferred(loop_file):
    path = loop_file("""
        other = a_loop("other")
        loop = a_loop("main")
    """)
    assert load_loop(path).name == "main"
    assert load_loop(path, name="other").name == "other"
    assert [loop.name for loop in load_loops(path)] == ["other", "main"]


def test_the_only_loop_needs_no_special_variable(loop_file):
    assert load_loop(loop_file("flights = a_loop('flights')")).name == "flights"


def test_one_loop_under_two_variables_is_one_loop(loop_file):
    path = loop_file("flights = also = a_loop('flights')")
    assert [loop.name for loop in load_loops(path)] == ["flights"]


def test_a_loop_reads_what_stands_beside_its_file_while_it_runs_and_leaves_the_path_alone(loop_file, tmp_path):
    (tmp_path / "beside_the_loop.py").write_text("NAME = 'beside'")
    before = list(sys.path)
    assert load_loop(loop_file("import beside_the_loop\nloop = a_loop(beside_the_loop.NAME)")).name == "beside"
    assert sys.path == before


def test_an_edit_within_the_same_second_counts_and_no_cache_is_left(loop_file, tmp_path):
    first = load_loop(loop_file("loop = a_loop('one')"))
    second = load_loop(loop_file("loop = a_loop('two')"))  # the same length
    assert (first.name, second.name) == ("one", "two")
    assert not (tmp_path / "__pycache__").exists()


def test_the_file_cannot_be_imported_by_accident(loop_file):
    load_loop(loop_file("loop = a_loop('one')", name="private_name.py"))
    assert "private_name" not in sys.modules


def test_a_dataclass_in_the_file_works(loop_file):
    """Dataclasses with postponed annotations look their module up by name."""
    body = """
        from dataclasses import dataclass
        @dataclass
        class Names:
            main: str = "one"
        loop = a_loop(Names().main)
    """
    assert load_loop(loop_file(body, head="from __future__ import annotations\n" + HEAD)).name == "one"


def test_the_same_file_gives_equal_loops_of_equal_digest(loop_file):
    path = loop_file("loop = a_loop('one')")
    assert load_loop(path) == load_loop(path)
    assert load_loop(path).digest == load_loop(path).digest


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ("nothing = 1", r"own\.py: it defines no loop\. Write `loop = Loop"),
        ("a = a_loop('a'); b = a_loop('b')", r"own\.py: it defines 'a', 'b'\. Call one of the variables `loop`"),
        ("a = a_loop('a'); b = a_loop('a', tick='2h')", r"two loops are called 'a'"),
        ("loop = a_loop('a')\n1 / 0", r"own\.py:11: ZeroDivisionError: division by zero\. Mend the line"),
        ("loop = a_loop(", r"own\.py:10: it is not Python: '\(' was never closed\. Mend the line"),
        ("import no_such_module", r"own\.py:10: there is no module 'no_such_module'\. Install it"),
        ("raise SystemExit(3)", r"own\.py:10: SystemExit: 3"),
        ("loop = a_loop('a', tick='soon')", r"own\.py:7: Loop\('a'\), tick=…: 'soon' is no duration"),
        ("\0", r"not Python"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_line(loop_file, body, refusal):
    with pytest.raises(BadDefinition, match=refusal):
        load_loop(loop_file(body))


def test_a_missing_file_a_folder_and_an_unknown_name_are_refused(loop_file, tmp_path):
    with pytest.raises(BadLoopFile, match=r"there is no such file\. Name an existing file"):
        load_loop(tmp_path / "absent.py")
    with pytest.raises(BadLoopFile, match="cannot be read"):
        load_loop(tmp_path)
    with pytest.raises(BadLoopFile, match=r"no loop 'b'\. It defines 'a'"):
        load_loop(loop_file("loop = a_loop('a')"), name="b")
