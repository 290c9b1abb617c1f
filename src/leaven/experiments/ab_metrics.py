"""What can an A/B test measure, and as what is it kept?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from leaven.errors import BadDefinition
from leaven.events.labels import LabelRule, Task
from leaven.experiments.measures import Measure
from leaven.stats.metrics import METRICS
from leaven.stats.quality import QUALITIES
from leaven.values import value

Better = Literal["higher", "lower"]
Adjust = Literal["before", "score"]


@value
class Outcome:
    """What any label rule makes of the feedback: its mean per unit."""

    rule: LabelRule
    _: KW_ONLY
    better: Better = "higher"

    def __post_init__(self) -> None:
        _check_rule("Outcome(rule)", self.rule)
        _check_better("Outcome(better=…)", self.better)


@value
class Ratio:
    """The total of one label rule over the total of another, such as purchases per visit (delta method)."""

    numerator: LabelRule
    denominator: LabelRule
    _: KW_ONLY
    better: Better = "higher"

    def __post_init__(self) -> None:
        _check_rule("Ratio(numerator)", self.numerator)
        _check_rule("Ratio(denominator)", self.denominator)
        _check_better("Ratio(better=…)", self.better)


@value
class Latency:
    """A quantile of the seconds that an answer took; its error counts units, not requests."""

    quantile: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise BadDefinition("Latency(…)", f"{self.quantile!r} is no quantile", "Give one between 0 and 1: 0.95.")


@value
class Failures:
    """The share of units that met a failure. A margin of it is absolute: 0.01 is one unit in a hundred more."""


Metric = str | Outcome | Ratio | Latency | Failures


@value
class Guardrail:
    """A metric that must not get worse: by no more than `margin`, a share of the champion's value, shown."""

    metric: Metric
    _: KW_ONLY
    margin: float = 0.02

    def __post_init__(self) -> None:
        check_metric("Guardrail(metric)", self.metric)
        if not self.margin > 0:
            raise BadDefinition("Guardrail(margin=…)", f"{self.margin!r} leaves nothing to show", "Give more than 0.")


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric with how its sums are kept and read."""

    metric: Metric
    measure: Measure

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.measure.name

    @property
    def sliced(self) -> bool:
        """Whether its sums are kept by slice as well."""
        return self.measure.quantile is None and self.metric != "roc_auc"

    @property
    def per_row(self) -> bool:
        """Whether it is the ratio of two totals; a mean per unit otherwise."""
        return self.measure.denominator is not None


def gauge(metric: Metric, *, margin: float | None = None, adjust: Adjust | None = None) -> Gauge:
    """Return how a metric is kept: `margin` of a guardrail, adjusted where it can be."""
    covariates = ("before", "before, total") if adjust == "before" else ("score",)
    if isinstance(metric, Latency):
        return Gauge(metric, Measure("latency", quantile=metric.quantile, lower_is_better=True, margin=margin))
    if isinstance(metric, Failures):
        return Gauge(metric, Measure("failures", lower_is_better=True, margin=margin))
    lower = not QUALITIES[metric].higher_is_better if metric in QUALITIES else False
    if isinstance(metric, Outcome | Ratio):
        lower = metric.better == "lower"
    total = f"{name_of(metric)}, total" if _ratio(metric) else None
    adjusted = adjustable(metric, adjust)
    return Gauge(
        metric,
        Measure(
            name_of(metric), total, called=name_of(metric), lower_is_better=lower, margin=margin,
            covariate=covariates[: 1 if total is None else 2] if adjusted else (),
        ),
    )  # fmt: skip


def adjustable(metric: Metric, adjust: Adjust | None) -> bool:
    """Whether something that was known before can be taken out of a metric."""
    if adjust == "score":
        return isinstance(metric, Outcome)
    return adjust == "before" and not isinstance(metric, Latency | Failures) and metric != "roc_auc"


def name_of(metric: Metric) -> str:
    """Return what a metric is called in words and tables."""
    if isinstance(metric, Outcome):
        return metric.rule.name
    if isinstance(metric, Ratio):
        return f"{metric.numerator.name}/{metric.denominator.name}"
    if isinstance(metric, Latency | Failures):
        return gauge(metric).name
    return metric


def rules_of(metrics: Sequence[Metric], label: LabelRule) -> tuple[LabelRule, ...]:
    """Return the label rules that metrics are made from, each once; `label` is the loop's own."""
    rules: list[LabelRule] = []
    for metric in metrics:
        if isinstance(metric, Outcome):
            rules.append(metric.rule)
        elif isinstance(metric, Ratio):
            rules += [metric.numerator, metric.denominator]
        elif isinstance(metric, str):
            rules.append(label)
    return tuple(rule for place, rule in enumerate(rules) if rule not in rules[:place])


def check_metric(where: str, metric: object, task: Task | None = None) -> None:
    """Refuse what is no metric, or none of a task.

    Raises:
        BadDefinition: that is so.
    """
    if isinstance(metric, Outcome | Ratio | Latency | Failures):
        return
    fitting = [name for name in (*QUALITIES, "roc_auc") if task is None or task in _tasks(name)]
    if metric not in fitting:
        what = f"{metric!r} is no metric" if task is None else f"{metric!r} does not fit a {task} label"
        raise BadDefinition(
            where, what, f"Use one of {', '.join(fitting)}, or Outcome(…), Ratio(…), Latency(…), Failures()."
        )


def _tasks(name: str) -> tuple[Task, ...]:
    return METRICS[name].tasks if name in METRICS else ("binary",)


def _ratio(metric: Metric) -> bool:
    """Whether it is a ratio of totals: a loss is a mean per unit, a quality of a model counts rows."""
    return isinstance(metric, Ratio) or (isinstance(metric, str) and metric in QUALITIES and metric not in METRICS)


def _check_rule(where: str, rule: object) -> None:
    if isinstance(rule, type) or not hasattr(rule, "resolve"):
        raise BadDefinition(where, f"{rule!r} is no label rule", 'Use Label("name", within="36h") or Happens(…).')


def _check_better(where: str, better: object) -> None:
    if better not in ("higher", "lower"):
        raise BadDefinition(where, f"{better!r} is no direction", 'Use "higher" or "lower".')
