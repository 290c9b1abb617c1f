"""Features that are computed again, beside those that were served."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from leaven.curation.parity import Served, as_told, parity

AT = datetime(2026, 3, 1, tzinfo=UTC)
TYPES = {"carrier": "category", "wind": "float", "hour": "int", "weekend": "bool"}


def compared(name, old, new, tolerance=1e-6):
    served = [Served(f"p{i}", "u", AT, {} if value is None else {name: value}) for i, value in enumerate(old)]
    (found,) = parity(served, [{name: value} for value in new], types=TYPES, tolerance=tolerance)
    return found


@pytest.mark.parametrize(("name", "old", "new"), [
    ("wind", 1.5, 1.5), ("wind", 1.0, 1.0 + 5e-7), ("wind", None, None), ("wind", None, float("nan")),
    ("wind", 2.0, np.float32(2)), ("wind", 0.0, -0.0), ("hour", 7, 7.0), ("hour", 7, np.int64(7)),
    ("weekend", True, np.True_), ("weekend", True, 1), ("carrier", "7", 7), ("carrier", "UA", "UA"),
    ("carrier", None, None),
])  # fmt: skip
def test_what_is_the_same_however_it_is_written(name, old, new):
    assert compared(name, [old], [new]).differ == 0


@pytest.mark.parametrize(("name", "old", "new", "largest"), [
    ("wind", 1.0, 1.0 + 2e-6, 2e-6), ("wind", 4.0, 2.0, 0.5), ("wind", 1.5, None, None), ("wind", None, 1.5, None),
    ("wind", 1.5, float("inf"), None), ("wind", 1.5, "UA", None), ("hour", 7, 7.5, 0.5 / 7.5), ("hour", 0, 1, 1.0),
    ("weekend", True, False, 1.0), ("carrier", "UA", "ua", None), ("carrier", None, "UA", None),
])  # fmt: skip
def test_what_is_not(name, old, new, largest):
    found = compared(name, [old], [new])
    assert (found.differ, found.share) == (1, 1.0)
    assert found.largest == (None if largest is None else pytest.approx(largest, rel=1e-3))
    assert (found.examples[0].prediction, found.examples[0].served) == ("p0", old)


def test_the_share_counts_rows_and_the_examples_are_the_first():
    found = compared("wind", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 9.0, 9.0, 9.0, 9.0, 7.0, 8.01])
    assert (found.compared, found.differ, found.share) == (8, 5, 5 / 8)
    assert [example.prediction for example in found.examples] == ["p2", "p3", "p4"]
    assert found.largest == pytest.approx(6 / 9)
    assert compared("wind", [8.0], [8.01], tolerance=0.01).differ == 0


def test_only_what_was_computed_again_is_compared():
    served = [Served(f"p{i}", "u", AT, {"wind": 1.0, "hour": 3}) for i in range(3)]
    found = parity(served, [{"wind": 1.0}, {}, {"wind": 2.0}], types=TYPES)
    assert [(each.feature, each.compared, each.differ) for each in found] == [("wind", 2, 1)]


@pytest.mark.parametrize(("kind", "given", "told"), [
    ("int", 7.0, 7), ("bool", 1.0, True), ("float", 7.0, 7.0), ("category", 7.0, "7"), ("float", np.nan, None),
    ("int", "seven", "seven"), ("category", None, None),
])  # fmt: skip
def test_a_column_s_value_is_told_as_it_was_asked(kind, given, told):
    assert as_told(given, kind) == told
    assert type(as_told(given, kind)) is type(told)
