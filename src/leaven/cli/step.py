"""`leaven step`: run one step of a refresh, for an orchestrator of yours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from leaven.cli.output import Home, messages
from leaven.cli.people import app_at
from leaven.controller import state
from leaven.controller.steps import STEP_NAMES, run_step
from leaven.duration import micros
from leaven.errors import BadDefinition
from leaven.storage.control.leases import Lease, fenced
from leaven.triggers import Cause

app = typer.Typer()

EXIT = {"done": 0, "refused": 10, "again": 75, "nothing": 99}
LEASE_SECONDS = 60.0


@app.command()
def step(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STEP_NAMES)}.")],
    given: Annotated[Path, typer.Option("--in", help='JSON of the step before; for the first: {"loop": NAME}.')],
    out: Annotated[Path, typer.Option("--out", help="Where the JSON for the next step is written.")],
    home: Home = None,
) -> None:
    """Run one step of a refresh: reads JSON, writes JSON, and may be run again without doing anything twice.

    Exit codes: 0 done, 10 refused (a gate or a trial said no), 75 try again later (the trial is open), 99 nothing to
    do. No controller may run beside it: the steps take the controller's own lease.
    """
    if name not in STEP_NAMES:
        raise BadDefinition(f"step {name}", "there is no such step", f"Use one of {', '.join(STEP_NAMES)}.")
    installed = app_at(home)
    payload = _payload(given)
    installed.loop(payload["loop"]).need_model(f"step {name}")
    lease = Lease(installed.database, "controller", f"step-{payload['loop']}-{given}", seconds=LEASE_SECONDS)
    if not lease.acquire():
        messages().print("a controller leads this installation; stop it, or pause the loop and let it do the steps")
        raise typer.Exit(EXIT["again"])
    try:
        parts = installed.parts(lambda connection: fenced(connection, "controller", lease.token))
        now = installed.clock.now()
        if "refresh" not in payload:
            payload = _opened(installed, payload, now=micros(installed.watermark()))
        result = run_step(name, parts, payload, now=now)
        _note(installed, name, result.code, result.payload, now=micros(now))
    finally:
        lease.release()
    temporary = out.with_name(out.name + ".writing")
    temporary.write_bytes(msgspec.json.encode(result.payload, order="deterministic"))
    temporary.replace(out)
    sys.stderr.write(f"{name}: {result.code}{': ' + result.payload['why'] if 'why' in result.payload else ''}\n")
    raise typer.Exit(EXIT[result.code])


def _payload(path: Path) -> dict[str, Any]:
    try:
        payload = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise BadDefinition(str(path), f"it holds no JSON ({error})", 'Give {"loop": "NAME"} to begin.') from error
    if not isinstance(payload, dict) or not isinstance(payload.get("loop"), str):
        raise BadDefinition(str(path), "it names no loop", 'Give {"loop": "NAME"} to begin.')
    return payload


def _opened(installed: Any, payload: dict[str, Any], *, now: int) -> dict[str, Any]:
    """Begin a refresh: the first step of an orchestrator's run; an open one that is at no step yet is taken up."""
    loop = installed.loop(payload["loop"]).name
    cause = Cause("step", str(payload.get("why", "started by an orchestrator")))
    with installed.database.write() as connection:
        active = state.active_refresh(connection, loop)
        if active is None or active.step not in ("", "snapshot") or active.cause.trigger != "step":
            active = state.open_refresh(connection, loop, cause, as_of=payload.get("as_of", now), now=now)
    return payload | {"refresh": active.id, "as_of": active.as_of, "cause": msgspec.to_builtins(cause)}


_ENDS: dict[str, state.RefreshState] = {"refused": "refused", "nothing": "nothing"}


def _note(installed: Any, name: str, code: str, payload: dict[str, Any], *, now: int) -> None:
    """Keep where the refresh stands, as the controller would."""
    stands: state.RefreshState = "proving" if code == "again" else _ENDS.get(code, "running")
    if name == "promote" and code == "done":
        stands = "promoted"
    with installed.database.write() as connection:
        current = state.refresh(connection, payload["refresh"])
        if current.state in state.ACTIVE:
            changed = msgspec.structs.replace(current, step=name, payload=payload, state=stands)
            state.save_refresh(connection, changed, now=now)
