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


SPENT = Measure("revenue")


def parquet_rows(**changed) -> pd.DataFrame:
    return rows().drop_duplicates("user").reset_index(drop=True).assign(**changed)


def kept_of(tmp_path, data, measure, **options):
    sums = read_sums(written(tmp_path, data, "parquet"), TrialColumns("arm", [measure], **options))
    return sums.cells[0].arms


@pytest.mark.parametrize("measure", [SPENT, REVENUE, CLICKS, Measure("clicks", "views", covariate=("before", "views"))])
@pytest.mark.parametrize("gaps", [0, 9])
def test_one_pass_says_what_a_data_frame_says_whatever_is_missing(tmp_path, measure, gaps):
    """Oracle: pandas, with numbers near zero, far from it (revenue) and missing in each column."""
    data = parquet_rows()
    rng = np.random.default_rng(1)
    for column in ("revenue", "before", "views", "clicks"):
        data.loc[rng.choice(len(data), gaps, replace=False), column] = np.nan
    known = data.dropna(subset=list(measure.columns))
    pair = data.dropna(subset=list(measure.covariate)) if measure.covariate else data
    filled = known[list(measure.covariate)].where(known[list(measure.covariate)].notna().all(axis=1), np.nan)
    filled = filled.fillna(pair[list(measure.covariate)].mean())
    for arm, kept in kept_of(tmp_path, data, measure).items():
        mine = known["arm"] == arm
        columns = [known[mine][name] for name in measure.columns] + [filled[mine][name] for name in measure.covariate]
        same(kept, comoments(*(column.to_numpy() for column in columns)))


def test_a_column_that_never_changes_has_no_variance(tmp_path):
    for value in (1.0, 0.1, 1e9 + 0.1):
        for kept in kept_of(tmp_path, parquet_rows(revenue=value), SPENT).values():
            assert kept.centres == pytest.approx((value,), rel=1e-15)
            assert kept.products[0] == pytest.approx(0.0, abs=1e-12 * value)


def test_an_infinite_number_of_a_parquet_file_is_refused_and_a_nan_is_none(tmp_path):
    data = parquet_rows()
    data.loc[7, "revenue"] = np.inf
    with pytest.raises(BadDefinition, match=r"column revenue, row 8: 'inf' is not finite"):
        kept_of(tmp_path, data, SPENT)
    data.loc[7, "revenue"] = np.nan
    assert sum(kept.count for kept in kept_of(tmp_path, data, SPENT).values()) == len(data) - 1


def test_a_row_without_an_arm_is_refused_whatever_is_asked(tmp_path):
    data = parquet_rows()
    data.loc[2, "arm"] = None
    for measure in (SPENT, Measure("revenue", quantile=0.5)):
        with pytest.raises(BadDefinition, match="column arm, row 3: an empty cell names no arm"):
            kept_of(tmp_path, data, measure)


def test_only_mature_rows_are_compared_and_all_are_counted(tmp_path):
    data = parquet_rows()
    path = written(tmp_path, data, "parquet")
    sums = read_sums(path, TrialColumns("arm", [SPENT], mature="done", slices=["country"]))
    assert sums.units == data["arm"].value_counts().sort_index().to_dict()
    done = data[data["done"]]
    assert sums.mature == done["arm"].value_counts().sort_index().to_dict()
    for cell in sums.cells:
        some = done if cell.slice is None else done[done["country"] == cell.slice.removeprefix("country=")]
        for arm, kept in cell.arms.items():
            same(kept, comoments(some[some["arm"] == arm]["revenue"].to_numpy()))


@pytest.mark.parametrize("unit", [None, "user"])
def test_totals_by_cluster_are_those_of_a_data_frame(tmp_path, unit):
    data = (rows() if unit else parquet_rows()).assign(village=lambda d: d["user"].str[-1])
    measures = [SPENT, CLICKS, REVENUE]
    columns = TrialColumns("arm", measures, unit, slices=["country"], cluster="village")
    sums = read_sums(written(tmp_path, data, "parquet"), columns)
    if unit:
        data = data.groupby("user").agg(arm=("arm", "first"), village=("village", "first"),
                                        country=("country", "first"), revenue=("revenue", "mean"),
                                        before=("before", "mean"), clicks=("clicks", "sum"),
                                        views=("views", "sum")).reset_index()  # fmt: skip
    names = {"revenue": ["revenue", "one"], "clicks/views": ["clicks", "views"]}
    assert len(sums.cells) == 9
    for measure, cell in zip([m for m in measures for _ in range(3)], sums.cells, strict=True):
        some = data.assign(one=1.0)
        some = some if cell.slice is None else some[some["country"] == cell.slice.removeprefix("country=")]
        wanted = names[measure.name] + (["before", "one"] if measure.covariate else [])
        totals = {arm: part.groupby("village")[sorted(set(wanted))].sum() for arm, part in some.groupby("arm")}
        for arm, kept in cell.arms.items():
            same(kept, comoments(*(totals[arm][name].to_numpy() for name in wanted)))
        both = totals["a"].index.intersection(totals["b"].index)
        same(cell.both("b", "a"), comoments(*(totals[arm].loc[both, name].to_numpy()
                                              for arm in ("b", "a") for name in wanted)))  # fmt: skip


def test_a_unit_in_two_clusters_and_a_quantile_over_clusters_are_refused(tmp_path):
    data = rows().assign(village="v")
    data.loc[0, "village"] = "w"
    with pytest.raises(BadDefinition, match="1 units are in more than one cluster"):
        kept_of(tmp_path, data, SPENT, unit="user", cluster="village")
    with pytest.raises(BadDefinition, match="a quantile over clusters"):
        kept_of(tmp_path, data, Measure("revenue", quantile=0.9), cluster="village")
