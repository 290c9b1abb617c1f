"""`leaven advise`: how should a challenger of this loop be proven?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.markup import escape

from leaven.cli.loop_log import Days, Looked, Metric, Until, look_at, sd_of, told_days
from leaven.cli.output import AsJson, Home, emit
from leaven.errors import BadDefinition
from leaven.experiments.advice import Facts, Harm, advise
from leaven.stats.moments import Moments
from leaven.stats.unit_curve import UnitCurve

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

app = typer.Typer()


class HarmName(StrEnum):
    """What a bad answer costs."""

    low = "low"
    medium = "medium"
    high = "high"


class Known(msgspec.Struct, frozen=True):
    """One fact, in words, and where it comes from."""

    name: str
    value: Any
    words: str
    source: str  # given, loop file, log, asked, assumed


class Answer(msgspec.Struct, frozen=True):
    """The advice, and all that it rests on."""

    loop: str | None
    strategy: str
    why: str
    stages: str
    per_arm: int | None
    total: int | None
    days: int | None
    warnings: tuple[str, ...]
    facts: list[Known]


@app.command("advise")
def advise_(
    loop: Annotated[
        str | None, typer.Argument(metavar="[LOOP.py|LOOP]", help="A loop, by file or name; its log is read as well.")
    ] = None,
    ranker: Annotated[
        bool | None, typer.Option("--ranker/--no-ranker", help="Its answers order a list that a user sees.")
    ] = None,
    outcome_depends: Annotated[
        bool | None,
        typer.Option("--outcome-depends/--no-outcome-depends", help="What happens depends on what is served."),
    ] = None,
    effect: Annotated[
        float | None, typer.Option("--effect", help="Smallest effect worth having, a share of the metric: 0.02.")
    ] = None,
    harm: Annotated[HarmName | None, typer.Option("--harm", help="What a bad answer costs.")] = None,
    candidates: Annotated[
        int | None, typer.Option("--candidates", min=1, help="Versions to choose from, beside the champion.")
    ] = None,
    context: Annotated[
        bool | None, typer.Option("--context/--no-context", help="The best version differs by user or situation.")
    ] = None,
    explore: Annotated[
        bool | None,
        typer.Option("--explore/--no-explore", help="Serving what is probably worse, to learn, is acceptable."),
    ] = None,
    daily_units: Annotated[float | None, typer.Option("--daily-units", min=0, help="New units a day.")] = None,
    mean: Annotated[float | None, typer.Option("--mean", help="Mean of the metric per unit.")] = None,
    sd: Annotated[float | None, typer.Option("--sd", min=0, help="Its standard deviation.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Instead of both: a rate, in (0, 1).")] = None,
    delay: Annotated[
        float | None, typer.Option("--delay", min=0, help="Days within which 90 % of the labels are heard of.")
    ] = None,
    metric: Metric = None,
    days: Days = 28,
    until: Until = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Say how a challenger should be proven: strategy, reason, size, days, and the stages for the loop file.

    What the loop file and its log tell is read there; the rest is asked for on a terminal, or assumed. Each fact says
    where it comes from.
    """
    given = {
        "ranker": ranker, "outcome_depends": outcome_depends, "effect": effect, "candidates": candidates,
        "harm": None if harm is None else harm.value, "context": context, "explore": explore, "delay": delay,
    }  # fmt: skip
    looked = None if loop is None else look_at(loop, home=home, metric=metric, days=days, until=until)
    book = _Book(asking=sys.stdin.isatty() and not as_json)
    facts = _facts(book, given, looked, metric, _moments_given(mean, sd, rate), daily_units, home)
    found = advise(facts)
    named = None if looked is None else looked.loop.name
    kept = {name: getattr(found, name) for name in ("strategy", "why", "stages", "per_arm", "days", "warnings")}
    answer = Answer(loop=named, total=found.total_units, facts=book.facts, **kept)
    emit(answer, as_json=as_json, human=lambda out: _show(out, answer))


class _Book:
    """Collects the facts with where each comes from: given, read, asked for, or assumed."""

    def __init__(self, *, asking: bool) -> None:
        self.asking = asking
        self.facts: list[Known] = []

    def note(self, name: str, value: Any, words: str, source: str) -> Any:
        self.facts.append(Known(name, value, words, source))
        return value

    def find(
        self, name: str, given: Any, question: str, assumed: Any, *, read: tuple[Any, str] | None = None,
        say: Callable[[Any], str] = lambda value: "yes" if value is True else "no" if value is False else str(value),
    ) -> Any:  # fmt: skip
        """Return a fact: as given, else as read, else as asked, else as assumed."""
        if given is not None:
            value, source = given, "given"
        elif read is not None:
            value, source = read
        elif self.asking:
            value, source = _asked(question, assumed), "asked"
        else:
            value, source = assumed, "assumed"
        return self.note(name, value, f"{question} {say(value)}", source)


def _asked(question: str, assumed: Any) -> Any:
    if isinstance(assumed, bool):
        return typer.confirm(question, default=assumed, err=True)
    return typer.prompt(question, default=assumed, type=type(assumed), err=True)


def _facts(
    book: _Book, given: dict[str, Any], looked: Looked | None, metric: str | None, told: Moments | None,
    daily_units: float | None, home: Path | None,
) -> Facts:  # fmt: skip
    seen = None if looked is None else looked.seen
    chosen = looked.metric if looked is not None else metric or "log_loss"
    book.note("metric", chosen, f"What is compared? {chosen}", "loop file" if looked and not metric else "given"
              if metric else "assumed")  # fmt: skip
    window = 0.0 if looked is None else looked.loop.label.window.total_seconds() / 86_400
    if looked is not None:
        book.note("window", window, f"When is a label mature? After {told_days(window)}", "loop file")
    declared = looked is not None and not getattr(looked.loop, "outcome_depends_on_prediction", True)
    depends = book.find(
        "outcome_depends", given["outcome_depends"], "Does the outcome depend on what is served?", True,
        read=(False, "loop file") if declared else None,
    )  # fmt: skip
    ranker = book.find("ranker", given["ranker"], "Do the answers order a list that a user sees?", False)
    effect = book.find("effect", given["effect"], "Smallest effect worth having, as a share of the metric?", 0.02,
                       say=lambda value: f"{100 * value:.3g} %")  # fmt: skip
    harm = book.find("harm", given["harm"], "What does a bad answer cost (low, medium, high)?", "medium")
    candidates = book.find("candidates", given["candidates"], "How many versions are there to choose from?", 1)
    context = book.find("context", given["context"], "Does the best version differ by user or situation?", False)
    explore = book.find("explore", given["explore"], "May what is probably worse be served, to learn?", False)
    heard = None if seen is None or seen.delays is None else (seen.delays[1], "log")
    unknown = (None, "assumed") if looked is None and not book.asking else heard
    delay = book.find("delay", given["delay"], "Days within which 90 % of the labels are heard of?", window,
                      read=unknown, say=lambda value: "unknown" if value is None else told_days(value))  # fmt: skip
    labelled = 1.0
    if seen is not None and seen.labelled:
        labelled = book.note("labelled", seen.labelled, f"Which share gets a label? {100 * seen.labelled:.3g} %", "log")
    return Facts(
        metric=chosen, ranker=ranker, outcome_depends=depends, effect=effect, harm=_harm(harm), candidates=candidates,
        context=context, explore=explore, window=window, delay=delay, labelled=labelled,
        losses=_losses(book, looked, told), curve=_curve(book, looked, daily_units),
        pairing=_pairing(book, looked, home) if not depends else None,
    )  # fmt: skip


def _harm(given: str) -> Harm:
    if given not in ("low", "medium", "high"):
        raise BadDefinition("harm", f"{given!r} is no cost", "Say low, medium or high.")
    return given  # type: ignore[return-value]


def _moments_given(mean: float | None, sd: float | None, rate: float | None) -> Moments | None:
    if rate is not None:
        if not 0 < rate < 1 or mean is not None or sd is not None:
            raise BadDefinition("--rate", "it stands alone, in (0, 1)", "Give --rate, or --mean and --sd.")
        mean, sd = rate, (rate * (1 - rate)) ** 0.5
    if (mean is None) != (sd is None):
        raise BadDefinition("leaven advise", "a mean needs a spread", "Give both --mean and --sd, or --rate.")
    return None if mean is None or sd is None else Moments(2, mean, sd * sd)


def _losses(book: _Book, looked: Looked | None, told: Moments | None) -> dict[int, Moments]:
    seen = None if looked is None else looked.seen
    losses = {1: told} if told is not None else {} if seen is None else seen.losses
    if not losses or any(loss.count < 2 for loss in losses.values()):
        book.note("loss", None, "What is the metric per unit? Unknown", "assumed")
        return {}
    loss, whose = losses[max(losses)], ""
    if told is None and seen is not None and seen.answers == "constant":
        whose = " (of always saying the mean label: no version has served)"
    words = f"What is the metric per unit? Mean {loss.mean:.4g}, standard deviation {sd_of(loss):.4g}{whose}"
    book.note("loss", {"mean": loss.mean, "sd": sd_of(loss)}, words, "given" if told is not None else "log")
    return losses


def _curve(book: _Book, looked: Looked | None, daily_units: float | None) -> UnitCurve | None:
    seen = None if looked is None else looked.seen
    if daily_units is None and seen is not None:
        curve, days = seen.curve, seen.days
        ahead = [curve.units(days * times) for times in (1, 2, 3)]
        come = ", ".join(f"{units:,.0f}" for units in ahead)
        words = f"How many units come? {come} in {days}, {2 * days}, {3 * days} days"
        units = {"days": days, "seen": curve.seen[-1], "once": curve.once, "twice": curve.twice}
        book.note("units", units, words, "log")
        return curve
    newcomers = book.find("daily_units", daily_units, "How many new units come a day (0: unknown)?", 0.0,
                          say=lambda value: f"{value:,.6g}" if value else "unknown")  # fmt: skip
    return UnitCurve((round(newcomers),), 0, 0) if newcomers >= 1 else None


def _pairing(book: _Book, looked: Looked | None, home: Path | None) -> float | None:
    """The share of a loss's variance that the latest judged shadow's paired differences had."""
    from leaven.cli.control import reading
    from leaven.errors import LeavenError
    from leaven.experiments.side_by_side import ShadowEvidence
    from leaven.registry import decisions

    if looked is None or looked.seen is None:
        return None
    try:
        with reading(home) as connection:
            made = decisions.decisions(connection, looked.loop.name, kind="trial")
    except LeavenError:
        return None
    for decided in made:
        if "loss_difference" in decided.evidence:
            seen = msgspec.convert(decided.evidence, ShadowEvidence)
            both = seen.champion_loss.variance + seen.challenger_loss.variance
            if seen.loss_difference.count > 100 and both > 0:
                left = seen.loss_difference.variance / both
                words = f"How much of the spread does pairing leave? {100 * left:.3g} %, in {decided.trial}"
                return float(book.note("pairing", left, words, "log"))
    return None


def _show(out: Console, answer: Answer) -> None:
    from rich.table import Table

    out.print(f"[bold]{answer.strategy}[/bold]")
    out.print(escape(answer.why), soft_wrap=True)
    out.print(f"\n    {escape(answer.stages)},\n", soft_wrap=True)
    for warning in answer.warnings:
        out.print(f"[yellow]note[/yellow] {escape(warning)}", soft_wrap=True)
    table = Table(box=None, title="What this rests on", title_justify="left", show_header=False)
    for fact in answer.facts:
        table.add_row(escape(fact.words), f"[dim]{fact.source}[/dim]")
    out.print(table)
