"""How do all metrics of an A/B test stand, slice by slice, for people to read?

Nothing here decides. Intervals and p-values hold at every look; those of the secondary metrics are corrected for their
number (Benjamini-Hochberg).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from leaven.experiments.ab_design import Design
from leaven.experiments.ab_evidence import ARMS, CHAMPION, ABEvidence
from leaven.experiments.ab_metrics import Gauge
from leaven.experiments.analysis import analyse
from leaven.experiments.conclusion import Result, Split
from leaven.stats.confidence_sequence import ConfidenceSequence

Role = Literal["primary", "guardrail", "secondary"]


class Line(msgspec.Struct, frozen=True):
    """One metric, over all units or in a slice."""

    role: Role
    result: Result  # with the shrunk difference beside the raw one


class Report(msgspec.Struct, frozen=True):
    """The whole table."""

    split: Split
    lines: tuple[Line, ...]


def report(design: Design, evidence: ABEvidence) -> Report:
    """Return every comparison of the challenger with the champion."""
    kinds: tuple[tuple[Role, tuple[Gauge, ...]], ...] = (
        ("primary", (design.primary,)), ("guardrail", design.guardrails), ("secondary", design.secondary),
    )  # fmt: skip
    return Report(
        _split(design, evidence),
        tuple(line for role, gauges in kinds for line in _lines(design, evidence, role, gauges)),
    )


def secondary_said(design: Design, evidence: ABEvidence) -> str:
    """Return how the secondary metrics stand over all units, in words; empty where there is none."""
    lines = [line.result for line in _lines(design, evidence, "secondary", design.secondary, slices=False)]
    told = [
        f"{row.metric} {row.difference:+.4g} (p = {row.p_value:.2g})" for row in lines if row.difference is not None
    ]
    return f"; beside it: {', '.join(told)}" if told else ""


def _lines(
    design: Design, evidence: ABEvidence, role: Role, gauges: tuple[Gauge, ...], *, slices: bool = True
) -> tuple[Line, ...]:
    if not gauges:
        return ()
    names = {gauge.name: gauge for gauge in gauges}
    cells = tuple(cell for cell in evidence.sums.cells if cell.measure in names and (slices or cell.slice is None))
    found = analyse(
        msgspec.structs.replace(evidence.sums, cells=cells), [gauge.measure for gauge in gauges], control=CHAMPION,
        rule=ConfidenceSequence(design.alpha, design.units), method="confidence-sequence", shares=_shares(design),
        correct="bh" if role == "secondary" else None,
    ) if cells else None  # fmt: skip
    results = found.results if found is not None else ()
    return tuple(Line(role, row) for row in results)


def _split(design: Design, evidence: ABEvidence) -> Split:
    from leaven.experiments.analysis import judge_split

    return judge_split({arm: evidence.units[arm] for arm in ARMS}, _shares(design), sequential=True)


def _shares(design: Design) -> dict[str, float]:
    return dict(zip(ARMS, (1 - design.share, design.share), strict=True))
