"""What does `leaven demo` show?

A model of real flights goes stale; a scheduled refresh is proven through shadow and canary and promoted; a later
refresh is refused because fresh is worse that week; a broken version is rolled back by its canary. All of it through
the real gateway, log and controller.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from leaven.controller.replay import ReplayRun, replay, variant
from leaven.demo.broken import register_broken
from leaven.demo.flights import SLICE, write_flights
from leaven.demo.live import LiveFlights, fresh_home
from leaven.duration import instant
from leaven.loop import Loop
from leaven.loopfile import load_loop
from leaven.registry.decisions import Decision
from leaven.settings import settings_from
from leaven.stats.metrics import roc_auc
from leaven.storage.history_file import History, read_history

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Script:
    """Which flights, when the first model is trained, when the live part begins, and how long it may last."""

    loop_file: str
    first_model: datetime
    live: datetime
    refusal_by: datetime  # the live part goes on at least until this tick
    end: datetime


YEAR = Script(
    "flights_loop.py",
    first_model=datetime(2013, 3, 1, tzinfo=UTC),
    live=datetime(2013, 10, 3, tzinfo=UTC),
    refusal_by=datetime(2013, 10, 10, tzinfo=UTC),
    end=datetime(2013, 10, 16, tzinfo=UTC),
)
QUICK = Script(
    "quick_loop.py",
    first_model=datetime(2013, 5, 16, tzinfo=UTC),
    live=datetime(2013, 7, 11, tzinfo=UTC),
    refusal_by=datetime(2013, 7, 11, tzinfo=UTC),
    end=datetime(2013, 7, 16, tzinfo=UTC),
)


def tell_story(home: Path, *, quick: bool, out: Console, bar: Progress) -> dict[str, Any]:
    """Run the demo in `home` and return what it found, for `--json`."""
    began = time.monotonic()
    script = QUICK if quick else YEAR
    fresh_home(home)
    flights, loop_file = home / "flights.parquet", home / "flights.py"
    shutil.copy(_HERE / script.loop_file, loop_file)
    live = LiveFlights(settings_from({}, home=home), loop_file, flights, tell=lambda decision: _tell(decision, out))
    try:
        live.start(script.first_model)  # its processes load their libraries while the past is prepared and replayed
        told = _tell_with(live, script, quick=quick, out=out, bar=bar)
    finally:
        live.stop()
    return told | {
        "seconds": time.monotonic() - began, "home": str(home), "loop_file": str(loop_file), "flights": str(flights)
    }  # fmt: skip


def _tell_with(live: LiveFlights, script: Script, *, quick: bool, out: Console, bar: Progress) -> dict[str, Any]:
    if quick:
        shutil.copy(SLICE, live.flights)
    else:
        write_flights(live.flights)
    loop = load_loop(live.loop_file)
    history = read_history(live.flights, loop, time="event_time", label_time="label_time")
    out.print(f"[bold]1. The past.[/bold] {len(history):,} real flights of 2013; the first model knows those before "
              f"{script.first_model:%d %B}.")  # fmt: skip
    # The first model is trained behind the scenes, through the real steps, while the past is replayed.
    live.import_between(loop, instant(int(history.at[0].astype(np.int64))), script.first_model)
    live.app.enter(live.loop_file)
    runs = _replay_both(loop, history, script, bar)
    for run in runs:
        out.print(
            f"   {run.plan:<10} mean weekly AUC {run.mean_window_metrics['roc_auc']:.3f}  ({run.refreshes} refreshes, "
            f"{run.promoted} promoted, {run.rejected} rejected; {run.seconds:.0f} s, {run.rows / run.seconds:,.0f} "
            "flights/s)"
        )
    return {"runs": runs, "live": _live(live, script, history, out)}


def _replay_both(loop: Loop, history: History, script: Script, bar: Progress) -> list[ReplayRun]:
    runs = []
    for name, chosen in (("frozen", variant(loop, "frozen")), ("leaven", loop)):
        task = bar.add_task(f"   replaying {name}", total=1.0)

        def told(share: float, now: datetime, task: Any = task, name: str = name) -> None:
            bar.update(task, completed=share, description=f"   replaying {name} {now:%d %b}")

        runs.append(replay(chosen, history, name=name, start=script.first_model, progress=told))
        bar.remove_task(task)
    return runs


def _live(live: LiveFlights, script: Script, history: History, out: Console) -> dict[str, Any]:
    out.print(
        "\n[bold]2. Live.[/bold] The same loop behind real servers; flights come over HTTP, delays when they land."
    )
    loop = load_loop(live.loop_file)
    live.settle(loop, script.first_model)
    live.import_between(loop, script.first_model, script.live)
    out.print(
        f"   gateway at {live.system.url}; now it is {script.live:%d %B}, and the model of {script.first_model:%d %B} "
        "still serves"
    )
    live.pass_to(loop, script.live)
    live.begin_sending(loop, history)
    return _stream(live, loop, script, history, out)


def _stream(live: LiveFlights, loop: Loop, script: Script, history: History, out: Console) -> dict[str, Any]:
    assert live.sender is not None
    now, stale, broken, rolled_back = script.live, live.champion(loop), None, None
    began = time.monotonic()
    while now < script.end and rolled_back is None:
        now += loop.tick_length
        live.pass_to(loop, now)
        proven = live.champion(loop) != stale
        if broken is None and proven and now > script.refusal_by:
            broken = _break_something(live, loop, now, out)
        if broken is not None:
            rolled_back = next((d for d in live.seen if d.outcome == "roll_back" and d.version == broken), None)
    sent, seconds = live.sender.sent, time.monotonic() - began
    if rolled_back is not None:
        live.pass_to(loop, now + loop.tick_length)  # to see that nobody gets the broken version any more
    after = [a for a in sent.answers.values() if rolled_back and a[1] == str(broken) and a[3] > live.settled_at]
    out.print(
        f"   {sent.predictions:,} predictions and {sent.feedback:,} outcomes over HTTP in {seconds:.0f} s, every "
        f"answer with status 200; after the rollback was in force {len(after)} came from the broken version"
    )
    return {
        "predictions": sent.predictions, "feedback": sent.feedback, "seconds": seconds,
        "broken_version": broken, "rolled_back": rolled_back is not None, "broken_after_rollback": len(after),
        "decisions": live.seen, "auc_by_version": _auc_by_version(live, history),
    }  # fmt: skip


def _break_something(live: LiveFlights, loop: Loop, now: datetime, out: Console) -> int:
    from leaven.controller.people import prove

    champion = live.champion(loop)
    assert champion is not None
    broken = register_broken(live.app, loop, like=champion)
    out.print(f"{now:   %d %b %H:%M}  [red]somebody pushes version {broken} straight to the canary[/red]: "
              "its training code turned the label round")  # fmt: skip
    prove(live.app.parts(), loop, broken, start_with="canary", by="person:demo", now=now)
    live.settle(loop, now)
    return broken


def _auc_by_version(live: LiveFlights, history: History) -> dict[str, dict[str, float]]:
    """How the answers of each version did on the delays that really came."""
    assert live.sender is not None
    answers = live.sender.sent.answers.items()
    told = [(version, answer, history.outcome[row]) for row, (answer, version, _, _) in answers]
    told = [each for each in told if not np.isnan(each[2])]
    found = {}
    for version in sorted({version for version, _, _ in told}, key=int):
        mine = [(answer, float(delay > 15)) for each, answer, delay in told if each == version]
        answer, label = np.array(mine).T
        found[version] = {"flights": len(mine), "roc_auc": roc_auc(label, answer).estimate}
    return found


_WORDS: dict[tuple[str, str], str] = {
    ("trigger", "refresh"): "refresh due",
    ("gate", "pass"): "[green]gates passed[/green]",
    ("gate", "fail"): "[red]refused at the gate[/red]",
    ("gate", "undecided"): "[yellow]held at the gate: not enough evidence[/yellow]",
    ("trial", "begin"): "trial begins",
    ("trial", "advance"): "[green]stage passed[/green]",
    ("trial", "promote"): "[bold green]promoted[/bold green]",
    ("trial", "stop"): "[red]stopped in the trial[/red]",
    ("trial", "roll_back"): "[bold red]rolled back by the canary[/bold red]",
    ("promote", "promote"): "[green]first version promoted[/green]",
}


def _tell(decision: Decision, out: Console) -> None:
    what = _WORDS.get((decision.kind, decision.outcome), f"{decision.kind}: {decision.outcome}")
    version = "" if decision.version is None else f" (version {decision.version})"
    why = decision.why.splitlines()[-1]
    out.print(f"   {instant(decision.at):%d %b %H:%M}  {what}{version}: {why}", soft_wrap=True)
