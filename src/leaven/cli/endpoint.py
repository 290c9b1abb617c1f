"""`leaven endpoint`: let a server that runs elsewhere answer for a version."""

from __future__ import annotations

import asyncio
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from leaven.app import App
from leaven.cli.output import NO, AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.duration import duration
from leaven.errors import BadDefinition

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.endpoints.description import Endpoint
    from leaven.endpoints.probing import Probe
    from leaven.loop import Loop

app = typer.Typer(no_args_is_help=True)

LoopName = Annotated[str, typer.Argument(metavar="LOOP", help="Name of a registered loop.")]
Row = Annotated[
    str | None,
    typer.Option("--row", help="A row to ask about, as JSON by feature. Default: the newest logged, or a made-up one."),
]
_HEADER = re.compile(r"(?P<name>[^=]+)=(?P<before>.*?)(?P<kind>env|file):(?P<place>.+)")


class Protocol(StrEnum):
    """What a server speaks."""

    oip = "oip"
    json = "json"


@app.command()
def add(
    loop: LoopName,
    url: Annotated[str, typer.Option("--url", help="http://host:port, or https://; for json the whole address.")],
    model: Annotated[str | None, typer.Option("--model", help="The model's name there (oip).")] = None,
    model_version: Annotated[str | None, typer.Option("--model-version", help="Its version there.")] = None,
    protocol: Annotated[
        Protocol, typer.Option("--protocol", help="Open Inference Protocol v2, or JSON of its own.")
    ] = Protocol.oip,
    mapping: Annotated[
        Path | None, typer.Option("--mapping", help="JSON file: how rows become a request, and a reply answers.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", help="Output that the answer is in (oip).")] = None,
    answer: Annotated[
        int | None, typer.Option("--answer", help="Which of its numbers per row is the answer, from 0.")
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", help="For the whole answer; 5s at most.")] = "0.5s",
    connect_timeout: Annotated[str, typer.Option("--connect-timeout", help="For a connection; 5s at most.")] = "0.5s",
    at_once: Annotated[int, typer.Option("--at-once", help="Requests of a gateway process under way there.")] = 32,
    waiting: Annotated[int, typer.Option("--waiting", help="Requests that may wait for their turn.")] = 256,
    rows: Annotated[int | None, typer.Option("--rows", help="Most rows of a request. Default: 1000.")] = None,
    breaker: Annotated[
        str, typer.Option("--breaker", help='When it is left alone, such as "failures=5 rate=0.5 pause=1".')
    ] = "",
    header: Annotated[
        list[str] | None,
        typer.Option("--header", help="'Authorization=Bearer env:VARIABLE', or file:/path; may be repeated."),
    ] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="PEM file of the authorities to trust.")] = None,
    row: Row = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Register a server as a version of a loop, once it has answered for the loop's rows."""
    from leaven.endpoints.description import from_facts

    installed = app_at(home)
    owner = installed.loop(loop)
    owner.need_model(f"endpoint add {loop}")
    if owner.classes:
        what = f"the label of {loop!r} has {len(owner.classes)} classes, and a server elsewhere is asked for one number"
        raise BadDefinition("endpoint add", what, "Serve it here, as a version that Leaven trains.")
    facts: dict[str, Any] = {
        "url": url,
        "mapping": _mapping(mapping, protocol, owner, model, model_version, output, answer),
        "timeout": duration(timeout, where="--timeout").total_seconds(),
        "connect": duration(connect_timeout, where="--connect-timeout").total_seconds(),
        "at_once": at_once, "waiting": waiting, "breaker": _breaker(breaker),
        "headers": [_header(each) for each in header or ()], "ca": None if ca is None else str(ca.absolute()),
    }  # fmt: skip
    single = "$row" in _holders(facts["mapping"]) or "$value" in _holders(facts["mapping"])
    described = from_facts(facts | {"rows": rows or (1 if single else 1000)}, where="endpoint")
    found, probe = asyncio.run(_settled(described, installed, owner, row))
    number = _register(installed, owner, found)
    data = {"loop": loop, "version": number, "endpoint": found, "probe": probe}
    emit(data, as_json=as_json, human=lambda out: _show_added(out, loop, number, found, probe))


@app.command()
def check(
    loop: LoopName,
    version: Annotated[str, typer.Argument(help="Number of the version, or an alias such as challenger.")],
    row: Row = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Ask the server of a version now, as it is described; exit code 1 if it does not answer as it should."""
    from leaven.endpoints.description import FORMAT, decoded
    from leaven.endpoints.probing import EndpointUnfit
    from leaven.registry import aliases, versions

    installed = app_at(home)
    owner = installed.loop(loop)
    with installed.database.read() as connection:
        found = versions.version(connection, loop, aliases.resolve(connection, loop, version))
    if found.format != FORMAT:
        raise BadDefinition(f"version {found.number}", "it is a model, and no endpoint", "Name an endpoint's version.")
    endpoint = decoded(installed.artifacts.get(found.artifact))
    why, probe = None, None
    try:
        probe = asyncio.run(_probed(endpoint, installed, owner, row))
    except EndpointUnfit as unfit:
        why = str(unfit)
    data = {"loop": loop, "version": found.number, "fits": probe is not None, "why": why, "endpoint": endpoint,
            "probe": probe}  # fmt: skip
    emit(data, as_json=as_json, human=lambda out: _show_probe(out, endpoint, probe) if probe else out.print(why))
    if probe is None:
        raise typer.Exit(NO)


async def _settled(endpoint: Endpoint, installed: App, loop: Loop, row: str | None) -> tuple[Endpoint, Probe]:
    from leaven.cli.probe_rows import probe_rows
    from leaven.endpoints.probing import settled

    columns, count = probe_rows(installed, loop, row)
    return await settled(endpoint, loop.schema, columns, count)


async def _probed(endpoint: Endpoint, installed: App, loop: Loop, row: str | None) -> Probe:
    from leaven.cli.probe_rows import probe_rows
    from leaven.endpoints.probing import probed

    columns, count = probe_rows(installed, loop, row)
    return await probed(endpoint, loop.schema.task, columns, count)


def _register(installed: App, loop: Loop, endpoint: Endpoint) -> int:
    from leaven.endpoints.description import FORMAT, encoded
    from leaven.registry import versions

    digest = installed.artifacts.put(encoded(endpoint))
    who = getattr(endpoint.mapping, "model", None)
    why = f"{me()} added the endpoint {endpoint.url}" + (f", model {who}" if who else "")
    with installed.database.write() as connection:
        return versions.register(
            connection, loop.name, artifact=digest, format=FORMAT, mode="fit", definition_digest=loop.digest,
            at=installed.clock.micros(), lineage={"cause": {"trigger": "manual", "why": why}},
        )  # fmt: skip


def _mapping(
    file: Path | None, protocol: Protocol, loop: Loop, model: str | None, version: str | None, output: str | None,
    answer: int | None,
) -> dict[str, Any]:  # fmt: skip
    """The mapping of the file, with what the options say; they win."""
    facts = {} if file is None else _read(file)
    said: dict[str, Any] = {"model": model, "version": version, "output": output}
    given = {name: value for name, value in said.items() if value is not None}
    if protocol is Protocol.json:
        if given or file is None:
            raise BadDefinition("--protocol json", "the request and the answer's place are the mapping's, and --model "
                                "and --output are oip's", "Give --mapping FILE alone.")  # fmt: skip
        facts = {"features": [(name, kind) for name, kind, _ in loop.schema.features]} | facts
    if answer is not None:
        given["answer" if protocol is Protocol.oip else "column"] = answer
    if protocol is Protocol.oip and "model" not in facts | given:
        raise BadDefinition("--model", "it is not given", "Name the model as its server does.")
    return facts | given | {"protocol": protocol.value}


def _read(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise BadDefinition(str(file), str(error), "Name a file with a JSON object.") from error


def _holders(template: Any) -> set[str]:
    """Every key of a template that begins with `$`."""
    if isinstance(template, dict):
        inner = [_holders(value) for value in template.values()]
        return {key for key in template if key.startswith("$")}.union(*inner)
    return set().union(*map(_holders, template)) if isinstance(template, list) else set()


def _breaker(written: str) -> dict[str, float]:
    try:
        pairs = [each.split("=") for each in written.replace(",", " ").split()]
        return {name: float(value) if "." in value else int(value) for name, value in pairs}
    except ValueError:
        raise BadDefinition("--breaker", f"{written!r} is no list of settings", 'Write "failures=5 pause=1".') from None


def _header(written: str) -> dict[str, str]:
    found = _HEADER.fullmatch(written)
    if found is None:
        what = f"{written.partition('=')[0]!r} names no place for its value"
        mend = "Write 'Authorization=Bearer env:VARIABLE' or 'X-Key=file:/path'; values are not kept."
        raise BadDefinition("--header", what, mend)
    return {"name": found["name"].strip(), "before": found["before"], found["kind"]: found["place"]}


def _show_added(out: Console, loop: str, number: int, endpoint: Endpoint, probe: Probe) -> None:
    out.print(f"version {number} of {loop} is the endpoint {endpoint.url}", markup=False)
    _show_probe(out, endpoint, probe)
    out.print(f"prove it: leaven prove {loop} {number}, or promote it: leaven promote {loop} {number}", markup=False)


def _show_probe(out: Console, endpoint: Endpoint, probe: Probe) -> None:
    said = ", ".join(f"{answer:.6g}" for answer in probe.answers)
    out.print(f"{endpoint.url} answered {said} in {probe.seconds * 1000:.1f} ms", markup=False)
    for note in probe.notes:
        out.print(f"note: {note}", markup=False)
