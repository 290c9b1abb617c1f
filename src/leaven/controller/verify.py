"""Does a stored decision follow from its stored evidence, to the bit?

Rule and evidence are read back from the decision alone, the rule judges again, and its answer and its words must be
those on record.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec

from leaven.duration import instant
from leaven.experiments import MAKERS, Stage
from leaven.experiments.evidence import Evidence
from leaven.gates import Gate, GateEvidence, NotWorse, Sane, joint_outcome
from leaven.monitoring.signal import Signal
from leaven.registry.decisions import Decision
from leaven.stats.intervals import Interval
from leaven.triggers import Drops, Every, Facts, LabelsGrow, Trigger
from leaven.values import from_written

_GATES = {"NotWorse": NotWorse, "Sane": Sane}
_TRIGGERS = {"Every": Every, "LabelsGrow": LabelsGrow, "Drops": Drops}


def judged_again(decision: Decision) -> tuple[str, str] | None:
    """Return the outcome and the reason that the decision's rule gives for its evidence; None if a person decided."""
    if decision.kind == "gate" and decision.rule.get("gates"):
        return _gates(decision)
    if decision.kind == "trial" and "stage" in decision.rule:
        return _trial(decision)
    if decision.kind == "trigger" and "trigger" in decision.rule:
        return _trigger(decision)
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
    step = stage.steps()[rule["step"]]
    evidence: Evidence = msgspec.convert(decision.evidence, stage.evidence)
    metric = stage.metric or rule["metric"]
    elapsed = timedelta(microseconds=rule["elapsed"])
    verdict = stage.judge(step, evidence, elapsed=elapsed, look=rule["look"], metric=metric)
    if verdict.outcome == "advance":
        return ("promote" if rule["last"] else "advance"), verdict.why
    if verdict.outcome in ("hold", "promote"):
        return verdict.outcome, verdict.why
    return ("roll_back" if step.kind == "canary" else "stop"), verdict.why


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
