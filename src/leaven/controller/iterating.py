"""What did each challenger of a loop gain at its gates, and what had changed since the champion that it met?"""

from __future__ import annotations

from collections import Counter

import msgspec
from scipy.special import stdtrit
from sqlalchemy import Connection

from leaven.endpoints.description import FORMAT as ENDPOINT
from leaven.gates.forgetting import Forgetting, Losses
from leaven.loop import PARAMETERS
from leaven.registry import aliases, loops, versions
from leaven.registry.decisions import decisions
from leaven.registry.versions import VersionRecord
from leaven.registry.written import changed_parts
from leaven.stats.intervals import Interval
from leaven.training.iteration import Iterated, Tried, judge_iterations

FIRST = "there was no champion to compare with"
UNJUDGED = "it never came to its gates"
UNANSWERED = "too few fresh rows that both answered"
OTHER_LABEL = "its label is another than the champion's"
OTHER_LOSS = "its gates judged by another loss"
UNKNOWN = "its definition, or the champion's, is not kept"


def iterated(connection: Connection, loop: str) -> Iterated:
    """Return what the past refreshes of a loop say about model iteration and data iteration.

    Every version that a refresh made and that met a champion at its gates counts, promoted or refused. Gains are of the
    loss that the latest gates judged by.

    Raises:
        UnknownLoop: there is no such loop.
    """
    loops.loop(connection, loop)
    made = {one.number: one for one in versions.versions(connection, loop)}
    judged = {
        one.version: one.evidence["forgetting"]
        for one in decisions(connection, loop, kind="gate")
        if one.evidence.get("forgetting")
    }
    reached = {one.version for one in decisions(connection, loop, kind="gate")}
    served = {span.version for span in aliases.history(connection, loop, "champion")}
    metric = str(list(judged.values())[-1]["metric"]) if judged else ""
    tried, unmeasured = [], Counter[str]()
    for version in made.values():
        if version.refresh is None or version.format in (ENDPOINT, PARAMETERS):
            continue
        found = _tried(connection, made, version, judged.get(version.number), metric, promoted=version.number in served)
        if isinstance(found, Tried):
            tried.append(found)
        else:
            unmeasured[found if version.number in reached or found == FIRST else UNJUDGED] += 1
    return judge_iterations(tried, metric=metric, unmeasured=dict(unmeasured))


def _tried(
    connection: Connection, made: dict[int, VersionRecord], version: VersionRecord, evidence: object, metric: str, *,
    promoted: bool,
) -> Tried | str:  # fmt: skip
    """What a version gained, or why that is not known."""
    against = version.lineage.get("replaces")
    if against is None or against not in made:
        return FIRST
    fresh = None if evidence is None else msgspec.convert(evidence, Forgetting).fresh
    if evidence is None or fresh is None or fresh.difference.n < 2:
        return UNANSWERED
    if msgspec.convert(evidence, Forgetting).metric != metric:
        return OTHER_LOSS
    before, after = (
        loops.definition(connection, version.loop, each.definition_digest) for each in (made[against], version)
    )
    if before is None or after is None:
        return UNKNOWN
    changed = changed_parts(before, after)
    if "label" in changed:
        return OTHER_LABEL
    training, beside = version.lineage.get("training", {}), version.lineage.get("compared", {}).get("other", {})
    return Tried(
        version.number, against, changed, -fresh.difference.estimate, _error(fresh), fresh.champion,
        training.get("cpu_seconds", 0.0) + beside.get("cpu_seconds", 0.0), promoted,
    )  # fmt: skip


def _error(losses: Losses) -> float:
    """Standard error of a difference, from its Student interval."""
    found: Interval = losses.difference
    return (found.high - found.low) / 2 / float(stdtrit(found.n - 1, (1 + found.level) / 2))
