"""A loop's file no longer fits its champion: what does the next refresh make of that, and what else could be done?"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection

from leaven.controller.parts import Artifacts
from leaven.controller.planning import changes
from leaven.controller.surgery import can_grow, gone_from, why_not_corrected
from leaven.endpoints.description import FORMAT as ENDPOINT
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Loop
from leaven.registry import aliases, versions
from leaven.training.learner import CannotLearn
from leaven.training.plans import PlanHistory

Way = Literal["surgery", "residual", "distil", "rebuild"]
_HOW: dict[Way, str] = {
    "surgery": "plan=Stateful() gives it the features that came, proves that it answers as before, and goes on from it",
    "residual": 'plan=Stateful(grow_by="residual") keeps it whole and corrects it by a model of the loop\'s learner: '
    "all that it learnt is kept, and two models answer",
    "distil": "plan=Distill() fits from scratch, to labels that are in part its answers: one model, which keeps a part",
    "rebuild": "plan=Stateless() fits from scratch: nothing that it learnt is kept but what the rows say again",
}


class Offer(msgspec.Struct, frozen=True):
    """What became of a champion that the loop's file no longer fits.

    `chosen` is what the loop's plan does, None where it can do nothing; `ways` says of each way how it is asked for, or
    why it cannot be gone; `best` is the first of those that can: the one by which least is lost.
    """

    champion: int
    changed: str  # in words
    chosen: Way | None
    why: str
    best: Way
    ways: dict[str, str]

    def __str__(self) -> str:
        """Return all of it in words."""
        others = [f"{way}: {how}" for way, how in self.ways.items() if way != self.chosen]
        does = f"the next refresh goes by {self.chosen}" if self.chosen else "the next refresh will fail"
        least = "" if self.chosen == self.best else f" Least is lost by {self.best}."
        return (
            f"{self.changed} since version {self.champion}, the champion: {does} ({self.why}).{least} "
            f"Otherwise: {'; '.join(others)}."
        )


def offer(connection: Connection, artifacts: Artifacts, loop: Loop, *, now: datetime) -> Offer | None:
    """Return what there is to choose from, and what the plan chooses; None where the loop fits its champion.

    There is none either where no version serves that was trained here.
    """
    if loop.of_parameters:
        return None
    number = aliases.alias(connection, loop.name, "champion")
    record = None if number is None else versions.version(connection, loop.name, number)
    if record is None or record.format == ENDPOINT or record.definition_digest == loop.digest:
        return None
    champion = ModelArtifact.from_files(artifacts.get(record.artifact))
    changed = changes(champion.encoder, loop.schema, champion.format, loop.learner.format)
    if not changed:
        return None
    grows, barred = can_grow(loop, champion.encoder, champion.format), why_not_corrected(loop, champion)
    ways = {"surgery": _HOW["surgery"] if grows else f"cannot be, as {_why_not_grown(loop, champion)}",
            "residual": f"cannot be, as {barred}" if barred else _HOW["residual"]}  # fmt: skip
    unteachable = _why_not_taught(loop)
    ways |= {"distil": f"cannot be, as {unteachable}" if unteachable else _HOW["distil"], "rebuild": _HOW["rebuild"]}
    history = PlanHistory(
        now, True, None, changed=changed, grows=grows, corrects=not barred, barred=barred, teacher=record.number
    )
    best: Way = "surgery" if grows else "residual" if not barred else "rebuild" if unteachable else "distil"
    chosen, why = _chosen(loop, history)
    return Offer(record.number, changed, chosen, why, best, ways)


def _chosen(loop: Loop, history: PlanHistory) -> tuple[Way | None, str]:
    try:
        choice = loop.plan.choose(history)
    except CannotLearn as error:
        return None, str(error).rstrip(".")
    if choice.mode == "update":
        return choice.grow_by or "surgery", f"{loop.plan!r} goes on from the champion"
    if choice.distil:
        return "distil", choice.why
    return "rebuild", f"{loop.plan!r} fits from scratch"


def _why_not_taught(loop: Loop) -> str:
    if loop.label.task == "multiclass":
        return "it answers for several classes, which are not learnt from yet"
    if loop.label.task == "binary" and not getattr(loop.learner, "soft_labels", False):
        return f"{type(loop.learner).__name__} takes no labels between 0 and 1"
    return ""


def _why_not_grown(loop: Loop, champion: ModelArtifact) -> str:
    gone = gone_from(loop, champion)
    if gone:
        return f"it takes {', '.join(gone)}, which the loop no longer has"
    if champion.format != loop.learner.format:
        return f"it is of another kind ({champion.format}) than the loop's learner makes ({loop.learner.format})"
    if loop.classes[: len(champion.encoder.classes)] != champion.encoder.classes:
        return "its classes do not stand first among those of the loop"
    what = "classes" if champion.encoder.classes != loop.classes else "columns"
    return f"{type(loop.learner).__name__}, as it is set, cannot give it {what}"
