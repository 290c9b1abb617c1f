"""Would this salt deal the units fairly?

Before a trial begins, the units seen lately are dealt as the trial would deal them. Hash and code are checked against
known answers, the shares against the plan, the deal against the trial before it; and the would-be arms are compared on
what happened before either existed, where nothing can differ. A salt that is unlucky in one of these is replaced by the
next one, before anybody was served by it.

Drawing again makes the arms more alike than chance does, so tests of the trial err a little less than they promise
(Morgan and Rubin, "Rerandomization to improve covariate balance", Annals of Statistics 40:2, 2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.experiments.assignment import POSITIONS, position, threshold
from leaven.stats.comparison import Fixed, compare
from leaven.stats.estimate import mean_estimate
from leaven.stats.moments import moments
from leaven.stats.split import split_p_value

TRIES = 3
DEAL_ALPHA = 1e-4  # of each check of shares, and of the deal's independence of the one before
ALIKE_ALPHA = 1e-3  # of each comparison of the would-be arms
LEAST_UNITS = 100  # in all; with fewer nothing is said
LEAST_EACH = 30  # in each would-be arm

# Units, salts and places from the vectors that other languages are tested against.
KNOWN_ANSWERS = (
    ("", "", 660475804), ("user-7", "", 143870083), ("Zoë", "", 2899832655), ("🙂", "", 2431158021),
    ("日本語", "", 2823095251), ("user-7", "flights", 2122735211), ("1", "flights", 2904167326),
)  # fmt: skip


class Share(msgspec.Struct, frozen=True):
    """A share that the trial will give to one arm, and how the salt deals it."""

    planned: float
    units: int  # that it deals to the arm, of all
    p_value: float  # of so uneven a deal
    alike: float | None  # p-value of the would-be arms' difference; None where too few units have a loss
    difference: float | None  # arm minus others, of the mean loss before the trial


class Try(msgspec.Struct, frozen=True):
    """One salt, tried."""

    salt: str
    shares: tuple[Share, ...]
    independence: float | None  # p-value of the deal beside that of the trial before; None where there was none
    passed: bool


class SelfTest(msgspec.Struct, frozen=True):
    """What the salts' test found; the trial takes `salt`."""

    salt: str
    passed: bool
    why: str
    units: int
    with_loss: int
    known_answers: bool  # the hash gives the frozen vectors
    tries: tuple[Try, ...] = ()


def self_test(
    units: Sequence[str],
    losses: NDArray[np.float64],
    *,
    salt: str,
    shares: Sequence[float],
    previous: str | None = None,
) -> SelfTest:
    """Return which of at most three salts deals these units fairly.

    A fair salt is replaced with probability of about 0.1 % per share; three times in a row one in a billion.

    Args:
        units: Seen lately, each once.
        losses: Mean loss of each under the champion, before the trial; NaN where it has none. Same length.
        salt: Of the trial; the next ones are `salt/2` and `salt/3`.
        shares: Of the arm at the trial's steps; those of 0 and 1 have nothing to deal.
        previous: Salt of the trial before this one.
    """
    known = all(position(unit, salt=given) == place for unit, given, place in KNOWN_ANSWERS)
    counted = len(units), int((~np.isnan(losses)).sum())
    dealt = sorted({share for share in shares if 0 < share < 1})
    if not known:
        return SelfTest(
            salt, False, "the hash does not give its known answers: this build deals wrongly", *counted, known
        )
    if not dealt:
        return SelfTest(salt, True, "every unit is in it: there is nothing to deal", *counted, known)
    if len(units) < LEAST_UNITS:
        why = f"{len(units)} units seen lately are too few to test the deal on (of {LEAST_UNITS})"
        return SelfTest(salt, True, why, *counted, known)
    before = None if previous is None else _places(units, previous)
    tries: list[Try] = []
    while len(tries) < TRIES and not (tries and tries[-1].passed):
        named = salt if not tries else f"{salt}/{len(tries) + 1}"
        tries.append(_tried(named, _places(units, named), before, losses, dealt))
    taken = tries[-1] if tries[-1].passed else max(tries, key=_least)
    return SelfTest(taken.salt, taken.passed, _why(taken, tries, len(units)), *counted, known, tuple(tries))


def _places(units: Sequence[str], salt: str) -> NDArray[np.int64]:
    return np.array([position(unit, salt=salt) for unit in units], dtype=np.int64)


def _tried(
    salt: str,
    places: NDArray[np.int64],
    before: NDArray[np.int64] | None,
    losses: NDArray[np.float64],
    shares: Sequence[float],
) -> Try:
    seen = tuple(_share(share, places < threshold(share), losses) for share in shares)
    independence = None if before is None else _independence(places, before)
    fair = all(each.p_value > DEAL_ALPHA and (each.alike is None or each.alike > ALIKE_ALPHA) for each in seen)
    return Try(salt, seen, independence, fair and (independence is None or independence > DEAL_ALPHA))


def _share(planned: float, dealt: NDArray[np.bool_], losses: NDArray[np.float64]) -> Share:
    units = int(dealt.sum())
    p_value = split_p_value([units, len(dealt) - units], [planned, 1 - planned])
    arm, others = moments(losses[dealt & ~np.isnan(losses)]), moments(losses[~dealt & ~np.isnan(losses)])
    if min(arm.count, others.count) < LEAST_EACH:
        return Share(planned, units, p_value, None, None)
    found = compare(mean_estimate(others), mean_estimate(arm), Fixed(ALIKE_ALPHA))
    if not math.isfinite(found.p_value):  # nothing varies
        return Share(planned, units, p_value, None, found.difference)
    return Share(planned, units, p_value, found.p_value, found.difference)


def _independence(places: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    """P-value of Pearson's test: whether which quarter a unit is in says which quarter it was in before."""
    from scipy.special import chdtrc

    quarter = POSITIONS // 4
    seen = np.bincount(4 * (places // quarter) + before // quarter, minlength=16).reshape(4, 4).astype(float)
    expected = seen.sum(1, keepdims=True) * seen.sum(0, keepdims=True) / seen.sum()
    if (expected == 0).any():  # a quarter without a unit: no fair deal, whatever the other one says
        return 0.0
    return float(chdtrc(9, float(((seen - expected) ** 2 / expected).sum())))


def _least(tried: Try) -> float:
    """How unlucky a salt is: the least of its p-values, each as a multiple of what is asked of it."""
    values = [each.p_value / DEAL_ALPHA for each in tried.shares]
    values += [each.alike / ALIKE_ALPHA for each in tried.shares if each.alike is not None]
    return min([*values, *([] if tried.independence is None else [tried.independence / DEAL_ALPHA])])


def _why(taken: Try, tries: Sequence[Try], units: int) -> str:
    alike = [each.alike for each in taken.shares if each.alike is not None]
    compared = (
        f"the would-be arms were alike before it (p = {min(alike):.2g})" if alike
        else "too few of them have a loss to compare the would-be arms by"
    )  # fmt: skip
    deals = f"dealt as planned (p = {min(each.p_value for each in taken.shares):.2g})"
    if taken.independence is not None:
        deals += f", anew since the last trial (p = {taken.independence:.2g})"
    if not taken.passed:
        return f"none of {len(tries)} salts dealt {units:,} units fairly; the least unlucky one is taken"
    again = "" if len(tries) == 1 else f"; salt {len(tries)}, as {len(tries) - 1} before it dealt unluckily"
    return f"{units:,} units seen lately are {deals}; {compared}{again}"
