"""A set of parameters is a small JSON object, comes back as it was written, and is refused where it is not one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import BadDefinition
from leaven.experiments.parameters import FILE, MOST_BYTES, decoded, encoded, read_parameters

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))


@given(st.dictionaries(text, values, min_size=1, max_size=4))
def test_parameters_come_back_as_they_were_written(parameters):
    found, written = decoded(encoded(parameters))
    assert found == parameters
    assert json.loads(written) == parameters  # what callers are sent
    assert encoded(dict(reversed(parameters.items()))) == encoded(parameters)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (b"[]", "it is no JSON object"),
        (b'"be brief"', "it is no JSON object"),
        (b"{", "it is no JSON object"),
        (b'{"temperature": NaN}', "it is no JSON object"),
        (b'{"a": "\xff"}', "it is no JSON object"),
        (b"{}", "it holds no parameter"),
        (b'{"prompt": "' + b"x" * MOST_BYTES + b'"}', f"are more than {MOST_BYTES}. Keep large texts elsewhere"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested more than 32 deep"),
        (b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "JSON object|nested more than"),
    ],
    ids=range(9),
)
def test_what_is_no_set_of_parameters_is_refused(written, why):
    with pytest.raises(BadDefinition, match=why):
        read_parameters(written, where="prompt.json")
    with pytest.raises(BadDefinition, match=why):
        decoded({FILE: written})


def test_a_version_without_parameters_is_refused():
    with pytest.raises(BadDefinition, match="not among the version's files"):
        decoded({"manifest.json": b"{}"})
