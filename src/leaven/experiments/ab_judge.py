"""What follows from what an A/B test has seen?

In this order: is the test itself sound (split, crossings, labels); does the challenger fail or harm; and, at a look, is
it shown to be better. Each is decided from sums, so it takes milliseconds however many rows there were.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from leaven.experiments.ab_design import Design
from leaven.experiments.ab_evidence import ARMS, CHALLENGER, CHAMPION, ABEvidence
from leaven.experiments.ab_looks import Look, days_left, look
from leaven.experiments.ab_reading import LEAST, Reading, reading
from leaven.experiments.ab_report import secondary_said
from leaven.experiments.verdict import Verdict
from leaven.stats.failures import more_failures_evidence
from leaven.stats.split import split_evidence

CHECK_ALPHA = 0.01  # of each check that the test is sound, and of failures: over all looks
CROSSED = 0.01  # of the units may meet both arms
_FEW_CROSSED = 10  # are no pattern, whatever their share
_EARLY = 4  # the sequences for harm are tightest at a quarter of the plan: harm is to be found soon


def judged(design: Design, evidence: ABEvidence, elapsed: timedelta) -> Verdict:
    """Return the verdict after `elapsed`."""
    checks: tuple[Callable[[Design, ABEvidence], str | None], ...] = (_split, _crossed, _labels, _failures, _harm)
    for check in checks:
        why = check(design, evidence)
        if why is not None:
            return Verdict("stop", why)
    return _better(design, evidence, elapsed)


def _split(design: Design, evidence: ABEvidence) -> str | None:
    counts = [evidence.units[arm] for arm in ARMS]
    proof = float(split_evidence(counts, [1 - design.share, design.share]))
    if proof < 1 / CHECK_ALPHA:
        return None
    return (
        f"the split is broken: {counts[0]:,} units with the champion, {counts[1]:,} with the challenger, where "
        f"{design.share:.0%} were planned (p = {1 / proof:.2g}, sequential): the arms differ in more than the version"
    )


def _crossed(design: Design, evidence: ABEvidence) -> str | None:
    total = sum(evidence.units.values())
    if evidence.crossed < _FEW_CROSSED or evidence.crossed <= CROSSED * total:
        return None
    share = evidence.crossed / total
    return f"{evidence.crossed:,} of {total:,} units ({share:.1%}) met both arms: what a unit gets is not kept to"


def _labels(design: Design, evidence: ABEvidence) -> str | None:
    for rule, arms in evidence.labelled.items():
        champion, challenger = arms[CHAMPION], arms[CHALLENGER]
        shares = [1 - design.share, design.share]
        with_label = float(split_evidence([champion.labelled, challenger.labelled], shares))
        without = [champion.units - champion.labelled, challenger.units - challenger.labelled]
        # Who has a label, and who has none, are both split as planned if labels do not know of arms. The mean of two
        # e-values is one.
        proof = (with_label + float(split_evidence(without, shares))) / 2
        if proof >= len(evidence.labelled) / CHECK_ALPHA:
            return (
                f"labels are missing differently: {rule} is there for {champion.labelled:,} of {champion.units:,} "
                f"champion units and {challenger.labelled:,} of {challenger.units:,} challenger units "
                f"(p = {1 / proof:.2g}, sequential); {_delays(evidence)}: those who are left cannot be compared"
            )
    return None


def _delays(evidence: ABEvidence) -> str:
    said = [
        f"{arms[CHAMPION].days.mean:.2g} days with the champion, {arms[CHALLENGER].days.mean:.2g} with the challenger"
        for arms in evidence.labelled.values()
        if arms[CHAMPION].days.count and arms[CHALLENGER].days.count
    ]
    return f"labels took {', '.join(said)} on average" if said else "no report was timed"


def _failures(design: Design, evidence: ABEvidence) -> str | None:
    failed = evidence.failed
    proof = float(more_failures_evidence(failed[CHAMPION], failed[CHALLENGER], share=design.share))
    if proof < 1 / CHECK_ALPHA:
        return None
    return (
        f"{failed[CHALLENGER]:,} challenger units met a failure and {failed[CHAMPION]:,} champion units did, where the "
        f"challenger serves {design.share:.0%} (p = {1 / proof:.2g}, sequential): it fails more often"
    )


def _harm(design: Design, evidence: ABEvidence) -> str | None:
    alpha = design.alpha / len(design.deciding)
    for gauge in design.deciding:
        found = reading(gauge, evidence)
        margin = design.margin if gauge is design.primary else gauge.measure.margin or 0.0
        proof = found.harm(alpha=alpha, planned=design.units // _EARLY)
        if proof >= 1 / alpha and found.beyond(margin):
            return f"{found.said()}: worse (p = {len(design.deciding) / proof:.2g}, valid at any time)"
    return None


def _better(design: Design, evidence: ABEvidence, elapsed: timedelta) -> Verdict:
    rule, share = look(design, evidence)
    over, done = elapsed >= design.patience, rule is not None and rule.rule.fraction >= 1
    primary = reading(design.primary, evidence)
    if not primary.known:
        why = _nothing(design, evidence, primary)
        return Verdict("give_up", f"{why}: not enough evidence") if over else Verdict("hold", why)
    progress = f"{share:.0%} of {design.units:,} planned units are measured"
    lacking = _lacking(design, evidence, primary, rule)
    if not lacking and elapsed >= design.at_least:
        told = secondary_said(design, evidence)
        return Verdict("advance", f"{primary.said(rule)}: {_shown(design)} ({progress}){told}")
    why = f"{primary.said(rule)}; {progress}; {'; '.join(lacking)}"
    if over or (done and elapsed >= design.at_least):
        return Verdict("give_up", f"{why}: not enough evidence{secondary_said(design, evidence)}")
    return Verdict("hold", f"{why}; {_time_left(design, evidence, elapsed)}; {_delays(evidence)}")


def _shown(design: Design) -> str:
    return "shown to be better" if design.margin == 0 else f"shown to be within the margin of {design.margin:.3g}"


def _lacking(design: Design, evidence: ABEvidence, primary: Reading, rule: Look | None) -> list[str]:
    """What keeps the challenger from being promoted."""
    if rule is None:
        return ["the next look is when more of them are"]
    shown = primary.better(rule) if design.margin == 0 else primary.within(design.margin, rule)
    lacking = [] if shown else [f"it is not {_shown(design)} at look {len(rule.rule.looks)}"]
    for gauge in design.guardrails:
        found, margin = reading(gauge, evidence), gauge.measure.margin or 0.0
        if not (found.alike or (found.known and found.within(margin, rule))):
            lacking.append(f"{gauge.name} is not shown to stay within its margin of {margin:.3g} ({found.said(rule)})")
    return lacking + (_worse_slices(design, evidence) if design.protect else [])


def _worse_slices(design: Design, evidence: ABEvidence) -> list[str]:
    worse = []
    for name in evidence.slices:
        found, alpha = reading(design.primary, evidence, of=name), design.alpha / len(evidence.slices)
        planned = max(2 * LEAST, design.units // len(evidence.slices))
        if found.harm(alpha=alpha, planned=planned) >= 1 / alpha:
            worse.append(f"it is worse where {name} ({found.said()})")
    return worse


def _nothing(design: Design, evidence: ABEvidence, primary: Reading) -> str:
    """Why there is nothing to judge."""
    counts = f"{primary.control.n:,} champion and {primary.arm.n:,} challenger units"
    if not sum(evidence.units.values()):
        return "no unit has met an arm yet"
    if min(primary.control.n, primary.arm.n) < LEAST:
        return f"{counts} with a final {design.primary.name} are fewer than the {LEAST} of each that it takes"
    return f"{counts} all have the same {design.primary.name}, or none that can be compared"


def _time_left(design: Design, evidence: ABEvidence, elapsed: timedelta) -> str:
    days = days_left(design, evidence, elapsed)
    if days is None:
        return "how long it will take cannot be told yet"
    late = elapsed + timedelta(days=days) > design.patience
    beyond = f", beyond its patience of {design.patience / timedelta(days=1):.3g} days" if late else ""
    return f"about {days:.2g} days left at the pace of late{beyond}"
