"""Does computing the features again give what was served?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leaven.cli.findings import Finding
from leaven.cli.people import app_at
from leaven.curation.parity import FeatureParity, Served, as_told, parity
from leaven.duration import instant
from leaven.errors import BadDefinition
from leaven.events.columns import IMPORTED, Examples
from leaven.events.source import ExampleSource, Span
from leaven.loop import Loop
from leaven.loopfile import function_beside

Recompute = Callable[[str, datetime, dict[str, Any]], Any]
_BACK = (timedelta(days=1), timedelta(days=7), timedelta(days=28))  # looked at in turn, until there are enough


class Parity(msgspec.Struct, frozen=True):
    """How the served features compare with those computed again."""

    function: str
    rows: int
    failed: int  # rows for which the function failed
    first_failure: str | None
    features: list[FeatureParity]
    not_recomputed: list[str]


def compare_served(
    loop: Loop, loop_file: Path, function: str, *, rows: int, tolerance: float, home: Path | None
) -> Parity:
    """Return what comes of computing the newest `rows` served predictions' features again.

    Raises:
        BadDefinition: there is no such function, nothing was served, or the function returns what are no features.
    """
    recompute = function_beside(loop_file, function, where="--parity")
    installed = app_at(home)
    lake = installed.settings.lake
    there = "://" in lake or Path(lake).is_dir()  # nothing is made where nothing is
    served = _served(loop, installed.source(loop.name), installed.clock.now(), rows) if there else []
    if not served:
        what = f"no prediction of {loop.name!r} was served in {installed.settings.home}"
        raise BadDefinition("--parity", what, "Serve some first, or name the installation: --home.")
    computed, failures = _recomputed(recompute, served, loop, function)
    kept = [one for one, again in zip(served, computed, strict=True) if again is not None]
    again = [each for each in computed if each is not None]
    types = {name: kind for name, kind, _ in loop.schema.features}
    found = parity(kept, again, types=types, tolerance=tolerance)
    compared = {each.feature for each in found}
    left = [name for name in types if name not in compared]
    return Parity(function, len(served), len(failures), failures[0] if failures else None, found, left)


def parity_findings(found: Parity) -> Iterator[Finding]:
    """Yield what there is to say of each feature."""
    for each in found.features:
        about = f"parity {each.feature}"
        if not each.differ:
            yield Finding("ok", about, f"the same in all {each.compared:,} rows")
            continue
        first = each.examples[0]
        largest = "" if each.largest is None else f", by up to {each.largest:.3g} of the value"
        told = f"{each.share:.1%} of {each.compared:,} rows differ{largest}; in {first.prediction} of {first.unit}, "
        yield Finding("problem", about, f"{told}{first.at:%Y-%m-%d %H:%M}, {first.served!r} was served and "
                      f"{first.recomputed!r} is computed now")  # fmt: skip
    if found.failed:
        yield Finding("problem", "parity", f"{found.function} failed on {found.failed:,} of {found.rows:,} rows: "
                      f"{found.first_failure}")  # fmt: skip
    if found.not_recomputed:
        yield Finding("note", "parity", f"not computed again: {', '.join(found.not_recomputed)}")


def _served(loop: Loop, source: ExampleSource, now: datetime, rows: int) -> list[Served]:
    """The newest predictions that gateways answered, newest first."""
    first, found = source.first(), None
    end = now + timedelta(microseconds=1)
    for start in [] if first is None else [*(now - back for back in _BACK), first]:
        found = source.examples(Span(start, end), loop.label, as_of=now).predicted()
        found = found.take(found.predictions.arm != IMPORTED)
        if len(found) >= rows:
            break
    return [] if found is None else [_row(loop, found, row) for row in range(len(found) - 1, -1, -1)[:rows]]


def _row(loop: Loop, found: Examples, row: int) -> Served:
    served = found.predictions
    at = instant(int(served.at[row].astype("datetime64[us]").astype(np.int64)))
    types = {name: kind for name, kind, _ in loop.schema.features}
    told = {name: as_told(served.features[name][row], kind) for name, kind in types.items() if name in served.features}
    return Served(str(served.id[row]), str(served.unit[row]), at, told)


def _recomputed(
    recompute: Recompute, served: list[Served], loop: Loop, function: str
) -> tuple[list[Mapping[str, Any] | None], list[str]]:
    """What the function returns for each row, None where it failed, and the failures."""
    out: list[Mapping[str, Any] | None] = []
    failures: list[str] = []
    for one in served:
        try:
            again = recompute(one.unit, one.at, dict(one.features))
        except Exception as error:  # the owner's code may fail in any way, and the report says so
            failures.append(f"{type(error).__name__}: {error} (for unit {one.unit!r})")
            out.append(None)
            continue
        if not isinstance(again, Mapping):
            what = f"{function} returned {type(again).__name__}"
            raise BadDefinition("--parity", what, 'Return features by name: {"wind": 1.5}.')
        strange = [name for name in again if name not in loop.schema.names]
        if strange:
            had = ", ".join(loop.schema.names)
            raise BadDefinition("--parity", f"{function} returned {strange[0]!r}", f"The features are {had}.")
        out.append(again)
    return out, failures
