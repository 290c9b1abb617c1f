"""How should a challenger of this loop be proven, how many units does that take, and how many days?

The answer follows from a few facts by rules that are written down here, in the order in which they are asked:

1. If the outcome does not depend on what is served, a shadow that is compared pair by pair tells as much as serving.
2. For a ranker, interleaving tells two orders apart on a fraction of the users.
3. Where exploring is acceptable, labels come fast and there are many candidates (or the best differs by context), a
   bandit spends fewer users on the worse ones.
4. Else an A/B test, if its units come within eight weeks.
5. Else a canary, which can show harm, though not a small gain; and where not even that, a shadow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import msgspec

from leaven.errors import BadDefinition
from leaven.experiments.rollout_text import rollout_for
from leaven.experiments.sizing import Sizing, size_by_log
from leaven.stats.boundaries import inflation
from leaven.stats.moments import Moments
from leaven.stats.size import Plan, smallest_effect
from leaven.stats.unit_curve import UnitCurve

Harm = Literal["low", "medium", "high"]
Strategy = Literal["shadow", "paired shadow", "canary", "interleaving", "A/B", "bandit", "contextual bandit"]

LONGEST_DAYS = 56  # a test that takes longer is overtaken by the next version
FAST_DAYS = 1.0  # a bandit learns from labels that come within this
LOOKS = 14
MARGIN = 0.25  # of the loss: what `Canary` lets pass by default
PAIRING = 0.2  # of the loss's variance is left in the difference of two versions' losses on the same rows
INTERLEAVING = 10.0  # times fewer units than an A/B test of clicks
_OVERS = (1, 7, 14)  # days for which a test may measure each unit
ANY_TIME = 1.7  # times the units of a test with one look, for a test that may be stopped at any time


class Facts(msgspec.Struct, frozen=True):
    """What is known of a loop."""

    metric: str  # a loss
    ranker: bool = False  # answers order a list that a user sees
    outcome_depends: bool = True  # on what is served: an offer that is not shown is not bought
    effect: float = 0.02  # smallest one worth having, a share of the metric's mean
    harm: Harm = "medium"  # what a bad answer costs
    candidates: int = 1  # versions to choose from, beside the champion
    context: bool = False  # the best version differs by user or situation
    explore: bool = False  # serving what is probably worse, in order to learn, is acceptable
    window: float = 0.0  # days until a label is mature
    delay: float | None = None  # days within which 90 % of the labels are heard of; None where nobody knows
    labelled: float = 1.0  # share of the predictions that get a label
    losses: dict[int, Moments] = {}  # of units' means, by the days over which they were taken; empty: unknown
    curve: UnitCurve | None = None  # of the units that come; None: unknown
    pairing: float | None = None  # share of the variance that pairing leaves; None: nobody has seen a shadow yet


class Advice(msgspec.Struct, frozen=True):
    """What to do, why, and what it takes."""

    strategy: Strategy
    why: str
    stages: str  # as a loop file has it: rollout=[…]
    per_arm: int | None  # units; of a paired shadow and of interleaving, whose units see both arms, all of them
    total_units: int | None
    days: int | None  # of the deciding stage: a week and two label windows at least; None: unknown, or never
    warnings: tuple[str, ...] = ()


def advise(facts: Facts) -> Advice:
    """Return the strategy for a loop of which these facts are known.

    Raises:
        BadDefinition: a fact is out of range.
    """
    _check(facts)
    test = _test(facts)
    strategy = _strategy(facts, test)
    per_arm, total, days = _size(facts, strategy, test)
    units, lasts, over = (None, None, 1.0) if test is None else (test.total, test.lasts.days, test.over)
    stages = rollout_for(
        strategy, metric=facts.metric, harm=facts.harm, window=facts.window, units=units, over=over,
        days=days if strategy == "paired shadow" else lasts, curve=facts.curve, labelled=facts.labelled,
    )  # fmt: skip
    warnings = (*stages.warnings, *_warnings(facts, strategy, test))
    why = f"{_reason(facts, strategy, test)} {_numbers(facts, strategy, per_arm, total, days)}".strip()
    return Advice(strategy, why, stages.text, per_arm, total, days, warnings)


def _check(facts: Facts) -> None:
    if not 0 < facts.effect < 1:
        raise BadDefinition("effect", f"{facts.effect:g} is no share of the mean", "Give 0.02 for 2 %.")
    if facts.candidates < 1 or not 0 < facts.labelled <= 1 or facts.window < 0:
        raise BadDefinition("facts", "one is out of range", "Keep candidates >= 1, 0 < labelled <= 1, window >= 0.")


def _test(facts: Facts, *, effect: float | None = None, times: float | None = None) -> Sizing | None:
    """The A/B test that finds the effect soonest, or None where the spread or the units are not known."""
    if not facts.losses or facts.curve is None:
        return None
    mean = facts.losses[max(facts.losses)].mean
    if not mean or any(loss.count < 2 or not loss.variance for loss in facts.losses.values()):
        return None
    plan = Plan(abs(mean) * (facts.effect if effect is None else effect), alpha=0.05 / facts.candidates)
    sized = [
        size_by_log(
            facts.losses, facts.curve, plan, over=each, window=facts.window, share=facts.labelled,
            times=_looks(facts) if times is None else times,
        )
        for each in _OVERS if each <= max(facts.losses)
    ]  # fmt: skip
    return min(sized, key=lambda test: (test.lasts.days or math.inf, test.total))


def _looks(facts: Facts) -> float:
    return _fourteen_looks(0.05 / facts.candidates)


@lru_cache(maxsize=64)
def _fourteen_looks(alpha: float) -> float:
    """How many times the units of one look a test takes that is looked at on every of 14 days."""
    return inflation([look / LOOKS for look in range(1, LOOKS + 1)], alpha=alpha, power=0.8)


def _strategy(facts: Facts, test: Sizing | None) -> Strategy:
    if not facts.outcome_depends:
        return "paired shadow"
    if facts.ranker:
        return "interleaving"
    fast = facts.delay is not None and facts.delay <= FAST_DAYS
    if facts.explore and fast and (facts.context or facts.candidates > 1):
        return "contextual bandit" if facts.context else "bandit"
    if test is None or _in_time(test):
        return "A/B"
    harm = _test(facts, effect=MARGIN, times=1.0)
    return "canary" if harm is not None and _in_time(harm) else "shadow"


def _in_time(test: Sizing) -> bool:
    return test.lasts.days is not None and test.lasts.days <= LONGEST_DAYS


def _size(facts: Facts, strategy: Strategy, test: Sizing | None) -> tuple[int | None, int | None, int | None]:
    if test is None:
        return None, None, None
    if strategy == "paired shadow":
        return _both_arms(facts, ANY_TIME * _left(facts) / 2)
    if strategy == "interleaving":
        return _both_arms(facts, 1 / INTERLEAVING)
    if strategy in ("bandit", "contextual bandit"):
        arms = facts.candidates + 1
        several = _test(facts, times=_looks(facts) * arms / 2)
        assert several is not None  # the same facts as those of `test`
        return math.ceil(several.total / arms), several.total, several.lasts.days
    if strategy in ("canary", "shadow"):
        test = _test(facts, effect=MARGIN, times=1.0)
        assert test is not None
    return test.control, test.total, test.lasts.days


def _both_arms(facts: Facts, times: float) -> tuple[int, int, int | None]:
    """Units that see both arms each: `times` as many as all units of an A/B test with one look."""
    test = _test(facts, times=times)
    assert test is not None
    return test.total, test.total, test.lasts.days


def _left(facts: Facts) -> float:
    return PAIRING if facts.pairing is None else facts.pairing


def _reason(facts: Facts, strategy: Strategy, test: Sizing | None) -> str:
    if strategy == "paired shadow":
        left, seen = 100 * _left(facts), "assumed" if facts.pairing is None else "as in the last shadow"
        return (
            "What happens does not depend on what is served, so a challenger that answers unseen can be judged on the "
            f"same rows as the champion. Pair by pair, {left:.3g} % of the spread is left ({seen})."
        )
    if strategy == "interleaving":
        return (
            "A ranker's user can be shown both orders in one list, and says by a click which one found it. That takes "
            f"about {INTERLEAVING:g} times fewer users than comparing groups of them (assumed: simulations give 3 to "
            "14, companies report 10 to 100)."
        )
    if strategy in ("bandit", "contextual bandit"):
        what = "the best one differs by context" if facts.context else "users should not pay for the worse ones"
        return (
            f"There are {facts.candidates + 1} arms with the champion, {what}, exploring is acceptable, and 90 % of "
            f"the labels are heard of within {_days(facts.delay or 0.0)}: a bandit moves users to the better arms "
            "while it learns. It spares users the worse arms, but telling two arms apart takes no fewer units."
        )
    if strategy == "A/B":
        return "What happens depends on what is served, so only served users can tell which version is better."
    longest = f"takes longer than {LONGEST_DAYS} days" if test and test.lasts.days else "never gets its units"
    if strategy == "canary":
        return (
            f"An A/B test for an effect of {100 * facts.effect:.3g} % {longest} here. A canary still shows harm: a "
            f"loss that is {100 * MARGIN:g} % higher."
        )
    return (
        f"An A/B test for an effect of {100 * facts.effect:.3g} % {longest} here, and not even harm of "
        f"{100 * MARGIN:g} % would be seen in that time. A shadow shows that the challenger answers, fast and without "
        "failures, and how far its answers are from the champion's; trust the gates for the rest."
    )


def _numbers(facts: Facts, strategy: Strategy, per_arm: int | None, total: int | None, days: int | None) -> str:
    if total is None or per_arm is None:
        return "How many units and days that takes cannot be told: the metric's spread or the units a day are unknown."
    effect = MARGIN if strategy in ("canary", "shadow") else facts.effect
    mean = facts.losses[max(facts.losses)].mean
    found = f"To find a change of {100 * effect:.3g} % of {facts.metric} ({effect * abs(mean):.4g})"
    errors = "with 5 % error and 80 % power"
    if strategy in ("paired shadow", "interleaving"):
        units = f"{total:,} units"
    else:
        arms = facts.candidates + 1 if "bandit" in strategy else 2
        units = f"{per_arm:,} units in each of {arms} arms"
    takes = "so many hardly ever come" if days is None else f"they take {days:,} days to come and to get their labels"
    return f"{found} {errors}, it takes {units}; {takes}."


def _warnings(facts: Facts, strategy: Strategy, test: Sizing | None) -> Iterator[str]:
    if strategy == "paired shadow":
        yield (
            "Shadow(decides=True) is accepted only of a loop that says outcome_depends_on_prediction=False. Does "
            "nobody act on the answer: no price, no order, no warning?"
        )
    if strategy in ("interleaving", "bandit", "contextual bandit"):
        yield f"No stage of a rollout does {strategy} yet: the stages below are the A/B test that confirms its winner."
    if strategy in ("A/B", "interleaving", "bandit", "contextual bandit"):
        yield (
            "Rows that a challenger served train the next versions of both arms, which blurs the difference. Train on "
            'the champion\'s own: Recent(…, arms="champion").'
        )
    if facts.explore and facts.candidates > 1 and "bandit" not in strategy and facts.outcome_depends:
        yield "Labels are too slow for a bandit, or nobody knows how fast they are."
    if facts.candidates > 1 and strategy in ("A/B", "canary", "shadow"):
        yield f"Of {facts.candidates} candidates one is proven at a time; let the gates choose which comes first."
    if facts.window > 7:
        yield f"A label is mature after {_days(facts.window)}: every stage waits as long."
    if facts.delay is not None and facts.delay < facts.window / 3 and facts.window > 1:
        yield (
            f"90 % of the labels are heard of within {_days(facts.delay)}, the window is {_days(facts.window)}: a "
            "shorter within=… makes every stage faster."
        )
    if facts.labelled < 0.9:
        yield (
            f"{100 * (1 - facts.labelled):.3g} % of the predictions never get a label. If that depends on the answer, "
            "the labelled ones of two arms are not alike."
        )
    if facts.curve is not None and 1 < len(facts.curve.seen) < 14:
        yield f"The units were seen for {len(facts.curve.seen)} days only: the days that a test takes are a guess."
    if test is not None and facts.curve is not None and not _in_time(test) and strategy != "paired shadow":
        possible = facts.labelled * facts.curve.units(LONGEST_DAYS - math.ceil(facts.window))
        least = smallest_effect(facts.effect, test.total, possible)
        yield f"The smallest effect that the units of {LONGEST_DAYS} days can show is about {100 * least:.2g} %."


def _days(days: float) -> str:
    """A number of days as people say it."""
    if days >= 2:
        return f"{days:.3g} days"
    hours = 24 * days
    return f"{hours:.3g} hours" if hours >= 2 else f"{60 * hours:.3g} minutes"
