"""Which numbers does a server's reply hold, one per row?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.endpoints.failures import EndpointFailed

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NESTED = 8


def numbers(data: Any, *, what: str) -> NDArray[np.float64]:
    """Return the numbers of nested lists, flat; null is NaN.

    Raises:
        EndpointFailed: `what` holds something that is no number.
    """
    flat = data if isinstance(data, list) else [data]
    for _ in range(_NESTED):
        if not flat or not isinstance(flat[0], list):
            break
        if not all(isinstance(part, list) and len(part) == len(flat[0]) for part in flat):
            raise EndpointFailed("no answer", f"answered lists of different lengths in {what}")
        flat = [value for part in flat for value in part]
    if not _NUMBERS.issuperset(map(type, flat)):
        wrong = next(value for value in flat if type(value) not in _NUMBERS)
        raise EndpointFailed("no answer", f"answered {repr(wrong)[:60]}, which is no number, in {what}")
    try:
        return np.array(flat, dtype=np.float64)
    except OverflowError:
        raise EndpointFailed("no answer", f"answered a number beyond all bounds in {what}") from None


class WhichAnswer(EndpointFailed):
    """A reply holds several numbers per row, and nobody said which is the answer."""

    def __init__(self, width: int, what: str) -> None:
        super().__init__("no answer", f"answered {width} numbers per row in {what}, and none is named the answer")
        self.args, self.width = (width, what), width


_NUMBERS = frozenset({bool, int, float, type(None)})


def per_row(values: NDArray[np.float64], rows: int, column: int | None, *, what: str) -> NDArray[np.float64]:
    """Return one of the numbers of each row: the one at `column`, which may be left out where there is only one.

    Raises:
        EndpointFailed: they are not as many for each of `rows` rows, or `column` is not among them.
    """
    width, rest = divmod(len(values), rows)
    if rest or width == 0:
        raise EndpointFailed("no answer", f"answered {len(values)} numbers to {rows} rows in {what}")
    if column is None and width > 1:
        raise WhichAnswer(width, what)
    place = column or 0
    if not -width <= place < width:
        raise EndpointFailed(
            "no answer", f"answered {width} numbers per row in {what}, and the answer is number {place}"
        )
    return values.reshape(rows, width)[:, place]
