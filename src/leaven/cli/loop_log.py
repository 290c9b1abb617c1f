"""What do a loop's file and its log say, for a command that plans a trial?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from leaven.cli.moments import moment_from
from leaven.cli.people import app_at
from leaven.errors import BadDefinition
from leaven.loop import Loop
from leaven.loopfile import load_loop
from leaven.stats.metrics import METRICS, default_metric
from leaven.stats.moments import Moments
from leaven.stats.unit_curve import UnitCurve

if TYPE_CHECKING:
    from leaven.app import App

Metric = Annotated[
    str | None, typer.Option("--metric", help="A loss of single rows. Default: the loop's own.", show_default=False)
]
Days = Annotated[int, typer.Option("--days", min=1, max=366, help="How many whole days of the log are read.")]
Until = Annotated[
    str | None, typer.Option("--until", help="The log is read up to this time. Default: now.", show_default=False)
]


class Seen(msgspec.Struct, frozen=True):
    """What a log says that a trial is planned by."""

    loop: str
    until: str
    days: int
    predictions: int
    curve: UnitCurve
    labelled: float | None
    label: Moments
    metric: str
    loss: Moments
    losses: dict[int, Moments]
    answers: str
    delays: tuple[float, float, float] | None
    window: float  # days

    def in_words(self) -> list[str]:
        """Return a line for each thing that was read."""
        seen = self.curve.seen[-1]
        again = self.curve.units(2 * self.days)
        lines = [
            f"log of {self.loop}, {self.days} days until {self.until[:16]}: {self.predictions:,} predictions of "
            f"{seen:,} units ({self.curve.once:,} of them came on one day only); in as many days again about "
            f"{again:,.0f} in all (between {self.curve.low(2 * self.days):,.0f} and "
            f"{self.curve.high(2 * self.days):,.0f})"
        ]
        if self.loss.count:
            whose = "" if self.answers == "served" else ", of always saying the mean label: no version has served"
            lines.append(
                f"{self.metric} per unit: mean {self.loss.mean:.4g}, standard deviation {sd_of(self.loss):.4g} "
                f"({self.loss.count:,} units{whose})"
            )
        if self.labelled is not None:
            heard = "" if self.delays is None else f", half of the labels within {told_days(self.delays[0])}"
            lines.append(f"{100 * self.labelled:.3g} % of the predictions get a label{heard}")
        return lines


@dataclass(frozen=True, slots=True)
class Looked:
    """A loop as its file has it, and its log where there is one."""

    loop: Loop
    metric: str
    seen: Seen | None

    def needed(self) -> Seen:
        """Return what the log says.

        Raises:
            BadDefinition: it holds nothing that a trial can be planned by.
        """
        if (
            self.seen is None
            or min(loss.count for loss in self.seen.losses.values()) < 2
            or not self.seen.loss.variance
        ):
            what = "no whole day of predictions" if self.seen is None else "no two units whose mature labels differ"
            raise BadDefinition(
                f"the log of {self.loop.name!r}", f"it has {what}",
                "Read another stretch (--until, --days), or say the numbers: --mean, --sd, --daily-units.",
            )  # fmt: skip
        return self.seen


def look_at(given: str, *, home: Path | None, metric: str | None, days: int, until: str | None) -> Looked:
    """Return what is known of a loop that is named, or whose file is; a file is not registered by that.

    Raises:
        BadDefinition: the metric gives single rows no loss, or does not fit the label.
        UnknownLoop, BadLoopFile: there is no such loop.
    """
    installed = app_at(home)
    loop = load_loop(Path(given)) if given.endswith(".py") else installed.loop(given)
    chosen = metric or _own_metric(loop)
    if chosen not in METRICS or METRICS[chosen].row_loss is None or loop.label.task not in METRICS[chosen].tasks:
        fit = [m.name for m in METRICS.values() if m.row_loss is not None and loop.label.task in m.tasks]
        raise BadDefinition("--metric", f"{chosen!r} is no loss of this label", f"Use one of {', '.join(fit)}.")
    return Looked(loop, chosen, _seen(installed, loop, chosen, days, until))


def _own_metric(loop: Loop) -> str:
    """The loss of the first stage that names one, else the task's own."""
    named = [metric for stage in loop.rollout if isinstance(metric := stage.metric, str) and metric in METRICS]
    losses = [metric for metric in named if METRICS[metric].row_loss is not None]
    return losses[0] if losses else default_metric(loop.label.task)


def _seen(installed: App, loop: Loop, metric: str, days: int, until: str | None) -> Seen | None:
    from leaven.experiments.observed import observe

    lake = installed.settings.lake
    if "://" not in lake and not Path(lake).is_dir():
        return None  # nothing is made where nothing is
    source = installed.source(loop.name)
    end = installed.clock.now() if until is None else moment_from(until, where="--until")
    first = source.first()
    if first is None:
        return None
    whole = min(days, math.floor((end - first) / timedelta(days=1)))  # days before the log began are no empty ones
    if whole < 1:
        return None
    found = observe(source, loop.label, until=end, days=whole, metric=metric)
    if not found.predictions:
        return None
    kept = {f: getattr(found, f) for f in found.__struct_fields__ if f in Seen.__struct_fields__}
    return Seen(loop=loop.name, window=loop.label.window / timedelta(days=1), **kept)


def sd_of(sample: Moments) -> float:
    """Return the standard deviation of a sample; 0 of fewer than two."""
    return math.sqrt(sample.variance) if sample.count > 1 else 0.0


def told_days(days: float) -> str:
    """Return a number of days as people say it."""
    for length, name in ((1.0, "days"), (1 / 24, "hours"), (1 / 1440, "minutes")):
        if days >= 2 * length:
            return f"{days / length:.3g} {name}"
    return f"{days * 86_400:.3g} seconds"
