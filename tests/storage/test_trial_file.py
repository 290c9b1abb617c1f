"""Is what is read from a trial's file what a data frame says, and is a bad cell named?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from leaven.errors import BadDefinition
from leaven.experiments.measures import Cell, Measure
from leaven.stats.comoments import comoments
from leaven.storage.data_file import UnreadableFile
from leaven.storage.trial_file import MAX_SLICES, TrialColumns, read_sums

REVENUE, CLICKS = Measure("revenue", covariate=("before",)), Measure("clicks", "views")


def rows(n=600, *, units=150, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, units, n)
    return pd.DataFrame(
        {"user": [f"u{u}" for u in unit], "arm": np.where(unit % 3 == 0, "b", "a"), "revenue": rng.gamma(2, 5, n) + 1e7,
         "before": rng.gamma(2, 5, n), "views": rng.poisson(5, n) + 1.0, "clicks": rng.poisson(2, n) * 1.0,
         "country": np.where(unit % 2, "DE", "FR"), "done": unit % 10 != 0}
    )  # fmt: skip


def written(tmp_path, data: pd.DataFrame, suffix: str):
    path = tmp_path / f"trial.{suffix}"
    data.to_csv(path, index=False) if suffix == "csv" else data.to_parquet(path)
    return path


def same(ours, theirs) -> None:
    assert ours.count == theirs.count
    assert ours.centres == pytest.approx(theirs.centres, rel=1e-12)
    assert ours.products == pytest.approx(theirs.products, rel=1e-7)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_sums_are_those_of_a_data_frame(tmp_path, suffix):
    """Oracle: pandas groups, NumPy sums; a revenue far from zero keeps its digits."""
    data = rows()
    columns = TrialColumns("arm", [REVENUE, CLICKS], "user", "done", ["country"])
    sums = read_sums(written(tmp_path, data, suffix), columns)
    units = data.groupby("user").agg(
        arm=("arm", "first"), done=("done", "all"), country=("country", "first"), revenue=("revenue", "mean"),
        before=("before", "mean"), views=("views", "sum"), clicks=("clicks", "sum"),
    )  # fmt: skip
    assert sums.units == units.groupby("arm").size().to_dict()
    done = units[units["done"]]
    assert sums.mature == done.groupby("arm").size().to_dict()
    cells = {(cell.measure, cell.slice): cell.arms for cell in sums.cells}
    assert len(cells) == 6
    for (measure, part), arms in cells.items():
        own = ("revenue", "before") if measure == "revenue" else ("clicks", "views")
        some = done if part is None else done[done["country"] == part.removeprefix("country=")]
        for arm, kept in arms.items():
            same(kept, comoments(*(some[some["arm"] == arm][name].to_numpy() for name in own)))


def test_the_sums_of_two_files_add_up_to_those_of_both(tmp_path):
    data = rows().drop_duplicates("user")
    columns = TrialColumns("arm", [REVENUE, CLICKS], slices=["country"])
    whole = read_sums(written(tmp_path, data, "csv"), columns)
    parts = [read_sums(written(tmp_path, part, "csv"), columns) for part in (data[:70], data[70:])]
    for one, two, both in zip(parts[0].cells, parts[1].cells, whole.cells, strict=True):
        added: Cell = one + two
        for arm in both.arms:
            same(added.arms[arm], both.arms[arm])


def test_an_empty_cell_is_no_measurement_and_an_unknown_covariate_favours_no_arm(tmp_path):
    data = rows().drop_duplicates("user").reset_index(drop=True)
    data.loc[3, "revenue"] = np.nan
    data.loc[5, "before"] = np.nan
    sums = read_sums(written(tmp_path, data, "csv"), TrialColumns("arm", [REVENUE]))
    filled = data.fillna({"before": data["before"].mean()}).dropna()
    for arm, kept in sums.cells[0].arms.items():
        same(kept, comoments(*(filled[filled["arm"] == arm][name].to_numpy() for name in ("revenue", "before"))))
    assert sum(sums.units.values()) == len(data)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("revenue", "oops", r"column revenue, row 4: 'oops' is no number"),
        ("revenue", "inf", r"column revenue, row 4: 'inf' is not finite"),
        ("arm", "", r"column arm, row 4: an empty cell names no arm"),
        ("user", "", r"column user, row 4: an empty cell names no unit"),
        ("done", "maybe", r"column done, row 4: 'maybe' is neither true nor false"),
    ],
)
def test_a_bad_cell_is_named_by_column_and_row(tmp_path, column, value, said):
    data = rows().astype(object)
    data.loc[3, column] = value
    with pytest.raises(BadDefinition, match=said):
        read_sums(written(tmp_path, data, "csv"), TrialColumns("arm", [REVENUE], "user", "done"))


def test_truth_counts_as_zero_and_one(tmp_path):
    data = rows().drop_duplicates("user")
    for suffix in ("csv", "parquet"):
        sums = read_sums(written(tmp_path, data, suffix), TrialColumns("arm", [Measure("done")]))
        means = data.groupby("arm")["done"].mean()
        assert {arm: kept.centres[0] for arm, kept in sums.cells[0].arms.items()} == pytest.approx(means.to_dict())


def test_a_unit_in_two_arms_is_refused(tmp_path):
    data = rows()
    data.loc[0, "arm"] = "c"
    with pytest.raises(BadDefinition, match=r"1 units are in more than one arm, 'u\d+' for one"):
        read_sums(written(tmp_path, data, "csv"), TrialColumns("arm", [REVENUE], "user"))


def test_columns_that_are_not_there_are_named_with_those_that_are(tmp_path):
    path = written(tmp_path, rows(), "csv")
    with pytest.raises(BadDefinition, match=r"no column variant, income.*It has user, arm, revenue"):
        read_sums(path, TrialColumns("variant", [Measure("income")]))
    with pytest.raises(UnreadableFile, match="there is no such file"):
        read_sums(tmp_path / "none.csv", TrialColumns("arm", [REVENUE]))


def test_a_column_of_many_values_is_no_slice(tmp_path):
    data = rows(units=10_000)
    assert data["user"].nunique() > MAX_SLICES
    with pytest.raises(BadDefinition, match="group the values"):
        read_sums(written(tmp_path, data, "csv"), TrialColumns("arm", [REVENUE], slices=["user"]))
