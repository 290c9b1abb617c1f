"""What was known of a unit before it met its arm, to be taken out of what it did after?

Nothing here may depend on the arm: the past ends when the trial opens, before any unit of it met a challenger, and a
score is the champion's, whichever arm the unit got, on the features of its first request.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from leaven.errors import BadDefinition
from leaven.events.columns import Column, Examples
from leaven.events.source import Span
from leaven.experiments.ab_cohorts import Cohort, Rows, totals
from leaven.experiments.ab_metrics import Gauge, rules_of

_READ_AT_ONCE = timedelta(days=1)  # of the past: what is held in memory


def covariate(gauge: Gauge, cohort: Cohort, imputed: tuple[float, ...]) -> tuple[tuple[Column, ...], tuple[float, ...]]:
    """Return what adjusts a metric, a column per covariate, and what stood for a unit without any.

    Args:
        gauge: An adjusted metric.
        cohort: The units.
        imputed: As an earlier bucket returned it; empty for the first, which fixes it.
    """
    if cohort.design.adjust == "score":
        return _score(cohort, imputed)
    return _before(gauge, cohort, imputed)


def _score(cohort: Cohort, imputed: tuple[float, ...]) -> tuple[tuple[Column, ...], tuple[float, ...]]:
    """The champion's answer to each unit's first request."""
    answering, units, rows = cohort.traffic.answer, len(cohort.came), cohort.rows()
    if answering is None:
        raise BadDefinition('ABTest(adjust="score")', "nobody can ask the champion here", "Give the traffic an answer.")
    score = np.full(units, np.nan)
    which, first = np.unique(rows.which, return_index=True)
    if len(first):
        score[which] = answering(cohort.traffic.champion, rows.served.take(first).features)
    known = np.isfinite(score)
    if not imputed and known.any():
        imputed = (float(score[known].mean()),)
    return (np.where(known, score, imputed[0] if imputed else 0.0),), imputed


def _before(gauge: Gauge, cohort: Cohort, imputed: tuple[float, ...]) -> tuple[tuple[Column, ...], tuple[float, ...]]:
    """The unit's own metric before the trial, from the champion's answers and labels that were final by then."""
    units = len(cohort.came)
    numerator, denominator, all_rows = np.zeros(units), np.zeros(units), np.zeros(2)
    opened = cohort.traffic.opened or cohort.traffic.since
    start = opened - cohort.design.before
    while start < opened:
        end = min(start + _READ_AT_ONCE, opened)
        mine, everyone = _stretch(gauge, cohort, Span(start, end), opened)
        numerator, denominator, all_rows = numerator + mine[0], denominator + mine[1], all_rows + everyone
        start = end
    if not imputed:
        usual = float(all_rows[0] / all_rows[1]) if all_rows[1] else 0.0
        imputed = (usual, 1.0) if gauge.per_row else (usual,)
    known = denominator > 0
    if gauge.per_row:
        return (np.where(known, numerator, imputed[0]), np.where(known, denominator, imputed[1])), imputed
    return (np.divide(numerator, denominator, out=np.full(units, imputed[0]), where=known),), imputed


def _stretch(gauge: Gauge, cohort: Cohort, span: Span, opened: datetime) -> tuple[tuple[Column, Column], Column]:
    """Totals per unit of the cohort, and of everybody."""
    traffic, units = cohort.traffic, len(cohort.came)
    place = {unit: row for row, unit in enumerate(cohort.came.unit.tolist())}

    def read(examples: Examples) -> Rows:
        fit = (examples.predictions.version == traffic.champion) & examples.labels.mature
        served = examples.predictions.take(np.flatnonzero(fit))
        # Everybody else is one unit more, which only the totals of all see.
        which = np.array([place.get(unit, units) for unit in served.unit.tolist()], dtype=np.int64)
        return Rows(which, served, examples.labels.value[fit])

    rules = rules_of([gauge.metric], traffic.label)
    rows = [read(traffic.source.examples(span, rule, as_of=opened)) for rule in rules]
    numerator, denominator, _ = totals(gauge.metric, rows, units + 1)
    return (numerator[:units], denominator[:units]), np.array([numerator.sum(), denominator.sum()])
