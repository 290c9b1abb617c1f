"""`leaven status`: what serves, what is being proven, and what runs where."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at
from leaven.controller import state
from leaven.controller.offering import Offer, offer
from leaven.duration import instant
from leaven.errors import LeavenError
from leaven.experiments.trial import Trial, steps_of
from leaven.loopfile import load_loop
from leaven.registry import aliases, decisions, loops, routing

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.app import App

app = typer.Typer()

GATEWAY_SILENT_SECONDS = 15


@app.command()
def status(
    loop: Annotated[str | None, typer.Argument(help="Name of a loop; all by default.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what serves, what is being proven, and what runs where."""
    installed = app_at(home)
    with installed.database.read() as connection:
        known = [record.name for record in loops.loops(connection)]
        if loop is not None:
            loops.loop(connection, loop)
            known = [loop]
    found = {
        "home": str(installed.settings.home),
        "loops": [_loop(installed, name) for name in known],
        "gateways": _gateways(installed),
    }
    emit(found, as_json=as_json, human=lambda out: _show(found, out))


def _loop(installed: App, name: str) -> dict[str, Any]:
    with installed.database.read() as connection:
        record = loops.loop(connection, name)
        table = routing.latest(connection, name)
        refresh = state.active_refresh(connection, name)
        trial = state.active_trial(connection, name)
        last = state.latest_refreshes(connection, name, limit=1)
        recent = decisions.decisions(connection, name, limit=3)
        named = aliases.aliases(connection, name)
    log, (offered, unread) = installed.source(name), _offer(installed, record)
    return {
        "name": name,
        "paused": record.paused,
        "paused_why": record.paused_why,
        "looked_at": _time(record.looked_at),
        "aliases": named,
        "routes": None if table is None else _routes(table),
        "offer": offered,
        "file_error": unread,
        "refresh": None if refresh is None else _refresh(refresh),
        "trial": None if trial is None else _trial(installed, name, trial),
        "last_refresh": None if not last else _refresh(last[0]),
        "log": {**msgspec.structs.asdict(installed.lake.stats(name)), "readable_until": log.watermark().isoformat()},
        "decisions": [{"at": _time(one.at), "kind": one.kind, "outcome": one.outcome, "version": one.version,
                       "why": one.why, "by": one.by, "id": one.id} for one in recent],
    }  # fmt: skip


def _offer(installed: App, record: loops.LoopRecord) -> tuple[Offer | None, str]:
    """What is to become of a champion that the loop's file, as it is now, no longer fits; or why the file says nothing.

    The file is only read: an edit takes effect with the controller.
    """
    try:
        loop = load_loop(Path(record.path), name=record.name)
        with installed.database.read() as connection:
            return offer(connection, installed.artifacts, loop, now=installed.clock.now()), ""
    except (LeavenError, OSError) as error:
        return None, str(error)


def _routes(table: Any) -> dict[str, Any]:
    return {
        "revision": table.revision,
        "arms": {arm.arm: {"version": arm.version, "share": round(arm.propensity, 6)} for arm in table.arms},
        "shadows": [shadow.version for shadow in table.shadows],
        "standby": [standby.version for standby in table.standby],
    }


def _refresh(refresh: state.Refresh) -> dict[str, Any]:
    return {
        "id": refresh.id, "state": refresh.state, "step": refresh.step, "cause": refresh.cause.why,
        "as_of": _time(refresh.as_of), "why": refresh.error or refresh.payload.get("why"),
    }  # fmt: skip


def _trial(installed: App, loop: str, trial: Trial) -> dict[str, Any]:
    steps = steps_of(installed.loop(loop).rollout)
    stage = repr(steps[trial.step][0]) if trial.step < len(steps) else ""
    return {
        "id": trial.id, "challenger": trial.challenger, "champion": trial.champion, "stage": stage,
        "step": trial.step + 1, "steps": len(steps), "since": _time(trial.since), "looks": trial.looks,
        "watching": trial.watching, "paused_since": _time(trial.paused_at),
    }  # fmt: skip


def _gateways(installed: App) -> list[dict[str, Any]]:
    since = (time.time_ns() - GATEWAY_SILENT_SECONDS * 10**9) // 1000  # gateways report by the machine's clock
    with installed.database.read() as connection:
        known = routing.gateways(connection, since=since)
    return [
        {"id": one.id, "host": one.host, "pid": one.pid, "seen_at": _time(one.seen_at), "revisions": one.revisions}
        for one in known
    ]


def _time(micros: int | None) -> str | None:
    return None if not micros else instant(micros).isoformat(timespec="seconds")


def _show(found: dict[str, Any], out: Console) -> None:
    if not found["loops"]:
        out.print("no loops are registered here; start with: leaven init SAMPLE.csv, then leaven up LOOP.py")
    for loop in found["loops"]:
        _show_loop(loop, out)
    for gateway in found["gateways"]:
        serving = ", ".join(f"{loop} table {revision}" for loop, revision in gateway["revisions"].items())
        out.print(f"gateway {gateway['id']} (pid {gateway['pid']}) runs {serving or 'no table yet'}")
    if not found["gateways"]:
        out.print("no gateway has reported lately")


def _show_loop(loop: dict[str, Any], out: Console) -> None:
    out.print(f"[bold]{loop['name']}[/bold]{' (paused: ' + loop['paused_why'] + ')' if loop['paused'] else ''}")
    routes = loop["routes"]
    if routes is None:
        out.print("  serves      nothing yet: no version was promoted")
    else:
        arms = ", ".join(f"{arm} {kept['version']} ({kept['share']:.1%})" for arm, kept in routes["arms"].items())
        out.print(f"  serves      {arms}; table {routes['revision']}")
    if loop["offer"] is not None:
        out.print(f"  changed     {loop['offer']}", soft_wrap=True)
    if loop["file_error"]:
        out.print(f"  file        cannot be read: {loop['file_error']}", soft_wrap=True)
    for what in ("trial", "refresh", "last_refresh"):
        shown = _line(what, loop[what])
        if shown and not (what == "last_refresh" and loop["refresh"]):
            out.print(f"  {what.replace('_', ' '):<11} {shown}")
    log = loop["log"]
    out.print(
        f"  log         {log['predictions'].rows:,} predictions, {log['feedback'].rows:,} feedback, "
        f"readable until {log['readable_until'][:19]}"
    )
    for one in loop["decisions"]:
        version = "" if one["version"] is None else f" version {one['version']}"
        told = f"{one['kind']}: {one['outcome']}{version}. {_one_line(one['why'])}"
        out.print(f"  {one['at'][:16]}  {told}", soft_wrap=True)


def _line(what: str, kept: dict[str, Any] | None) -> str:
    if kept is None:
        return ""
    if what == "trial":
        role = "watched as champion, before it" if kept["watching"] else "against"
        paused = f", paused since {kept['paused_since']}" if kept["paused_since"] else ""
        return (
            f"version {kept['challenger']} {role} {kept['champion']}, step {kept['step']} of {kept['steps']}: "
            f"{kept['stage']} since {kept['since']}{paused}"
        )
    why = f": {_one_line(kept['why'])}" if kept["why"] else ""
    return f"{kept['id']} is {kept['state']} at step {kept['step'] or 'none'}{why}"


def _one_line(why: str) -> str:
    """Several reasons, which are kept a line each, in one."""
    return why.replace("\n", "; ")
