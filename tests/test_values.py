from dataclasses import KW_ONLY, FrozenInstanceError, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.curation import AllHistory, Recent, Sample
from leaven.errors import BadDefinition
from leaven.events import Happens, Label
from leaven.experiments import Canary, Shadow
from leaven.gates import NotWorse, Sane
from leaven.learners import XGBoost
from leaven.loop import Feature
from leaven.training import Stateful, Stateless
from leaven.triggers import Drops, Every, LabelsGrow
from leaven.values import from_written, value


@value
class Pot:
    size: float
    name: str = "clay"
    count: int = 1
    _: KW_ONLY
    tags: tuple[object, ...] = ()
    deep: object = field(default=None)


def written_again(given: object) -> object:
    return eval(repr(given))


texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | st.integers() | numbers | texts
nested = st.recursive(plain, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)
names = st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text)
units = st.sampled_from(["s", "min", "m", "h", "d", "w"])
lengths = st.tuples(st.integers(1, 400).map(str), units).map("".join)
ways = st.sampled_from(["last", "first", "majority"])
counts, shares = st.integers(1, 10_000), st.floats(1e-6, 1.0)

loop_values = st.one_of(
    st.builds(Feature, names, st.sampled_from(["category", "float", "int", "bool"]), required=st.booleans()),
    st.builds(Label, names, within=lengths, above=st.none() | numbers, take=ways),
    st.builds(Label, names, within=lengths, below=st.none() | numbers),
    st.builds(Happens, names, within=lengths),
    st.builds(XGBoost, st.integers(1, 2000), st.integers(0, 20), shares, update_rounds=counts, subsample=shares),
    st.builds(Recent, lengths),
    st.builds(lambda length, rows: Recent(length) + Sample("before 28d", rows=rows, by="month"), lengths, counts),
    st.builds(Every, lengths),
    st.builds(LabelsGrow, shares),
    st.sampled_from([AllHistory(), Stateless(), Stateful(), Sane(), Drops("roc_auc", by=0.02)]),
    st.sampled_from([NotWorse("log_loss", on="fresh"), NotWorse("log_loss", on="past", margin=0.01)]),
    st.sampled_from([Shadow("1d"), Canary(0.1, 0.5, each="12h")]),
)  # fmt: skip


@given(st.builds(Pot, numbers, texts, st.integers(), tags=st.lists(nested, max_size=3).map(tuple), deep=plain))
def test_a_value_prints_the_expression_that_makes_it_again(pot):
    again = eval(repr(pot), {"Pot": Pot})
    assert repr(again) == repr(pot)  # equal but for sequences, which are written as lists in a loop file
    assert (again.size, again.name, again.count, again.deep) == (pot.size, pot.name, pot.count, pot.deep)


@given(loop_values)
def test_every_value_of_a_loop_file_prints_the_expression_that_makes_it_again(given):
    assert written_again(given) == given
    assert repr(written_again(given)) == repr(given)
    assert hash(written_again(given)) == hash(given)


@given(
    st.one_of(
        st.builds(Label, names, within=lengths, above=st.none() | numbers), st.builds(Happens, names, within=lengths)
    )
)
def test_a_stored_label_rule_is_made_again_without_running_it(rule):
    assert from_written(repr(rule), {"Label": Label, "Happens": Happens}) == rule


@pytest.mark.parametrize(
    "text", ["__import__('os')", "Label(open('x'), within='1d')", "Other()", "Label", "1 +", "Label('y')"]
)
def test_nothing_but_written_values_is_made_again(text):
    with pytest.raises(BadDefinition, match="Label"):
        from_written(text, {"Label": Label})


@pytest.mark.parametrize(
    ("pot", "shown"),
    [
        (Pot(1.0), "Pot(1.0)"),
        (Pot(1.0, "iron"), 'Pot(1.0, "iron")'),
        (Pot(1.0, "clay", 3), "Pot(1.0, count=3)"),
        (Pot(1.0, tags=("a", 2)), 'Pot(1.0, tags=["a", 2])'),
        (Pot(1.0, 'a "quoted" name'), "Pot(1.0, 'a \"quoted\" name')"),
        (Pot(1.0, deep=Pot(2.0)), "Pot(1.0, deep=Pot(2.0))"),
    ],
    ids=str,
)
def test_what_is_at_its_default_is_left_out(pot, shown):
    assert repr(pot) == shown


def test_a_value_is_frozen_and_equal_by_content():
    with pytest.raises(FrozenInstanceError):
        Pot(1.0).size = 2.0
    assert Pot(1.0) == Pot(1.0) != Pot(2.0)
    assert len({Pot(1.0), Pot(1.0)}) == 1


def test_a_class_keeps_a_repr_of_its_own():
    @value
    class Loud:
        name: str

        def __repr__(self):
            return self.name.upper()

    assert repr(Loud("hey")) == "HEY"
