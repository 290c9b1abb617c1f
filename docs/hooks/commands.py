"""What does the command line take? Written into the page that carries the marker, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from leaven.cli import PANELS
from leaven.cli.root import load_command

MARKER = "<!-- every command -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marker (MkDocs calls this for every page)."""
    return markdown.replace(MARKER, "\n".join(reference())) if MARKER in markdown else markdown


def reference() -> Iterator[str]:
    """Yield the reference of every command, as lines of Markdown."""
    for panel, commands in PANELS.items():
        yield f"\n## {panel}\n"
        for name in commands:
            yield from described(f"leaven {name}", load_command(name), level=3)


def described(path: str, command: Any, *, level: int) -> Iterator[str]:
    """Yield one command, and the commands under it."""
    yield f"\n{'#' * level} {path}\n"
    yield inspect.cleandoc((command.help or "").split("\f")[0])
    yield f"\n```text\n{' '.join(usage(path, command))}\n```\n"
    rows = [row for row in map(option, command.params) if row]
    if rows:
        yield from ("| argument or option | what it is | default |", "| --- | --- | --- |", *rows)
    for name, inner in getattr(command, "commands", {}).items():
        yield from described(f"{path} {name}", inner, level=level + 1)


def usage(path: str, command: Any) -> Iterator[str]:
    """Yield the words of the command as one types it."""
    yield path
    yield from (
        f"{param.opts[0]} …" for param in command.params if param.param_type_name == "option" and param.required
    )
    yield "[OPTIONS]"
    for param in command.params:
        if param.param_type_name == "argument":
            name = param.name.upper() + ("…" if param.nargs == -1 else "")
            yield name if param.required else f"[{name}]"
    if getattr(command, "commands", None):
        yield "COMMAND"


def option(param: Any) -> str | None:
    """One row of the table of arguments and options; None for what is hidden."""
    if getattr(param, "hidden", False) or param.name == "help":
        return None
    argument = param.param_type_name == "argument"
    names = param.name.upper() if argument else ", ".join((*param.opts, *param.secondary_opts))
    needed = "required" if param.required else ""
    default = "" if param.default in (None, False, (), []) or callable(param.default) else f"`{param.default}`"
    said = " ".join((getattr(param, "help", None) or "").split()).replace("|", "\\|")
    return f"| `{names}` | {said} | {default or needed} |"
