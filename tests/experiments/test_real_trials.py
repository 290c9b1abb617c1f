"""Real experiments, judged again: what was published of them comes out."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from leaven.cli import main
from leaven.stats.boundaries import boundaries
from leaven.stats.comparison import Fixed, compare
from leaven.stats.estimate import Estimate
from leaven.stats.group_sequential import looks_until
from leaven.stats.split import split_p_value


@pytest.fixture(scope="module")
def asos(shared_data) -> pd.DataFrame:
    """78 experiments of a shop with daily checkpoints (Liu et al., NeurIPS 2021), without rows that lack a variance."""
    path = shared_data / "asos_experiments" / "experiments.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return pd.read_parquet(path)


SERIES = ["experiment_id", "variant_id", "metric_id"]


def z_of(row) -> float:
    control = Estimate(row.mean_c, row.variance_c / row.count_c, int(row.count_c))
    arm = Estimate(row.mean_t, row.variance_t / row.count_t, int(row.count_t))
    return compare(control, arm, Fixed()).statistic


def test_reading_real_experiments_daily_doubles_what_is_found_and_planned_looks_do_not(asos):
    """Published with the data: of 381 series 27.6 % have p < .05 at the last checkpoint, 59.1 % at some checkpoint."""
    data = asos[(asos["count_c"] > 0) & (asos["count_t"] > 0)].dropna(subset=["variance_c", "variance_t"])
    data = data.sort_values([*SERIES, "time_since_start"])
    data = data.assign(units=data["count_c"] + data["count_t"], z=[z_of(row) for row in data.itertuples()])
    last, some, planned = [], [], []
    for _, rows in data[np.isfinite(data["z"])].groupby(SERIES):
        z, fractions = rows["z"].to_numpy(), (rows["units"] / rows["units"].iloc[-1]).to_numpy().clip(max=1.0)
        looks = looked_at(fractions)
        last.append(abs(z[-1]) > 1.959964)
        some.append((np.abs(z) > 1.959964).any())
        planned.append((np.abs(z[looks]) >= boundaries(fractions[looks], alpha=0.05)).any())
    assert len(last) == 381
    assert (np.mean(last), np.mean(some)) == pytest.approx((0.276, 0.591), abs=5e-4)
    assert np.mean(planned) == pytest.approx(0.339, abs=5e-4)  # ours, 20 looks or so


def looked_at(fractions) -> list[int]:
    """Checkpoints that bring 4 % of the units or more, and the last."""
    looks: list[int] = []
    for index, fraction in enumerate(fractions):
        before = fractions[looks[-1]] if looks else 0.0
        if fraction > before + 0.04 or (index == len(fractions) - 1 and fraction > before):
            looks.append(index)
    return looks


def test_a_look_at_a_real_series_has_the_boundary_of_its_fraction(asos):
    rows = asos.dropna(subset=["variance_c"]).groupby(SERIES).last()
    units = (rows["count_c"] + rows["count_t"]).astype(int)
    assert all(looks_until(int(n), int(2 * n))[-1] == pytest.approx(0.5) for n in units[:20])


def test_twelve_of_99_real_comparisons_are_not_split_evenly(asos):
    """As the data's sheet says: p < .001 against 50 : 50, by design or by mistake."""
    last = asos.sort_values("time_since_start").groupby(["experiment_id", "variant_id"]).last()
    p_values = [split_p_value([row.count_c, row.count_t], [1, 1]) for row in last.itertuples()]
    assert len(p_values) == 99
    assert sum(p < 0.001 for p in p_values) == 12


def test_a_field_experiment_has_its_published_effect(shared_data, tmp_path, capsys):
    """Thornton (2008): 33.9 % without an incentive, 78.9 % with one, +45.1 points on the complete rows."""
    path = shared_data / "thornton_incentives" / "thornton.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    data = pd.read_parquet(path).dropna(subset=["got", "any"])
    ours = tmp_path / "thornton.csv"
    data.astype({"any": int}).to_csv(ours, index=False)
    with pytest.raises(SystemExit):
        main(["trial", "analyze", str(ours), "--arm", "any", "--control", "0", "--metric", "got", "--covariate",
              "got=distvct", "--shares", "0=623,1=2211", "--json"])  # fmt: skip
    answer = json.loads(capsys.readouterr().out)
    (row,) = answer["results"]
    assert sum(answer["arms"].values()) == 2_834
    assert row["difference"] == pytest.approx(0.451, abs=0.003)
    assert (row["control_mean"], row["arm_mean"]) == pytest.approx((0.339, 0.789), abs=0.004)
    assert answer["verdict"]["decision"] == "promote"


def test_a_field_experiment_in_villages_has_clustered_errors(shared_data, tmp_path, capsys):
    """Thornton (2008): +45 points; people of a village are alike. Oracle: statsmodels' errors, clustered by village."""
    api = pytest.importorskip("statsmodels.api")
    path = shared_data / "thornton_incentives" / "thornton.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    data = pd.read_parquet(path).dropna(subset=["got", "any", "villnum"])
    ours = tmp_path / "thornton.csv"
    data.astype({"any": int}).to_csv(ours, index=False)
    with pytest.raises(SystemExit):
        main(["trial", "analyze", str(ours), "--arm", "any", "--control", "0", "--metric", "got", "--cluster",
              "villnum", "--shares", "0=623,1=2211", "--json"])  # fmt: skip
    (row,) = json.loads(capsys.readouterr().out)["results"]
    theirs = api.OLS(data["got"], api.add_constant(data["any"])).fit(
        cov_type="cluster", cov_kwds={"groups": data["villnum"]}
    )
    assert data["villnum"].nunique() == 119  # the file names 124, of people with an outcome and a known village 119
    assert row["difference"] == pytest.approx(theirs.params["any"], rel=1e-9)
    assert row["standard_error"] == pytest.approx(theirs.bse["any"], rel=0.002)
    assert row["estimator"] == "mean, over clusters"
    assert row["n"] == [108, 118]
