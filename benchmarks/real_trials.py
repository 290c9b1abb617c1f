"""What do real experiments say when they are judged our way, beside what was published of them?

`python -m benchmarks.real_trials [FOLDER]`, the folder holding `asos_experiments/` and `thornton_incentives/` (and
`open_bandit/`): see `docs/howto/analyse-a-trial.md`. Nothing is drawn: the numbers are the same in every run.
"""

from __future__ import annotations

import gzip
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from leaven.experiments.analysis import analyse
from leaven.experiments.measures import Measure
from leaven.stats.boundaries import boundaries
from leaven.stats.comparison import Fixed, compare
from leaven.stats.confidence_sequence import ConfidenceSequence
from leaven.stats.estimate import mean_estimate
from leaven.stats.moments import moments
from leaven.stats.split import split_evidence, split_p_value
from leaven.storage.trial_file import TrialColumns, read_sums

SERIES = ["experiment_id", "variant_id", "metric_id"]
PLAN = 1_000_000  # units of both arms at which a confidence sequence is tightest, the same for all series
METRICS = {1: "binary", 2: "count", 3: "count", 4: "amount"}


def show(what: str, ours: str, theirs: str = "") -> None:
    print(f"{what:<76} {ours:>16} {theirs:>16}")


def percent(values: object) -> str:
    return f"{100 * float(np.mean(values)):.1f} %"  # type: ignore[arg-type]


def looked_at(fractions: np.ndarray) -> list[int]:
    """Checkpoints that bring 4 % of the units or more, and the last."""
    looks: list[int] = []
    for index, fraction in enumerate(fractions):
        before = fractions[looks[-1]] if looks else 0.0
        if fraction > before + 0.04 or (index == len(fractions) - 1 and fraction > before):
            looks.append(index)
    return looks


def series(data: pd.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """z-values and units of both arms at the checkpoints of each series."""
    usable = data[(data["count_c"] > 0) & (data["count_t"] > 0)].dropna(subset=["variance_c", "variance_t"])
    error = np.sqrt(usable["variance_c"] / usable["count_c"] + usable["variance_t"] / usable["count_t"])
    with np.errstate(divide="ignore", invalid="ignore"):
        usable = usable.assign(z=(usable["mean_t"] - usable["mean_c"]) / error)
    usable = usable[np.isfinite(usable["z"])].sort_values([*SERIES, "time_since_start"])
    for _, rows in usable.groupby(SERIES):
        yield rows["z"].to_numpy(), (rows["count_c"] + rows["count_t"]).to_numpy()


def asos(path: Path) -> None:
    data = pd.read_parquet(path)
    last, some, grouped, always, early = [], [], [], [], []
    for z, units in series(data):
        fractions = (units / units[-1]).clip(max=1.0)
        looks = looked_at(fractions)
        found = np.abs(z[looks]) >= boundaries(fractions[looks].tolist(), alpha=0.05)
        rule = ConfidenceSequence(0.05, PLAN)
        outside = np.abs(z) > [rule.critical(math.inf, int(n)) for n in units]
        last.append(abs(z[-1]) > 1.959964)
        some.append((np.abs(z) > 1.959964).any())
        grouped.append(found.any())
        always.append(outside.any())
        if found.any():
            early.append(fractions[looks][found.argmax()])
    show(f"ASOS, {len(last)} series of 78 experiments", "ours", "published")
    show("  p < .05 at the last checkpoint, fixed", percent(last), "27.6 %")
    show("  p < .05 at some checkpoint, fixed (peeking)", percent(some), "59.1 %")
    show("  group-sequential, looks at every 4 % of the units or more", percent(grouped))
    show("  confidence sequence, at some checkpoint", percent(always))
    peeked, ends = np.array(some) & ~np.array(last), np.array(last)
    show("  of those that peeking finds and the end does not: group-sequential", percent(np.array(grouped)[peeked]))
    show("  of those that peeking finds and the end does not: confidence sequence", percent(np.array(always)[peeked]))
    show("  of those significant at the end: group-sequential finds", percent(np.array(grouped)[ends]))
    show("  of those significant at the end: confidence sequence finds", percent(np.array(always)[ends]))
    show("  group-sequential: units needed, median share of all", percent(np.median(early)))
    splits(data)
    usual_effects(data)


def splits(data: pd.DataFrame) -> None:
    """Against 50 : 50, which the data do not say was planned."""
    pairs = data.sort_values("time_since_start").groupby(["experiment_id", "variant_id", "time_since_start"]).first()
    once, often, running = 0, 0, 0
    for _, rows in pairs.groupby(level=[0, 1]):
        counts = rows[["count_c", "count_t"]].to_numpy()
        p_values = [split_p_value(each, [1, 1]) for each in counts]
        once += p_values[-1] < 0.001
        often += min(p_values) < 0.001
        running += bool((split_evidence(counts, [1, 1]) > 100).any())
    show("  split of 99 comparisons, chi-square p < .001 at the last checkpoint", str(once), "12")
    show("  the same at some checkpoint", str(often))
    show("  sequential, p < .01 at some checkpoint", str(running))


def usual_effects(data: pd.DataFrame) -> None:
    """How large true effects are: the variance of estimates less that of their errors (DerSimonian and Laird)."""
    last = data.dropna(subset=["variance_c", "variance_t"]).sort_values("time_since_start").groupby(SERIES).last()
    last = last[(last["mean_c"] > 0) & (last["count_t"] > 0)].reset_index()
    lift = last["mean_t"] / last["mean_c"] - 1
    variance = last["variance_t"] / last["count_t"] / last["mean_c"] ** 2
    variance += last["variance_c"] / last["count_c"] * last["mean_t"] ** 2 / last["mean_c"] ** 4
    for metric, kind in METRICS.items():
        own, error = lift[last["metric_id"] == metric], variance[last["metric_id"] == metric]
        usual = math.sqrt(max(0.0, ((own**2 / error).sum() - len(own)) / (1 / error).sum()))
        show(f"  standard deviation of true effects, metric {metric} ({kind})", f"{100 * usual:.2f} %")


def thornton(path: Path) -> None:
    show("Thornton (2008): a voucher for collecting a test result", "ours", "published")
    complete = pd.read_parquet(path).dropna(subset=["got", "any"])
    control, arm = (mean_estimate(moments(complete[complete["any"] == a]["got"].to_numpy(float))) for a in (0, 1))
    plain = compare(control, arm, Fixed())
    show("  complete rows", f"{len(complete):,}", "2,834")
    show("  without, with a voucher", f"{100 * control.value:.1f} %, {100 * arm.value:.1f} %", "33.9 %, 78.9 %")
    show("  difference, points", f"{100 * plain.difference:+.1f}", "+45.1")
    show("  95 %, people as if independent", f"[{100 * plain.low:.1f}, {100 * plain.high:.1f}]")
    known = complete.dropna(subset=["villnum"]).astype({"any": int})
    count = known["villnum"].nunique()
    with tempfile.TemporaryDirectory() as scratch:
        villages = Path(scratch) / "thornton.parquet"
        known.to_parquet(villages)
        for name, covariate in (("", ()), (", adjusted by distance", ("distvct",))):
            show(f"  {count} villages as clusters{name}: difference, 95 %", clustered(villages, covariate))


def clustered(path: Path, covariate: tuple[str, ...]) -> str:
    measures = [Measure("got", covariate=covariate)]
    sums = read_sums(path, TrialColumns("any", measures, cluster="villnum"))
    (row,) = analyse(sums, measures, control="0", rule=Fixed(), method="fixed", shares={"0": 623, "1": 2211}).results
    low, high = (100 * (bound or 0.0) for bound in row.ci)
    return f"{100 * (row.difference or 0):+.1f} [{low:.1f}, {high:.1f}]"


def open_bandit(folder: Path) -> None:
    """Two policies logged side by side: a trial of clicks per impression."""
    clicks = {}
    for policy in ("random", "bts"):
        with gzip.open(folder / policy / "men.csv.gz", "rt") as file:
            clicks[policy] = pd.read_csv(file, usecols=["click"])["click"].to_numpy(float)
    control, arm = (mean_estimate(moments(clicks[policy])) for policy in ("random", "bts"))
    found = compare(control, arm, Fixed())
    show("Open Bandit, campaign men: Thompson sampling against random", "ours", "published")
    show("  clicks of 10,000 impressions each", f"{clicks['random'].sum():.0f}, {clicks['bts'].sum():.0f}", "46, 69")
    show("  relative difference, p-value", f"{100 * (found.relative or 0):+.0f} %, {found.p_value:.3f}")
    low, high = (100 * (bound or 0) for bound in (found.relative_low, found.relative_high))
    show("  95 % of the relative difference", f"[{low:+.0f}, {high:+.0f}] %")


if __name__ == "__main__":
    data_sets = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    asos(data_sets / "asos_experiments" / "experiments.parquet")
    thornton(data_sets / "thornton_incentives" / "thornton.parquet")
    open_bandit(data_sets / "open_bandit")
