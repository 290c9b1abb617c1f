"""Where does one row per unit of a trial come from?"""

# ruff: noqa: S608  # every name of the user's that stands in a query is quoted

from __future__ import annotations

from dataclasses import dataclass

from leaven.experiments.measures import Measure
from leaven.storage.tabular import quoted
from leaven.storage.trial_columns import NUMBERED, ROW, TrialCells


@dataclass(frozen=True, slots=True)
class Numbers:
    """One metric's numbers per unit, as SQL: the metric's own, then its covariate's. NULL is no measurement."""

    own: tuple[str, ...]
    covariate: tuple[str, ...]
    plain: tuple[str, ...]  # both, where nothing is missing: without a care for NaN


@dataclass(frozen=True, slots=True)
class Units:
    """A row per unit, as SQL: what to select, and from what."""

    source: str  # all units
    mature: str  # where a unit's outcome is final; empty: everywhere
    arm: str
    parts: tuple[str, ...]  # its value of each slice column, as text: what is empty is a slice of its own
    cluster: str
    numbers: tuple[Numbers, ...]  # of each metric that is no quantile

    @property
    def judged(self) -> str:
        """The units that are compared."""
        return f"{self.source} WHERE {self.mature}" if self.mature else self.source


def moments_of(cells: TrialCells) -> list[Measure]:
    """Return the metrics that are told by moments, in their order."""
    return [measure for measure in cells.columns.measures if measure.quantile is None]


def units_of_rows(cells: TrialCells) -> Units:
    """Return the file's rows as units."""
    columns = cells.columns
    return Units(
        "data",
        "" if columns.mature is None else cells.truth(columns.mature),
        quoted(columns.arm),
        tuple(_part(cells, name) for name in columns.slices),
        "NULL" if columns.cluster is None else cells.text(columns.cluster),
        tuple(_of_rows(cells, measure) for measure in moments_of(cells)),
    )


def units_of_many_rows(cells: TrialCells, unit: str) -> Units:
    """Make the table `units` of a file with several rows per unit, and return it.

    Raises:
        BadDefinition: a unit is in two arms, or in two clusters.
    """
    columns, made = cells.columns, {}
    arm, cluster = cells.text(columns.arm), "NULL" if columns.cluster is None else cells.text(columns.cluster)
    for index, measure in enumerate(moments_of(cells)):
        for k, expression in enumerate(_totals(cells, measure)):
            made[f"m{index}_{k}"] = expression
    made |= {f"s{i}": f"arg_min({_part(cells, name)}, {ROW})" for i, name in enumerate(columns.slices)}
    if columns.mature is not None:
        made["mature"] = f"bool_and({cells.truth(columns.mature)})"
    chosen = ", ".join(f"{expression} AS {name}" for name, expression in made.items())
    cells.run(
        f"CREATE TEMP TABLE units AS SELECT {cells.text(unit)} AS unit, min({arm}) AS arm, max({arm}) AS other_arm, "
        f"min({cluster}) AS cluster, max({cluster}) AS other_cluster{', ' if chosen else ''}{chosen} "
        f"FROM {NUMBERED if columns.slices else 'data'} GROUP BY {cells.text(unit)}"
    )
    _refuse_two(cells, columns.arm, "arm")
    if columns.cluster is not None:
        _refuse_two(cells, columns.cluster, "cluster")
    return Units(
        "units",
        "mature" if columns.mature is not None else "",
        "arm",
        tuple(f"s{i}" for i in range(len(columns.slices))),
        "cluster",
        tuple(_named(index, measure) for index, measure in enumerate(moments_of(cells))),
    )


def _of_rows(cells: TrialCells, measure: Measure) -> Numbers:
    names = (*measure.columns, *measure.covariate)
    own, covariate = (tuple(map(cells.number, some)) for some in (measure.columns, measure.covariate))
    return Numbers(own, covariate, tuple(map(cells.plain, names)))


def _totals(cells: TrialCells, measure: Measure) -> list[str]:
    """The mean over a unit's rows of what stands alone; totals, of rows that have both, of what is divided."""
    made = []
    for names in (measure.columns, measure.covariate):
        numbers = [cells.number(name) for name in names]
        both = " AND ".join(f"({number}) IS NOT NULL" for number in numbers)
        made += [f"{'favg' if len(names) == 1 else 'fsum'}({number}) FILTER ({both})" for number in numbers]
    return made


def _named(index: int, measure: Measure) -> Numbers:
    own = len(measure.columns)
    names = tuple(f"m{index}_{k}" for k in range(own + len(measure.covariate)))
    return Numbers(names[:own], names[own:], names)


def _part(cells: TrialCells, name: str) -> str:
    return f"coalesce({cells.text(name)}, '')"


def _refuse_two(cells: TrialCells, column: str, what: str) -> None:
    unit, count = cells.rows(f"SELECT min(unit), count(*) FROM units WHERE {what} <> other_{what}")[0]
    if count:
        cells.refuse(
            f"column {column}: {count:,} units are in more than one {what}, {unit!r} for one",
            "Find out why; then leave these units out, of all arms.",
        )
