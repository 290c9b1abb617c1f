"""How many fewer units does a shadow need than an A/B test, to show that a fresher model is better?

    python -m benchmarks.paired_shadow [--orders 100]

On the demo's flights (extra `demo`), whose arrival does not depend on what was predicted. Eight times, two models of
the demo's loop are made: an older one from eight weeks, a fresher one from the eight weeks after these. Both answer for
the four weeks that follow; a unit is an aeroplane, its loss the mean over its flights. Then:

- the shadow: aeroplanes are drawn with replacement, and the stage itself, `Shadow("1d", decides=True)` with its
  defaults, looks whenever there are 5 % more of them. Units until it promotes, in half and in 80 % of the orders;
- the A/B test, from the same losses: units of both arms that find this difference with 80 % power, at the same error
  (5 % to promote what is no better): at one look at the end, and group-sequential (14 looks, its mean with its plan).

Checks in the same run: the two models exchanged at random, aeroplane by aeroplane, are no different: how often is one
promoted. And the older one as the challenger: never promoted, and stopped after so many units.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from leaven.settings import calm_threads

calm_threads()

from leaven.controller.history import HistoryLog  # noqa: E402
from leaven.demo.flights import write_flights  # noqa: E402
from leaven.demo.story import YEAR  # noqa: E402
from leaven.events.columns import Examples  # noqa: E402
from leaven.events.source import Marks, Span  # noqa: E402
from leaven.experiments import Shadow  # noqa: E402
from leaven.experiments.side_by_side import ShadowEvidence  # noqa: E402
from leaven.learners.artifact import ModelArtifact, ServedModel, load_artifact  # noqa: E402
from leaven.learners.process import train_here  # noqa: E402
from leaven.loop import Loop  # noqa: E402
from leaven.loopfile import load_loop  # noqa: E402
from leaven.stats.boundaries import boundaries  # noqa: E402
from leaven.stats.metrics import METRICS  # noqa: E402
from leaven.stats.moments import Moments, unit_means  # noqa: E402
from leaven.stats.size import Plan, units_for_means  # noqa: E402
from leaven.storage.history_file import History, read_history  # noqa: E402
from leaven.training.encoding import encoder_for  # noqa: E402
from leaven.training.learner import TrainingSet  # noqa: E402

STAGE = Shadow("1d", decides=True)
MONTHS = range(5, 13)  # whose first day is that of the four weeks; sixteen weeks of training come before
EIGHT_WEEKS, FOUR_WEEKS = timedelta(days=56), timedelta(days=28)
LOOKS = np.unique((STAGE.min_units * 1.05 ** np.arange(140)).astype(int))  # up to 80,000 units
ERROR, POWER = 0.05, 0.8


def main() -> None:
    """Print one row per month, and the checks."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--orders", type=int, default=100)
    orders = options.parse_args().orders
    rng = np.random.default_rng(0)
    planned, mean = group_sequential(rng)
    print("           loss per unit     shadow, units   A/B, units of both arms        A/B over shadow")
    print("month     older  fresher     half     80 %    one look  sequential (plan)   80 %   means")
    ratios, promoted_worse, stopped, exchanged = [], [], [], []
    for month, older, fresher in losses():
        worth = older.mean() - fresher.mean()
        found = np.array([promoted_at(older, fresher, rng) for _ in range(orders)])
        exchanged += [np.isfinite(promoted_at(older, fresher, rng, exchange=True)) for _ in range(orders)]
        told = f"{month:%Y-%m} {older.mean():8.4f} {fresher.mean():8.4f}"
        if worth <= 0:
            print(f"{told}   the fresher one is no better: promoted in {np.isfinite(found).mean():.1%} of the orders")
            continue
        worse = [ended(fresher, older, rng) for _ in range(orders)]
        promoted_worse += [outcome == "promote" for outcome, _ in worse]
        stopped.append(np.median([units for _, units in worse]))
        sd = np.sqrt((older.var(ddof=1) + fresher.var(ddof=1)) / 2)
        fixed = 2 * units_for_means(sd, Plan(worth, alpha=2 * ERROR, power=POWER))
        half, most = np.quantile(found, [0.5, POWER], method="inverted_cdf")
        ratios.append((fixed / most, mean * fixed / found.mean()))
        print(f"{told} {half:8,.0f} {most:8,.0f} {fixed:11,.0f} {mean * fixed:10,.0f} ({planned * fixed:,.0f}) "
              f"{ratios[-1][0]:8.1f} {ratios[-1][1]:7.1f}", flush=True)  # fmt: skip
    print(f"A/B over shadow, geometric means: {np.exp(np.log(ratios).mean(axis=0)).round(1).tolist()}")
    print(f"exchanged at random: {np.mean(exchanged):.2%} promoted of {len(exchanged)} (at most {ERROR:.0%})")
    print(f"older as the challenger: {np.mean(promoted_worse):.2%} promoted of {len(promoted_worse)}, ended at "
          f"{np.median(stopped):,.0f} units (median)")  # fmt: skip


def promoted_at(
    champion: np.ndarray, challenger: np.ndarray, rng: np.random.Generator, *, exchange: bool = False
) -> float:
    """Units at which the stage promotes; infinite where it does not."""
    outcome, units = ended(champion, challenger, rng, exchange=exchange)
    return units if outcome == "promote" else np.inf


def ended(
    champion: np.ndarray, challenger: np.ndarray, rng: np.random.Generator, *, exchange: bool = False
) -> tuple[str, int]:
    """What the stage says first about units in a random order, and after how many."""
    looks = LOOKS[LOOKS <= 5_000] if exchange else LOOKS
    drawn = rng.integers(0, len(champion), looks[-1])
    theirs, ours = champion[drawn], challenger[drawn]
    if exchange:
        swapped = rng.random(len(drawn)) < 0.5
        theirs, ours = np.where(swapped, ours, theirs), np.where(swapped, theirs, ours)
    step = STAGE.steps()[0]
    for seen in zip(looks.tolist(), *(growing(each, looks) for each in (theirs, ours, ours - theirs)), strict=True):
        units, champion_loss, challenger_loss, difference = seen
        evidence = ShadowEvidence(
            pairs=units, units=units, champion_loss=champion_loss, challenger_loss=challenger_loss,
            loss_difference=difference,
        )  # fmt: skip
        verdict = STAGE.judge(step, evidence, elapsed=timedelta(hours=1), look=1, metric="log_loss")
        if verdict.outcome != "hold":
            return verdict.outcome, units
    return "hold", int(looks[-1])


def growing(values: np.ndarray, looks: np.ndarray) -> list[Moments]:
    """The moments of the first so many values, for each look."""
    centre = values.mean()  # squares of what is near zero keep their digits
    sums, squares = np.cumsum(values - centre)[looks - 1], np.cumsum((values - centre) ** 2)[looks - 1]
    spread = np.maximum(0.0, squares - sums**2 / looks)
    columns = (looks, centre + sums / looks, spread)
    return [Moments(*each) for each in zip(*(column.tolist() for column in columns), strict=True)]


def group_sequential(rng: np.random.Generator) -> tuple[float, float]:
    """Plan and mean size of a group-sequential test with 14 looks, over the size of one with a single look."""
    at = np.arange(1, 15) / 14
    bound = np.array(boundaries(tuple(at.tolist()), alpha=2 * ERROR))
    steps = rng.normal(0, np.sqrt(1 / 14), (40_000, 14)).cumsum(axis=1)
    drift = 1.6448536 + 0.8416212  # of one look at the end
    for inflation in np.arange(1.0, 1.3, 0.005):
        crossed = (steps + np.sqrt(inflation) * drift * at) / np.sqrt(at) >= bound
        if crossed.any(axis=1).mean() >= POWER:
            break
    first = np.where(crossed.any(axis=1), crossed.argmax(axis=1), 13)
    return float(inflation), float(inflation * at[first].mean())


def losses() -> Iterator[tuple[datetime, np.ndarray, np.ndarray]]:
    """For each month the losses of the older and of the fresher model, per aeroplane."""
    loop = load_loop(Path(__file__).parent.parent / "src" / "leaven" / "demo" / YEAR.loop_file)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "flights.parquet"
        write_flights(path)
        history = read_history(path, loop, time="event_time", label_time="label_time")
    loss = METRICS["log_loss"].row_loss
    assert loss is not None
    for month in MONTHS:
        begin = datetime(2013, month, 1, tzinfo=UTC)
        rows = between(loop, history, begin, begin + FOUR_WEEKS)
        ends = (begin - EIGHT_WEEKS, begin)
        models = [model_of(loop, between(loop, history, end - EIGHT_WEEKS, end)) for end in ends]
        answers = [model.answer(rows.predictions.features) for model in models]
        unit = rows.predictions.unit
        older, fresher = (unit_means(unit, loss(rows.labels.value, each)) for each in answers)
        yield begin, older, fresher


def between(loop: Loop, history: History, start: datetime, end: datetime) -> Examples:
    """The flights of a stretch of time, with their final labels."""
    everything = Marks(len(history), len(history))
    return HistoryLog(history).examples(Span(start, end), loop.label, as_of=end + loop.label.window,
                                        marks=everything).mature()  # fmt: skip


def model_of(loop: Loop, examples: Examples) -> ServedModel:
    """The loop's model of these examples."""
    columns = examples.predictions.features
    encoder = encoder_for(loop.schema, columns)
    data = TrainingSet(encoder.encode(columns), examples.labels.value, encoder, loop.schema)
    outcome = train_here(loop.learner, data, mode="fit", seed=loop.seed)
    made = ModelArtifact(outcome.format, encoder, repr(loop.learner), outcome.files, outcome.libraries)
    return load_artifact(made.to_files())


if __name__ == "__main__":
    main()
