"""`leaven init`: write a working loop file from a sample of the owner's data."""

from __future__ import annotations

import re
import textwrap
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from leaven.cli.guess import Guesses, guess
from leaven.cli.output import AsJson, emit
from leaven.cli.pace import Pace, pace
from leaven.cli.sample import Sample, open_sample
from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.loopfile import load_loop

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()


class Written(msgspec.Struct, frozen=True):
    """What was written where, and what it rests on."""

    file: str
    loop: str
    guesses: dict[str, str]  # what for: column and reason
    features: dict[str, str]  # type by name
    left_out: dict[str, str]  # reason by name
    next: tuple[str, ...]  # commands


@app.command()
def init(
    sample: Annotated[Path, typer.Argument(help="Parquet or CSV file of past requests with their outcomes.")],
    out: Annotated[Path | None, typer.Option(help="File to write. Default: NAME.py here.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Name of the loop.", show_default=False)] = None,
    label: Annotated[str | None, typer.Option(help="Column of the outcome.", show_default=False)] = None,
    time: Annotated[str | None, typer.Option(help="Column of the request's time.", show_default=False)] = None,
    label_time: Annotated[
        str | None, typer.Option(help="Column of when the outcome was known.", show_default=False)
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Column of the user, device, …", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a loop file from a sample of your data; every guess is explained in a comment."""
    named = name or _slug(sample.stem)
    path = out or Path(f"{named.replace('-', '_')}.py")
    if path.exists() and not force:
        raise BadDefinition(str(path), "the file is there already", "Name another with --out, or add --force.")
    with open_sample(sample) as opened:
        guesses = guess(opened, label=label, time=time, label_time=label_time, unit=unit)
        text = loop_file(named, opened, guesses, pace(opened, guesses))
    path.write_text(text, encoding="utf-8")
    loop = load_loop(path)  # what was written must load, or the command fails
    written = Written(
        str(path),
        loop.name,
        _told(guesses),
        {feature: kind for feature, (kind, _) in guesses.features.items()},
        guesses.left_out,
        _next(path, sample, guesses),
    )
    emit(written, as_json=as_json, human=lambda console: _show(console, written))


def loop_file(name: str, sample: Sample, guesses: Guesses, lengths: Pace) -> str:
    """Return the text of a loop file in which every guess is explained."""
    label, bound = guesses.label.column, guesses.label_bound
    reads = any(kind == "text" for kind, _ in guesses.features.values())
    learner, own, others = _learner(number=bound is None and not guesses.classes, reads=reads)
    asked = f"How much is {label}?" if bound is None else f"Is {label} above {bound:g}?"
    asked = f"Which {label} is it?" if guesses.classes else asked
    above = "" if bound is None else f"above={bound:g}, "
    above = "classes=CLASSES, " if guesses.classes else above
    classes = f"CLASSES = [{', '.join(map(_text, guesses.classes))}]"
    named = "\n".join(textwrap.wrap(classes, 118, subsequent_indent="    ")) + "\n\n" if guesses.classes else ""
    stages = "from leaven.experiments import Canary, Shadow\n" if lengths.shares else ""
    loss = "absolute_error" if bound is None and not guesses.classes else "log_loss"
    enough = "" if lengths.gate_rows is None else f", min_rows={lengths.gate_rows}"
    return f'''"""{_plain(asked)}

Written by leaven init from {_plain(sample.path.name)}: read the guesses, then edit.
"""

{others}from leaven import Feature, Label, Loop
from leaven.curation import Recent
{stages}from leaven.gates import NotWorse, Sane
{own}
from leaven.training import Stateless
from leaven.triggers import Every

{named}loop = Loop(
    {_text(name)},
    features=[
{_features(guesses)}    ],
{_comment(_unit_reason(guesses))}    unit={_text(guesses.unit.column if guesses.unit else "unit")},
{_comment(_label_reason(guesses, lengths))}    label=Label({_text(label)}, {above}within="{lengths.within}"),
    learner={learner},
{_comment(_pace_reason(lengths))}    data=Recent("{lengths.window}"),
    plan=Stateless(),
    triggers=[Every("{lengths.every}")],
    # A challenger meets traffic only if it is no worse than the champion on the newest labelled rows.
    gates=[NotWorse("{loss}", on="fresh"{enough}), Sane()],
{_rollout(lengths)}    holdout="{lengths.holdout}",
)
'''


def _rollout(lengths: Pace) -> str:
    if not lengths.shares:
        why = "In two weeks too few units come by to prove a version on; one that passes the gates serves at once."
        return f"{_comment(why)}    rollout=[],\n"
    shares = ", ".join(f"{share:g}" for share in lengths.shares)
    why = "In production it first answers unseen, then serves a growing share of the units."
    return f'{_comment(why)}    rollout=[Shadow("{lengths.shadow}"), Canary({shares}, each="{lengths.canary}")],\n'


def _features(guesses: Guesses) -> str:
    lines = [f"Feature({_text(name)}, {_text(kind)}),  # {why}" for name, (kind, why) in guesses.features.items()]
    if guesses.left_out:
        lines.append("# Left out, as a request cannot or should not carry it; move up what belongs to the model:")
        lines += [f"# {name}: {why}" for name, why in guesses.left_out.items()]
    return "".join(f"        {_one_line(line)}\n" for line in lines)


def _unit_reason(guesses: Guesses) -> str:
    if guesses.unit is None:
        return (
            "No column looks like a user, device or account. Send one with each request as the parameter `unit`; "
            "without it every request is a unit of its own."
        )
    return f"{guesses.unit.column}: {guesses.unit.why}. All requests of one unit are answered by the same version."


def _label_reason(guesses: Guesses, lengths: Pace) -> str:
    told = f"{guesses.label.column}: {guesses.label.why}. "
    if lengths.timely is None:
        return told + "When outcomes become known is not in the sample: set `within` to how long that may take."
    assert guesses.label_time is not None
    return told + f"{lengths.timely:.2%} of {guesses.label_time.column} lie within {lengths.within} of the request."


def _pace_reason(lengths: Pace) -> str:
    if lengths.rows_a_day is None:
        return "The sample has no time column, so these lengths are a habit: fit them to how fast your data comes."
    held = lengths.rows_a_day * (duration(lengths.window) / timedelta(days=1))
    rate = (
        f"{lengths.rows_a_day:,.0f} rows a day over {lengths.days:,.0f} days: {lengths.window} hold about {held:,.0f}."
    )
    return f"{rate} The newest {lengths.holdout} are kept to judge by."


def _learner(*, number: bool, reads: bool) -> tuple[str, str, str]:
    """A learner that this environment can run, and the imports that it needs: of Leaven, and of others."""
    if reads:
        kind = "SGDRegressor()" if number else 'SGDClassifier(loss="log_loss")'
        own = "from leaven.learners import ScikitLearn"
        others = f"from sklearn.linear_model import {kind.partition('(')[0]}\n\n"
        return f'ScikitLearn({kind}, categories="one-hot")', own, others
    if find_spec("xgboost") is not None:
        return "XGBoost(rounds=100, max_depth=6, eta=0.1)", "from leaven.learners import XGBoost", ""
    kind = f"HistGradientBoosting{'Regressor' if number else 'Classifier'}"
    own = "from leaven.learners import ScikitLearn"
    return f"ScikitLearn({kind}())", own, f"from sklearn.ensemble import {kind}\n\n"


def _comment(text: str) -> str:
    """The text as comment lines of at most 118 characters, inside the call of Loop."""
    return "".join(f"    # {line}\n" for line in textwrap.wrap(_one_line(text), 110))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")


def _plain(text: str) -> str:
    """The text without what would end or change a docstring."""
    return "".join(character if character.isprintable() and character not in '"\\' else "_" for character in text)


def _text(given: str) -> str:
    return f'"{given}"' if given.isprintable() and not set(given) & {'"', "\\"} else repr(given)


def _slug(stem: str) -> str:
    """A loop's name from a file's: lower case, starting with a letter."""
    plain = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"loop-{plain}".rstrip("-"))[:63]


def _told(guesses: Guesses) -> dict[str, str]:
    named = {"label": guesses.label, "time": guesses.time, "label time": guesses.label_time, "unit": guesses.unit}
    return {what: f"{each.column} ({each.why})" if each else "no column looks like it" for what, each in named.items()}


def _next(path: Path, sample: Path, guesses: Guesses) -> tuple[str, ...]:
    times = f" --time {guesses.time.column}" if guesses.time else ""
    times += f" --label-time {guesses.label_time.column}" if guesses.time and guesses.label_time else ""
    check = f"leaven check {path} --data {sample}{times}"
    return (check, f"leaven replay {path} --data {sample}{times}", f"leaven up {path}") if guesses.time else (check,)


def _show(console: Console, written: Written) -> None:
    from rich.markup import escape

    features = ", ".join(f"{name} ({kind})" for name, kind in written.features.items())
    console.print(
        f"[bold]{escape(written.file)}[/bold] defines the loop [bold]{written.loop}[/bold]; each guess is in it."
    )
    for what, told in {**written.guesses, "features": features}.items():
        console.print(f"  {what:<11}{escape(told)}")
    for name, why in written.left_out.items():
        console.print(f"  [yellow]left out[/yellow]   {escape(f'{name}: {why}')}")
    console.print("Next:")
    for command in written.next:
        console.print(f"  {escape(command)}", soft_wrap=True)
