"""What did making a version cost, and what would the other plan have cost?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from leaven.training.plans import Mode

_SECONDS_PER_KWH = 3_600_000.0  # one watt for one second is 1 / 3,600,000 of a kilowatt hour


class Power(msgspec.Struct, frozen=True):
    """What the owner declares of the machine and of its grid."""

    watts: float  # that one busy processor core draws, with its share of the machine
    grid_intensity: float  # g of CO2-equivalent per kWh


class Energy(msgspec.Struct, frozen=True):
    """An estimate, from what was declared: nothing here was measured but the seconds."""

    kwh: float
    co2_g: float
    watts: float
    grid_intensity: float


class Counterfactual(msgspec.Struct, frozen=True):
    """What the other way would have cost, an estimate: as much as when it was last gone."""

    mode: Mode
    rows: int
    cpu_seconds: float
    version: int | None  # whose training was measured; None: it was trained beside this one


def energy(cpu_seconds: float, power: Power | None) -> Energy | None:
    """Return the energy of so many CPU seconds, and what it emitted; None where no power is declared."""
    if power is None:
        return None
    kwh = cpu_seconds * power.watts / _SECONDS_PER_KWH
    return Energy(kwh, kwh * power.grid_intensity, power.watts, power.grid_intensity)


def counterfactual(
    mode: Mode, earlier: Sequence[tuple[int, Mode, Mapping[str, Any]]], *, beside: Mapping[str, Any] | None = None
) -> Counterfactual | None:
    """Return what the other way would have cost; None where it was never gone.

    Args:
        mode: How the version was made.
        earlier: Number, mode and `training` (rows, cpu_seconds) of the versions before it, oldest first.
        beside: Rows and CPU seconds of the other model, where one was trained beside this one.
    """
    other: Mode = "update" if mode == "fit" else "fit"
    if beside and "cpu_seconds" in beside:
        return Counterfactual(other, int(beside["rows"]), float(beside["cpu_seconds"]), None)
    for number, made, training in reversed(earlier):
        if made == other and "cpu_seconds" in training:
            return Counterfactual(other, int(training.get("rows", 0)), float(training["cpu_seconds"]), number)
    return None
