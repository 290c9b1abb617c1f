"""What is a year of flights worth, and how fast is it replayed?

Frozen against stateless and stateful, on the demo's loop, in one run; needs the extra `demo`:

    python benchmarks/replay.py [--plot FILE.png]
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from leaven.settings import calm_threads

calm_threads()

from leaven.controller.replay import PLANS, replay, variant  # noqa: E402
from leaven.demo.flights import write_flights  # noqa: E402
from leaven.demo.story import YEAR  # noqa: E402
from leaven.loopfile import load_loop  # noqa: E402
from leaven.storage.history_file import read_history  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--plot", type=Path, help="draw the weeks into this .png or .svg")
    plot = arguments.parse_args().plot
    loop = load_loop(Path(__file__).parent.parent / "src" / "leaven" / "demo" / YEAR.loop_file)
    with TemporaryDirectory() as place:
        flights = Path(place) / "flights.parquet"
        write_flights(flights)
        history = read_history(flights, loop, time="event_time", label_time="label_time")
    print(f"{len(history):,} flights; first model {YEAR.first_model:%d %B}; mean over weeks of the served answers")
    print("plan           AUC  log loss refreshes promoted   CPU s       rows      s  rows/s")
    runs = []
    for plan in PLANS:
        run = replay(variant(loop, plan), history, name=plan, start=YEAR.first_model, window=timedelta(days=7))
        runs.append(run)
        mean = run.mean_window_metrics
        print(
            f"{plan:<10} {mean['roc_auc']:7.4f} {mean['log_loss']:9.4f} {run.refreshes:9d} {run.promoted:8d} "
            f"{run.train_cpu_s:7.1f} {run.train_rows:10,d} {run.seconds:6.1f} {run.rows / run.seconds:7,.0f}"
        )
    for run in runs[1:]:
        pairs = list(zip(runs[0].windows, run.windows, strict=True))
        better = sum(ours.metrics["roc_auc"] > frozen.metrics["roc_auc"] for frozen, ours in pairs)
        print(f"{run.plan} has the higher AUC in {better} of {len(pairs)} weeks")
    if plot is not None:
        from leaven.cli.plotting import plot_runs

        plot_runs(runs, metric="roc_auc", path=plot, title="flights of 2013")


if __name__ == "__main__":
    main()
