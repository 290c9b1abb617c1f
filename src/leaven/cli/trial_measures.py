"""Which metrics do the options of `leaven trial analyze` name?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leaven.cli.option_values import numbers, pair
from leaven.errors import BadDefinition
from leaven.experiments.measures import Measure


def measures_of(
    metrics: Sequence[str],
    ratios: Sequence[str],
    quantiles: Sequence[str],
    *,
    covariates: Sequence[str],
    guardrails: Sequence[str],
    lower: Sequence[str],
) -> list[Measure]:
    """Return the metrics in the order of the options; the first one that is no guardrail comes first.

    Raises:
        BadDefinition: an option has not its form, or names no metric, or there is none.
    """
    measures = [Measure(name) for name in metrics]
    measures += [Measure(*pair("--ratio", given, "/", "NUM/DEN")) for given in ratios]
    measures += [_quantile(given) for given in quantiles]
    known = [measure.name for measure in measures]
    adjusted = dict(pair("--covariate", given, "=", "METRIC=COL") for given in covariates)
    margins = dict(pair("--guardrail", given, "=", "METRIC=MARGIN") for given in guardrails)
    _check(known, (*adjusted, *margins, *lower))
    named = [
        replace(
            measure,
            covariate=_covariate(measure, adjusted.get(measure.name)),
            margin=_margin(margins.get(measure.name)),
            lower_is_better=measure.name in lower,
        )
        for measure in measures
    ]
    if all(measure.margin is not None for measure in named):
        raise BadDefinition("--guardrail", "every metric is one", "Name one that decides as well.")
    return sorted(named, key=lambda measure: measure.margin is not None)


def _check(known: Sequence[str], used: Sequence[str]) -> None:
    if not known:
        raise BadDefinition("--metric", "there is nothing to compare", "Name a column, or two as --ratio NUM/DEN.")
    strange = [name for name in used if name not in known]
    twice = [name for name in known if known.count(name) > 1]
    if strange or twice:
        what = f"{strange[0]!r} is not among them" if strange else f"{twice[0]!r} comes twice"
        raise BadDefinition("metrics", what, f"They are {', '.join(dict.fromkeys(known))}.")


def _quantile(given: str) -> Measure:
    column, _, written = given.rpartition(":")
    (q,) = numbers("--quantile", written) if column else (0.0,)
    if not 0 < q < 1:
        raise BadDefinition("--quantile", f"{given!r} has not the form COL:0.95", "Write it as COL:0.95.")
    return Measure(column, quantile=q)


def _covariate(measure: Measure, given: str | None) -> tuple[str, ...]:
    if given is None:
        return ()
    if measure.quantile is not None:
        raise BadDefinition("--covariate", "a quantile takes none", f"Leave it out for {measure.name}.")
    return (given,) if measure.denominator is None else pair("--covariate", given, "/", "NUM/DEN=XNUM/XDEN")


def _margin(given: str | None) -> float | None:
    if given is None:
        return None
    (margin,) = numbers("--guardrail", given)
    if not 0 <= margin < 1:
        raise BadDefinition("--guardrail", f"{margin:g} is no share", "Give 0 or more, less than 1.")
    return margin
