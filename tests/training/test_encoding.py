import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.loop import Schema
from leaven.training.encoding import Encoder, as_category, encoder_for

SCHEMA = Schema(
    (("colour", "category", False), ("size", "float", False), ("count", "int", False), ("new", "bool", False)),
    "u",
    "binary",
)
COLOURS = Schema((("colour", "category", False),), "u", "binary")
colours = st.lists(st.none() | st.text(max_size=5), max_size=12)


def objects(*values):
    return np.array([*values, ""], dtype=object)[:-1]  # the extra one keeps NumPy from making a nested array


def test_rows_become_a_matrix_in_feature_order():
    columns = {
        "new": np.array([True, False, True]),
        "colour": objects("red", "blue", None),
        "count": objects(1, None, 3),
        "size": np.array([0.5, np.nan, 2.0]),
        "not a feature": objects("a", "b", "c"),
    }
    matrix = encoder_for(SCHEMA, columns).encode(columns)
    expected = [[1, 0.5, 1, 1], [0, np.nan, np.nan, 0], [np.nan, 2, 3, 1]]
    np.testing.assert_array_equal(matrix, np.array(expected))


def test_an_absent_feature_is_missing_in_every_row():
    encoder = encoder_for(SCHEMA, {"colour": objects("red")})
    matrix = encoder.encode({"size": np.array([1.0, 2.0])})
    np.testing.assert_array_equal(np.isnan(matrix), [[True, False, True, True]] * 2)


def test_no_columns_are_no_rows():
    assert encoder_for(SCHEMA, {}).encode({}).shape == (0, 4)


@given(colours, colours)
def test_a_code_once_given_keeps_its_meaning(first, then):
    parent = encoder_for(COLOURS, {"colour": objects(*first)})
    child = encoder_for(COLOURS, {"colour": objects(*then)}, parent=parent)
    known = parent.categories["colour"]
    assert child.categories["colour"][: len(known)] == known
    assert set(child.categories["colour"]) == {c for c in first + then if c is not None}
    np.testing.assert_array_equal(parent.encode({"colour": objects(*first)}), child.encode({"colour": objects(*first)}))


@given(colours, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_change_the_codes(values, random):
    shuffled = random.sample(values, len(values))
    assert encoder_for(COLOURS, {"colour": objects(*values)}) == encoder_for(COLOURS, {"colour": objects(*shuffled)})


@given(colours, colours)
def test_what_is_not_in_the_map_is_missing_and_what_is_comes_back(known, asked):
    encoder = encoder_for(COLOURS, {"colour": objects(*known)})
    codes = encoder.encode({"colour": objects(*asked)})[:, 0]
    back = [None if np.isnan(code) else encoder.categories["colour"][int(code)] for code in codes]
    assert back == [colour if colour in known else None for colour in asked]


@given(colours)
def test_an_encoder_survives_being_stored(known):
    encoder = encoder_for(COLOURS, {"colour": objects(*known)})
    assert msgspec.json.decode(msgspec.json.encode(encoder), type=Encoder) == encoder


@pytest.mark.parametrize(
    ("given", "category"),
    [("7", "7"), (7, "7"), (7.0, "7"), (7.5, "7.5"), (True, "true"), (np.bool_(True), "true"), (np.int64(7), "7"),
     (None, None), (float("nan"), None), ("", ""), (-0.0, "0"), (1e300, str(int(1e300)))],
)  # fmt: skip
def test_a_category_is_the_same_whichever_way_a_log_or_a_request_carries_it(given, category):
    assert as_category(given) == category


def test_numbers_as_categories_survive_the_way_through_a_log_that_makes_them_floats():
    encoder = encoder_for(COLOURS, {"colour": np.array([3, 1, 2])})
    assert encoder.categories == {"colour": ("1", "2", "3")}
    again = encoder.encode({"colour": np.array([1.0, np.nan, 3.0])})[:, 0]
    np.testing.assert_array_equal(again, [0, np.nan, 2])


def test_text_that_is_no_number_is_missing_to_a_version_that_takes_numbers():
    encoder = Encoder((("x", "float", True),), {})
    column = np.array(["1.5", "blue", None, 2, "nan"], dtype=object)
    np.testing.assert_array_equal(encoder.encode({"x": column})[:, 0], [1.5, np.nan, np.nan, 2.0, np.nan])
