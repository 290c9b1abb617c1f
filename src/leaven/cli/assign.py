"""`leaven assign`: which arm does a unit get?"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from leaven.cli.option_values import numbers, pair, shares_of
from leaven.cli.output import AsJson, emit
from leaven.errors import BadDefinition

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.experiments.experiment import Given, Hash, Holdout, Part

app = typer.Typer(no_args_is_help=True)


class HashName(StrEnum):
    """Whose hash."""

    leaven = "leaven"
    growthbook_v2 = "growthbook-v2"


@app.command()
def assign(
    experiment: Annotated[str, typer.Option("--experiment", help="Name of the experiment; it is the salt.")],
    arms: Annotated[str, typer.Option("--arms", help="Arms with their shares, as a=0.9,b=0.1.")],
    units: Annotated[
        list[str] | None, typer.Argument(metavar="[UNIT]…", help="Units. Default: from stdin, one a line.")
    ] = None,
    coverage: Annotated[float, typer.Option("--coverage", help="Share of the units that take part at all.")] = 1.0,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Layer, or the experiment's part of it as NAME:0-0.25.")
    ] = None,
    holdout: Annotated[str | None, typer.Option("--holdout", help="NAME=SHARE of the units that is left out.")] = None,
    hash_: Annotated[HashName, typer.Option("--hash", help="Whose hash.")] = HashName.leaven,
    as_json: AsJson = False,
) -> None:
    """Say which arm each unit gets: the same in every process, now and later.

    Shares that add up to less than 1 leave the other units out. Raising the coverage, or one of two arms' shares, only
    ever adds units to an arm that grows.
    """
    from leaven.experiments.experiment import Experiment, slots
    from leaven.experiments.experiment import assign as assigned

    name: Hash = "growthbook-v2" if hash_ is HashName.growthbook_v2 else "leaven"
    defined = Experiment(
        experiment, slots(shares_of("--arms", arms), coverage=coverage, hash=name), part=_part(layer),
        holdout=_holdout(holdout), hash=name,
    )  # fmt: skip
    given = [assigned(unit, defined) for unit in units or _from_stdin()]
    emit(given, as_json=as_json, human=lambda out: _show(given, out))


def _from_stdin() -> list[str]:
    lines = [] if sys.stdin.isatty() else [line.rstrip("\r\n") for line in sys.stdin]
    units = [line for line in lines if line]
    if not units:
        raise BadDefinition("units", "there are none", "Name them, or write them to stdin, one a line.")
    return units


def _part(given: str | None) -> Part | None:
    from leaven.experiments.experiment import Part

    if given is None:
        return None
    layer, found, written = given.rpartition(":")
    if not found:
        return Part(given)
    low, high = numbers("--layer", ",".join(pair("--layer", written, "-", "NAME:LOW-HIGH")))
    if not layer or not 0 <= low < high <= 1:
        raise BadDefinition("--layer", f"{given!r} is no part of a layer", "Write it as NAME:0-0.25.")
    return Part(layer, low, high)


def _holdout(given: str | None) -> Holdout | None:
    from leaven.experiments.experiment import Holdout

    if given is None:
        return None
    ((name, share),) = shares_of("--holdout", given).items()
    if not 0 <= share <= 1:
        raise BadDefinition("--holdout", f"{share:g} is no share", "Give 0 to 1.")
    return Holdout(name, share)


def _show(given: list[Given], out: Console) -> None:
    from rich.table import Table

    table = Table(box=None)
    for heading in ("unit", "arm", "propensity", ""):
        table.add_column(heading, justify="right" if heading == "propensity" else "left", overflow="fold")
    for each in given:
        chance = "" if each.propensity is None else f"{each.propensity:.6g}"
        table.add_row(each.unit, each.arm or "-", chance, "" if each.reason == "assigned" else each.reason)
    out.print(table)
