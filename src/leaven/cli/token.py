"""`leaven token`: who may use the gateway, and for what?"""

from __future__ import annotations

import os
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from leaven.cli.control import moment
from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.clock import SystemClock
from leaven.duration import duration

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.registry.tokens import TokenRecord

app = typer.Typer(no_args_is_help=True)


class RoleName(StrEnum):
    """What a token can be good for."""

    serve = "serve"
    feedback = "feedback"
    admin = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what will use it, for people: checkout-service.")],
    role: Annotated[
        list[RoleName],
        typer.Option(
            "--role", help="serve: predict, assign, metadata. feedback: report. admin: everything. Give several times."
        ),
    ],
    loop: Annotated[
        list[str] | None, typer.Option("--loop", help="Only for this loop; give several times. Default: all.")
    ] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="How long it is good, such as 90d.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and show it, this once; it works at every gateway within a second."""
    from leaven.registry import tokens

    now = SystemClock().micros()
    until = None if expires is None else now + duration(expires, where="--expires") // timedelta(microseconds=1)
    with app_at(home).database.write() as connection:
        token, record = tokens.create(
            connection, name, [each.value for each in role], random=os.urandom(40), by=me(), at=now, only=loop or None,
            expires=until,
        )  # fmt: skip

    def show(out: Console) -> None:
        out.print(token, soft_wrap=True, markup=False)
        out.print(f"id {record.id}, {_good_for(record)}. It is not kept and cannot be shown again.", markup=False)

    emit({"token": token, **msgspec.structs.asdict(record)}, as_json=as_json, human=show)


@app.command("list")
def list_(home: Home = None, as_json: AsJson = False) -> None:
    """List every token that was ever made: who uses it, for what, until when, and when it was last used."""
    from leaven.registry import tokens

    now = SystemClock().micros()
    with app_at(home).database.read() as connection:
        found = tokens.tokens(connection)
    facts = [{**msgspec.structs.asdict(record), "state": record.state(now=now)} for record in found]
    emit(facts, as_json=as_json, human=lambda out: _show(found, now, out))


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="The token's id: its letters between lvn_ and the next _.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a token be good for nothing any more; gateways refuse it within a second, while the database is up."""
    from leaven.registry import tokens

    with app_at(home).database.write() as connection:
        record = tokens.revoke(connection, id, at=SystemClock().micros())
    emit(record, as_json=as_json, human=lambda out: out.print(f"token {id} ({record.name}) is revoked", markup=False))


def _good_for(record: TokenRecord) -> str:
    only = "every loop" if record.loops is None else ", ".join(record.loops)
    return f"good for {' and '.join(record.roles)} of {only}, until {moment(record.expires_at, none='revoked')}"


def _show(found: list[TokenRecord], now: int, out: Console) -> None:
    from rich.table import Table

    if not found:
        out.print("no token was made yet: leaven token create NAME --role serve")
        return
    table = Table("id", "name", "roles", "loops", "made", "expires", "last used", "state", box=None)
    for one in found:
        table.add_row(
            one.id, one.name, " ".join(one.roles), "all" if one.loops is None else " ".join(one.loops),
            moment(one.created_at)[:10], moment(one.expires_at, none="never")[:16], one.used_on or "never",
            one.state(now=now),
        )  # fmt: skip
    out.print(table)
