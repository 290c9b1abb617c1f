"""What does the log add to what an A/B test has seen?

Buckets that have closed are read once and added up; of the others, units are only counted. Made anew from the log
alone, the evidence is the same to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import msgspec
import numpy as np

from leaven.events.columns import Column
from leaven.events.meetings import Crowd
from leaven.events.source import Span
from leaven.experiments.ab_cohorts import Cohort, arms_of, closes_at, totals
from leaven.experiments.ab_design import Design
from leaven.experiments.ab_evidence import ARMS, ABEvidence, Bucket, Closed, Labelled, with_bucket
from leaven.experiments.ab_metrics import Gauge, Latency, rules_of
from leaven.experiments.ab_past import covariate
from leaven.experiments.measures import Cell, Kept
from leaven.experiments.stage import Traffic
from leaven.stats.answers import given
from leaven.stats.clustered_auc import AucCohorts, auc_cohort
from leaven.stats.comoments import Comoments, comoments
from leaven.stats.moments import moments
from leaven.stats.quantiles import geometric_edges, quantile_counts

MOST_SLICES = 20  # of one name; the units of all other values are one slice more
OTHERS = "(other)"
_SECONDS = geometric_edges(1e-4, 600.0, precision=0.02)

Imputed = dict[str, tuple[float, ...]]


def observed(design: Design, traffic: Traffic, before: ABEvidence | None) -> ABEvidence:
    """Return the evidence as of `traffic.now`; `before` is what an earlier look at this step returned.

    Read are the rows of buckets that have closed since (each as long as `every` and `over` together), and who met which
    arm in the whole step: memory holds the rows of one bucket, and otherwise counts.
    """
    whole = Span(traffic.since, traffic.now)
    met = traffic.source.crowds(whole, arms_of(traffic), every=design.every, as_of=traffic.now)
    evidence = _counted(before or ABEvidence(), met, (traffic.now - traffic.since) // design.every + 1)
    at_least = design.at_least // timedelta(microseconds=1)
    while not evidence.full(design.units, at_least):
        number = len(evidence.buckets)
        if closes_at(design, traffic, number) > traffic.now:
            break
        evidence = with_bucket(evidence, _closed(Cohort(design, traffic, number), evidence))
    return evidence


def _counted(evidence: ABEvidence, met: tuple[Crowd, ...], buckets: int) -> ABEvidence:
    units, failed, entered = Counter[str](), Counter[str](), Counter[int]()
    for crowd in met:
        units[crowd.arm] += crowd.units
        entered[crowd.bucket] += crowd.units
        failed.update(dict.fromkeys(crowd.failed, crowd.units))
    return msgspec.structs.replace(
        evidence,
        units={arm: units[arm] for arm in ARMS},
        failed={arm: failed[arm] for arm in ARMS},
        crossed=sum(crowd.units for crowd in met if crowd.crossed),
        entered=tuple(entered[number] for number in range(buckets)),
    )


def _closed(cohort: Cohort, known: ABEvidence) -> Closed:
    """Everything that a bucket adds."""
    design, arms = cohort.design, cohort.came.arm
    slices, codes = _slices(cohort, known.slices)
    imputed: Imputed = dict(known.imputed)
    cells: list[Cell] = []
    for gauge in design.gauges:
        cells += _cells(gauge, cohort, slices, codes, imputed)
    primary = next(cell.arms for cell in cells if cell.measure == design.primary.name and cell.slice is None)
    counts = {arm: int((arms == arm).sum()) for arm in ARMS}
    bucket = Bucket(
        (cohort.closes - cohort.traffic.since) // timedelta(microseconds=1),
        counts,
        {arm: primary[arm].count for arm in ARMS},
        primary if design.primary.measure.quantile is None else {},
    )
    return Closed(bucket, tuple(cells), _labelled(cohort, counts), slices, imputed)


def _cells(
    gauge: Gauge, cohort: Cohort, slices: tuple[str, ...], codes: dict[str, Column], imputed: Imputed
) -> Iterator[Cell]:
    """The sums of one metric: of all units, then by slice."""
    arms = cohort.came.arm
    if isinstance(gauge.metric, Latency):
        yield Cell(gauge.name, None, {arm: _seconds(cohort, arms == arm) for arm in ARMS})
        return
    if gauge.metric == "roc_auc":
        yield Cell(gauge.name, None, {arm: _auc(cohort, arms == arm) for arm in ARMS})
        return
    rows = [cohort.rows(rule) for rule in rules_of([gauge.metric], cohort.traffic.label)] or [cohort.rows()]
    numerator, denominator, known = totals(gauge.metric, rows, len(arms))
    columns = [numerator, denominator]
    if not gauge.per_row:
        columns = [np.divide(numerator, denominator, out=np.zeros(len(arms)), where=known)]
    if gauge.measure.covariate:
        adjusting, imputed[gauge.name] = covariate(gauge, cohort, imputed.get(gauge.name, ()))
        columns += adjusting
    yield Cell(gauge.name, None, _by_arm(columns, known, arms))
    for text in slices:
        name, _, _ = text.partition("=")
        yield Cell(gauge.name, text, _by_arm(columns, known & (codes[name] == text), arms))


def _by_arm(columns: list[Column], rows: Column, arms: Column) -> dict[str, Kept]:
    kept: dict[str, Kept] = {}
    for arm in ARMS:
        own = rows & (arms == arm)
        kept[arm] = comoments(*(column[own] for column in columns)) if own.any() else Comoments()
    return kept


def _seconds(cohort: Cohort, own: Column) -> Kept:
    rows = cohort.rows()
    answered = own[rows.which] & given(rows.served.answer)
    _, unit = np.unique(rows.which[answered], return_inverse=True)
    return quantile_counts(rows.served.seconds[answered], unit, _SECONDS)


def _auc(cohort: Cohort, own: Column) -> Kept:
    rows = cohort.rows()
    told = own[rows.which] & given(rows.served.answer) & ~np.isnan(rows.label)
    if not told.any():
        return AucCohorts()
    return auc_cohort(rows.served.unit[told], rows.label[told], rows.served.answer[told])


def _slices(cohort: Cohort, known: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Column]]:
    """The slices there are, and which of them each unit is in, by name: as its first request said."""
    rows = cohort.rows()
    which, first = np.unique(rows.which, return_index=True)
    listed, codes = list(known), {}
    for name in cohort.design.slices:
        text = np.full(len(cohort.came), "", dtype=object)
        feature = rows.served.features.get(name)
        if feature is None:
            text[which] = f"{name}=missing"
        else:
            text[which] = [f"{name}={_shown(value)}" for value in feature[first].tolist()]
        if not known and len(which):
            counts = Counter(text[which].tolist())
            usual = sorted(counts, key=lambda each: (-counts[each], each))[:MOST_SLICES]
            listed += [*sorted(usual), f"{name}={OTHERS}"]
        named = set(listed)
        rest = np.array([each not in named for each in text.tolist()], dtype=bool)
        text[rest & (text != "")] = f"{name}={OTHERS}"
        codes[name] = text
    return tuple(listed), codes


def _shown(value: object) -> str:
    if value is None or value != value:  # NaN is the only value that is not itself
        return "missing"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _labelled(cohort: Cohort, counts: dict[str, int]) -> dict[str, dict[str, Labelled]]:
    """By rule of a deciding metric: how many units got a label, and after how many days."""
    arms = cohort.came.arm
    found: dict[str, dict[str, Labelled]] = {}
    for rule in rules_of([gauge.metric for gauge in cohort.design.deciding], cohort.traffic.label):
        rows, delays = cohort.rows(rule), cohort.delays(rule)
        labelled = np.bincount(rows.which, weights=~np.isnan(rows.label), minlength=len(arms)) > 0
        told = ~np.isnan(delays.label)
        pieces = np.bincount(delays.which[told], minlength=len(arms))
        days = np.bincount(delays.which[told], weights=delays.label[told], minlength=len(arms))
        found[repr(rule)] = {
            arm: Labelled(
                counts[arm],
                int((labelled & (arms == arm)).sum()),
                moments((days[pieces > 0] / pieces[pieces > 0])[(arms == arm)[pieces > 0]]),
            )
            for arm in ARMS
        }
    return found
