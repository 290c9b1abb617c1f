"""What a challenger must pass before it meets traffic."""

from leaven.gates.churn import Churn
from leaven.gates.gate import Check, Gate, GateEvidence, GateReport, Outcome, joint_outcome, judge_all
from leaven.gates.not_worse import NotWorse
from leaven.gates.sane import Sane

__all__ = [
    "Check",
    "Churn",
    "Gate",
    "GateEvidence",
    "GateReport",
    "NotWorse",
    "Outcome",
    "Sane",
    "joint_outcome",
    "judge_all",
]
