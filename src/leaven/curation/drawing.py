"""Which rows of a stretch does a sample draw?

Every row has a key that follows from its id, the seed and, where age counts, its time: not from other rows, from their
order, or from the moment of asking. Those with the smallest keys are drawn (bottom-k). So a smaller sample is part of a
larger one, and rows that come later can take an old row's place, but never bring in an old row that was not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.events.columns import Column

FEATURE = "feature:"
TIMES = {"month": "M", "week": "W", "day": "D"}

Positions = NDArray[np.intp]
Keys = tuple[NDArray[np.generic], NDArray[np.uint64]]  # what orders the rows, and what breaks ties


def keys(ids: Column, at: Column, *, seed: int, half_life: timedelta | None = None) -> Keys:
    """Return the keys of rows; the smaller, the sooner a row is drawn.

    Without a half-life every row is as likely as any other. With one, the chance that a row is drawn next, of those
    that are left, is proportional to `2 ** (-age / half_life)`. As all ages grow alike, the moment that they are
    counted from cancels out: a row's key is the same at every refresh. (Logarithms differ in their last bit between
    machines: of a hundred million snapshots one could draw another row there, and its digest would say so.)

    Source:
        Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006): the smallest E / w, with E = -ln u
        exponential and w the weight. In logarithms here: ln E - ln 2 * at / half_life.
    """
    drawn = np.array([_hash(one, seed) for one in ids.tolist()], dtype=np.uint64)
    if half_life is None:
        return drawn, drawn
    uniform = ((drawn >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53  # inside (0, 1): 53 bits are what fits
    moments = at.astype("datetime64[us]").astype(np.int64).astype(np.float64)
    return np.log(-np.log(uniform)) - np.log(2) * moments / (half_life / timedelta(microseconds=1)), drawn


def in_turn(key: Keys, stratum: NDArray[np.int64], rows: int) -> Positions:
    """Return the positions of up to `rows` rows, ascending: equal numbers of every stratum as far as it has them."""
    ordering, tie = key
    order = np.lexsort((tie, ordering, stratum))
    starts = np.flatnonzero(np.r_[True, np.diff(stratum[order]) != 0])
    # The place of each row within its stratum: taking places in turn draws evenly from all strata.
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    turns = order[np.lexsort((tie[order], ordering[order], place))]
    return np.sort(turns[:rows])


def balanced(key: Keys, stratum: NDArray[np.int64], label: Column, *, rows: int, share: float) -> Positions:
    """Return up to `rows` positions, ascending, of which `share` have label 1; fewer rows rather than another share."""
    ones, zeros = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    total = int(min(rows, len(ones) / share, len(zeros) / (1 - share)))
    wanted = round(total * share)
    picked = [
        mine[in_turn((key[0][mine], key[1][mine]), stratum[mine], count)]
        for mine, count in ((ones, wanted), (zeros, total - wanted))
    ]
    return np.sort(np.concatenate(picked)).astype(np.intp)


def strata(
    by: str | None, at: Column, label: Column | None, features: Mapping[str, Column] | None
) -> NDArray[np.int64]:
    """Return a number for each row; rows with the same one are of one stratum.

    Args:
        by: Nothing, "month", "week", "day" (UTC), "label", or "feature:NAME" (its values, and having none).
        at: When each row was served.
        label: What came of it; needed for "label".
        features: Columns by name; needed for "feature:NAME". One that is missing in every row may be left out.
    """
    if by is None:
        return np.zeros(len(at), dtype=np.int64)
    if by in TIMES:
        return at.astype(f"datetime64[{TIMES[by]}]").astype(np.int64)
    if by == "label" and label is not None:
        return label.astype(np.int64)
    if by.startswith(FEATURE) and features is not None:
        column = features.get(by.removeprefix(FEATURE))
        return np.zeros(len(at), dtype=np.int64) if column is None else _numbered(column)
    raise BadDefinition(f"by={by!r}", "neither labels nor features are looked at here", "Sample by time here.")


def _numbered(column: Column) -> NDArray[np.int64]:
    """The same number for the same value, however the column came: 7 and 7.0 are one, None and NaN are one."""
    texts = [_text(given) for given in column.tolist()]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return np.array([numbers[text] for text in texts], dtype=np.int64)


def _text(given: object) -> str | float | None:
    if given is None or given != given:
        return None
    return given if isinstance(given, str) else float(given)  # type: ignore[arg-type]


def _hash(one: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}\0{one}".encode(), digest_size=8).digest())
