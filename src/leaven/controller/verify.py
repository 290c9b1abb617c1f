"""Does a stored decision follow from its stored evidence, to the bit?

Rule and evidence are read back from the decision alone, the rule judges again, and its answer and its words must be
those on record.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec

from leaven.duration import instant
from leaven.experiments import MAKERS, Stage
from leaven.experiments.evidence import Evidence
from leaven.experiments.trial import follows, superseded
from leaven.gates import Churn, Gate, GateEvidence, NotWorse, Sane, joint_outcome
from leaven.monitoring.signal import Signal
from leaven.registry.decisions import Decision
from leaven.stats.intervals import Interval
from leaven.training import Hybrid, Stateful, Stateless
from leaven.training.plans import Plan, PlanHistory
from leaven.training.rebuilding import Compared, taken_of
from leaven.triggers import Drops, Every, Facts, LabelsGrow, Trigger
from leaven.values import from_written

_GATES = {"NotWorse": NotWorse, "Sane": Sane, "Churn": Churn}
_PLANS = {"Stateless": Stateless, "Stateful": Stateful, "Hybrid": Hybrid}
_TRIGGERS = {"Every": Every, "LabelsGrow": LabelsGrow, "Drops": Drops}


def judged_again(decision: Decision) -> tuple[str, str] | None:
    """Return the outcome and the reason that the decision's rule gives for its evidence; None if a person decided."""
    if decision.kind == "gate" and decision.rule.get("gates"):
        return _gates(decision)
    if decision.kind == "trial" and "stage" in decision.rule:
        return _trial(decision)
    if decision.kind == "trigger" and "trigger" in decision.rule:
        return _trigger(decision)
    if decision.kind == "plan" and decision.rule.get("plan", "").partition("(")[0] in _PLANS:
        plan: Plan = from_written(decision.rule["plan"], _PLANS)
        choice = plan.choose(msgspec.convert(decision.evidence, PlanHistory))
        return choice.mode, choice.why
    if decision.kind == "compare" and "take_above" in decision.rule:
        compared = msgspec.convert(decision.evidence, Compared)
        return taken_of(compared.share, decision.rule["take_above"]), compared.why
    return None


def _gates(decision: Decision) -> tuple[str, str]:
    reports = []
    for written, seen in zip(decision.rule["gates"], decision.evidence["reports"], strict=True):
        gate: Gate = from_written(written, _GATES)
        reports.append(gate.judge(msgspec.convert(seen, GateEvidence)))
    return joint_outcome(reports), "\n".join(report.why for report in reports)


def _trial(decision: Decision) -> tuple[str, str]:
    rule = decision.rule
    stage: Stage = from_written(rule["stage"], MAKERS)
    step = replace(stage.steps()[rule["step"]], **rule.get("routes", {}))
    evidence: Evidence = msgspec.convert(decision.evidence, stage.evidence)
    metric = stage.metric or rule["metric"]
    elapsed = timedelta(microseconds=rule["elapsed"])
    verdict = stage.judge(step, evidence, elapsed=elapsed, look=rule["look"], metric=metric)
    if "superseded_by" in rule and verdict.outcome in ("hold", "advance"):
        return "keep", superseded(verdict.why, rule["superseded_by"])
    return follows(verdict, step, last=rule["last"]), verdict.why


def _trigger(decision: Decision) -> tuple[str, str]:
    seen = decision.evidence
    trigger: Trigger = from_written(decision.rule["trigger"], _TRIGGERS)
    unmeasured = Signal("", seen["now"], Interval(0.0, 0.0, 0.0, 0.95, 0))
    signal = unmeasured if seen["signal"] is None else msgspec.convert(seen["signal"], Signal)
    cause = trigger.fires(
        Facts(
            now=instant(seen["now"]),
            has_champion=seen["has_champion"],
            last_refresh=None if seen["last_refresh"] is None else instant(seen["last_refresh"]),
            learnt_rows=seen["learnt_rows"],
            matured_since_refresh=lambda: int(seen.get("matured", 0)),
            performance=lambda metric, over: signal,
        )
    )
    return ("none", "") if cause is None else ("refresh", cause.why)
