"""`leaven trial`: run a trial; what a trial's data say, and how large a trial must be."""

from __future__ import annotations

from enum import StrEnum
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from leaven.cli import trial_flow
from leaven.cli.loop_log import Days, Metric, Until, look_at
from leaven.cli.option_values import numbers, shares_of
from leaven.cli.output import DONE, NO, AsJson, Home, emit
from leaven.errors import BadDefinition

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.stats.comparison import Rule

app = typer.Typer(no_args_is_help=True)
for _command in trial_flow.COMMANDS:
    app.command()(_command)


class Method(StrEnum):
    """How far is far enough."""

    fixed = "fixed"
    group_sequential = "group-sequential"
    confidence_sequence = "confidence-sequence"


class SplitTest(StrEnum):
    """How a split is judged."""

    chi2 = "chi2"
    sequential = "sequential"


class Correction(StrEnum):
    """How p-values are corrected for their number."""

    holm = "holm"
    bh = "bh"


class SpendingName(StrEnum):
    """How the error is spent over the looks."""

    power = "power"
    obrien_fleming = "obrien-fleming"
    pocock = "pocock"


Metrics = Annotated[
    list[str] | None, typer.Option("--metric", help="Column whose mean per unit is compared; repeat for more.")
]
Ratios = Annotated[
    list[str] | None, typer.Option("--ratio", help="NUM/DEN: two columns whose totals' ratio is compared; repeat.")
]
Covariates = Annotated[
    list[str] | None,
    typer.Option("--covariate", help="METRIC=COL: adjust a metric by a column from before the exposure; repeat."),
]
Quantiles = Annotated[
    list[str] | None, typer.Option("--quantile", help="COL:0.95: a quantile over rows, as `COL p95`; repeat.")
]
Guardrails = Annotated[
    list[str] | None,
    typer.Option("--guardrail", help="METRIC=0.02: by how much of the control it may be worse; repeat."),
]
LowerIsBetter = Annotated[
    list[str] | None, typer.Option("--lower-is-better", help="A metric of which less is better; repeat.")
]
Mature = Annotated[
    str | None, typer.Option("--mature", help="Column: whether the outcome is final. Only such units are compared.")
]
Slices = Annotated[list[str] | None, typer.Option("--slice", help="Column to compare within; repeat.")]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", help="Column: whose units are alike (a village, a shop). Errors then count clusters."),
]
UsualEffect = Annotated[
    float,
    typer.Option("--usual-effect", help="Standard deviation of true differences, as a share: for what is only shown."),
]
Shares = Annotated[str | None, typer.Option("--shares", help="Planned shares, as a=0.9,b=0.1. Default: even.")]
Correct = Annotated[Correction | None, typer.Option("--correct", help="Correct the p-values for their number.")]
Planned = Annotated[
    int | None, typer.Option("--planned", min=1, help="Units of all arms that the trial was planned for.")
]
Looks = Annotated[
    str | None,
    typer.Option("--looks", help="Shares of the plan at earlier looks, as .25,.5. Default: as if at every 5 %."),
]


@app.command()
def analyze(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV file: a row per unit, or several with --unit.")],
    arm: Annotated[str, typer.Option("--arm", help="Column: the arm of the row's unit.")],
    control: Annotated[str, typer.Option("--control", help="The arm that the others are compared with.")],
    unit: Annotated[str | None, typer.Option("--unit", help="Column: the unit. Default: every row is one.")] = None,
    metric: Metrics = None,
    ratio: Ratios = None,
    covariate: Covariates = None,
    quantile: Quantiles = None,
    guardrail: Guardrails = None,
    lower_is_better: LowerIsBetter = None,
    mature: Mature = None,
    slices: Slices = None,
    cluster: Cluster = None,
    shares: Shares = None,
    method: Annotated[Method, typer.Option("--method", help="How far is far enough.")] = Method.fixed,
    correct: Correct = None,
    planned: Planned = None,
    looks: Looks = None,
    rho: Annotated[float, typer.Option("--rho", help="How late a group-sequential test spends its error.")] = 3.0,
    alpha: Annotated[float, typer.Option("--alpha", help="Error of each comparison, two-sided.")] = 0.05,
    usual_effect: UsualEffect = 0.3,
    as_json: AsJson = False,
) -> None:
    """Compare the arms of a trial, from a file of its units.

    The first metric decides. More is better, unless --lower-is-better says otherwise. `fixed` is for one look at the
    end, `group-sequential` for looks on the way to --planned units, `confidence-sequence` for looks at any time.
    """
    from leaven.cli.trial_measures import measures_of
    from leaven.cli.trial_tables import show_analysis
    from leaven.experiments.analysis import analyse
    from leaven.storage.trial_file import TrialColumns, read_sums

    measures = measures_of(
        metric or [], ratio or [], quantile or [], covariates=covariate or [], guardrails=guardrail or [],
        lower=lower_is_better or [],
    )  # fmt: skip
    by_arm = shares_of("--shares", shares) if shares is not None else {}
    before = numbers("--looks", looks) if looks is not None else None
    if method is Method.group_sequential and planned is None:
        raise BadDefinition("--planned", "a group-sequential test needs a plan", "`leaven trial size` finds it.")
    _alpha(alpha)
    if not 0 < usual_effect < inf:
        raise BadDefinition("--usual-effect", f"{usual_effect:g} is no deviation", "Give more than 0, as 0.05.")
    sums = read_sums(file, TrialColumns(arm, measures, unit, mature, tuple(slices or ()), cluster))
    rule = _rule(method, alpha, sum(sums.mature.values()), planned, before, rho)
    found = analyse(sums, measures, control=control, rule=rule, method=method.value, shares=by_arm,
                    correct=correct.value if correct is not None else None, usual_effect=usual_effect)  # fmt: skip
    emit(found, as_json=as_json, human=lambda out: show_analysis(found, sums, control, alpha, out))


@app.command()
def srm(
    counts: Annotated[
        list[str],
        typer.Option("--counts", help="Units of each arm, as 8200,7800; repeat for the new units of each later look."),
    ],
    shares: Annotated[
        str | None, typer.Option("--shares", help="Planned shares of the same arms, as 1,1. Default: even.")
    ] = None,
    method: Annotated[SplitTest, typer.Option("--method", help="How the split is judged.")] = SplitTest.chi2,
    alpha: Annotated[float, typer.Option("--alpha", help="A split less likely than this is broken.")] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Ask whether the arms got their planned shares of the units; exit code 1 where they did not.

    `chi2` is for a single look; `sequential` holds however often one looks.
    """
    from leaven.stats.split import running_p_value, split_evidence, split_p_value

    looks = np.cumsum([numbers("--counts", given) for given in counts], axis=0)
    planned = numbers("--shares", shares) if shares is not None else [1.0] * looks.shape[1]
    if method is SplitTest.sequential:
        evidence = split_evidence(looks, planned)
        p_value, e_value = float(running_p_value(evidence)[-1]), float(evidence[-1])
    else:
        p_value, e_value = split_p_value(looks[-1], planned), None
    broken = p_value < _alpha(alpha)
    data = {"p_value": p_value, "e_value": e_value, "broken": broken, "method": method.value}

    def human(out: Console) -> None:
        answer = "[red]broken[/red]: not the planned split" if broken else "as planned, as far as one can tell"
        out.print(f"{answer} (p = {p_value:.4g}, {method.value}; broken below {alpha:g})")

    emit(data, as_json=as_json, human=human)
    raise typer.Exit(NO if broken else DONE)


@app.command()
def size(
    mde: Annotated[float, typer.Option("--mde", help="Smallest difference that must be found.")],
    mean: Annotated[float | None, typer.Option("--mean", help="Mean of the metric today.")] = None,
    sd: Annotated[float | None, typer.Option("--sd", help="Its standard deviation over units.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Instead of both: a rate today, in (0, 1).")] = None,
    relative: Annotated[bool, typer.Option("--relative", help="It is a share of the mean or rate.")] = False,
    alpha: Annotated[float, typer.Option("--alpha", help="Error, two-sided.")] = 0.05,
    power: Annotated[float, typer.Option("--power", help="Chance to find such a difference.")] = 0.8,
    ratio: Annotated[float, typer.Option("--ratio", help="Units of the arm for each unit of the control.")] = 1.0,
    correlation: Annotated[
        float, typer.Option("--correlation", help="Of a covariate with the metric, which then explains some of it.")
    ] = 0.0,
    looks: Annotated[
        int, typer.Option("--looks", min=1, help="Evenly spaced looks of a group-sequential test, the last included.")
    ] = 1,
    daily_units: Annotated[
        str | None,
        typer.Option("--daily-units", help="New units a day; or on day 1, 2, … as 900,500,300, the last goes on."),
    ] = None,
    label_window: Annotated[
        float | None, typer.Option("--label-window", min=0, help="Days until a label is mature.")
    ] = None,
    loop: Annotated[
        str | None,
        typer.Option("--loop", help="A loop, by name or file: what is not given above is read from its log."),
    ] = None,
    over: Annotated[
        float, typer.Option("--over", min=0, help="Of a loop: days for which a unit is measured: ABTest(over=…).")
    ] = 1.0,
    metric: Metric = None,
    days: Days = 28,
    until: Until = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Find how many units a trial of two arms needs, and how many days they take (a week at least).

    With --loop, the metric's mean and standard deviation per unit, the label's window and the days are those of the
    loop's log: its units come back, so the days follow the observed curve of different units.
    """
    from leaven.cli.trial_size import sized
    from leaven.cli.trial_tables import show_size
    from leaven.stats.boundaries import inflation
    from leaven.stats.size import Plan

    seen = None if loop is None else look_at(loop, home=home, metric=metric, days=days, until=until).needed()
    by_log = seen is not None and rate is None and sd is None
    if seen is not None and by_log and mean is None:
        mean = seen.loss.mean
    base = rate if rate is not None else mean
    alone = (rate is None) == (sd is None) and not by_log
    if alone or (rate is not None and mean is not None) or (relative and base is None):
        raise BadDefinition("leaven trial size", "it takes an sd, or a rate", "Give --mean and --sd, --rate or --loop.")
    plan = Plan(mde * (base or 0.0) if relative else mde, _alpha(alpha), power, ratio, correlation)
    times = inflation([look / looks for look in range(1, looks + 1)], alpha=alpha, power=power) if looks > 1 else 1.0
    newcomers = None if daily_units is None else numbers("--daily-units", daily_units)
    found = sized(plan, times, mean=mean, sd=sd, rate=rate, newcomers=newcomers, window=label_window, over=over,
                  seen=seen)  # fmt: skip
    emit(found, as_json=as_json, human=lambda out: show_size(found, out))


@app.command("boundaries")
def boundaries_(
    looks: Annotated[str, typer.Option("--looks", help="Shares of the planned units at each look, as .25,.5,.75,1.")],
    alpha: Annotated[float, typer.Option("--alpha", help="Error of all looks together.")] = 0.05,
    sides: Annotated[int, typer.Option("--sides", min=1, max=2, help="2 for both directions, 1 for one.")] = 2,
    rho: Annotated[float, typer.Option("--rho", help="Of power spending: how late the error is spent.")] = 3.0,
    spending: Annotated[
        SpendingName, typer.Option("--spending", help="How the error is spent over the looks.")
    ] = SpendingName.power,
    as_json: AsJson = False,
) -> None:
    """Show how many standard errors from none an estimate must be at each look of a group-sequential test."""
    from scipy.special import ndtr

    from leaven.cli.trial_tables import show_boundaries
    from leaven.stats.boundaries import OBrienFlemingSpending, PocockSpending, PowerSpending, Spending, boundaries

    by_name: dict[SpendingName, Spending] = {
        SpendingName.obrien_fleming: OBrienFlemingSpending(),
        SpendingName.pocock: PocockSpending(),
    }
    fractions = numbers("--looks", looks)
    chosen = by_name.get(spending, PowerSpending(rho))
    z = boundaries(fractions, alpha=_alpha(alpha), sides=2 if sides == 2 else 1, spending=chosen)
    nominal = (sides * ndtr(-np.array(z))).tolist()
    data = {"z": z, "looks": fractions, "nominal_p": nominal}
    emit(data, as_json=as_json, human=lambda out: show_boundaries(fractions, z, nominal, out))


def _rule(
    method: Method, alpha: float, mature: int, planned: int | None, before: list[float] | None, rho: float
) -> Rule:
    from leaven.stats.boundaries import PowerSpending
    from leaven.stats.comparison import Fixed
    from leaven.stats.confidence_sequence import ConfidenceSequence
    from leaven.stats.group_sequential import GroupSequential, looks_until

    if method is Method.group_sequential and planned is not None:
        return GroupSequential(looks_until(mature, planned, before=before), alpha, PowerSpending(rho))
    if method is Method.confidence_sequence:
        return ConfidenceSequence(alpha, planned) if planned is not None else ConfidenceSequence(alpha)
    return Fixed(alpha)


def _alpha(given: float) -> float:
    if not 0 < given < 1:
        raise BadDefinition("--alpha", f"{given:g} is no error rate", "Give more than 0 and less than 1.")
    return given
