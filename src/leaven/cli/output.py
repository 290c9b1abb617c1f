"""How does a command answer: to a person, to a program, and to the shell?

A person gets Rich text on stdout; a program passes `--json` and gets one JSON value there; progress goes to stderr, so
that neither is disturbed. The shell gets one of four exit codes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

DONE = 0
NO = 1  # the question was answered, and the answer is no
WRONG_USE = 2
FAILED = 3
INTERRUPTED = 130

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Folder of the installation. Default: LEAVEN_HOME, or .leaven here.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value, for programs.")]

_SAY_SECONDS = 5.0
_PIPED_WIDTH = 160  # columns, where stdout is no terminal and so has no width of its own


def emit(data: object, *, as_json: bool, human: Callable[[Console], None]) -> None:
    """Print `data` as one line of JSON, or let `human` show it on the console.

    Args:
        data: Anything msgspec can encode; also NumPy scalars and arrays, paths. NaN becomes null.
        as_json: What the user asked for with `--json`.
        human: Called with the stdout console where a person reads.
    """
    if as_json:
        sys.stdout.write(as_text(data) + "\n")
        sys.stdout.flush()
    else:
        human(console())


def as_text(data: object) -> str:
    """Return `data` as JSON text, as `emit` prints it."""
    return msgspec.json.encode(data, enc_hook=_plain).decode()


def console() -> Console:
    """Return a console on stdout; where that is a pipe or a file, lines are cut no narrower than 160 columns."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)


def messages() -> Console:
    """Return a console on stderr: for what happens meanwhile, never for the answer."""
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPED_WIDTH, highlight=False)


def progress() -> Progress:
    """Return a progress display on stderr, to be used with `with`; it leaves nothing behind."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=messages(),
        transient=True,
    )


@contextmanager
def rows_done() -> Iterator[Callable[[str, int, int], None]]:
    """Show on stderr how many rows of how many are done; give what is to be told the stage and both.

    On a terminal it is a bar; elsewhere a line now and then, for a log.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if not sys.stderr.isatty():
        yield _lines_of_progress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[shown]}"), TimeElapsedColumn())
    with Progress(*columns, console=messages(), transient=True) as bar:
        task = bar.add_task("", total=None, shown="")
        yield lambda stage, done, rows: bar.update(
            task,
            description=stage,
            completed=done,
            total=rows or None,
            shown=f"{done:,} of {rows:,} rows" if rows else "",
        )


def _lines_of_progress() -> Callable[[str, int, int], None]:
    said = [time.monotonic()]  # nothing is said of what takes no time

    def tell(stage: str, done: int, rows: int) -> None:
        if rows and time.monotonic() >= said[0] + _SAY_SECONDS:
            said[0] = time.monotonic()
            sys.stderr.write(f"{stage}: {done:,} of {rows:,} rows\n")
            sys.stderr.flush()

    return tell


def _plain(given: Any) -> object:
    """What msgspec does not know, as something it does."""
    if isinstance(given, Path):
        return str(given)
    if hasattr(given, "tolist"):  # NumPy's scalars and arrays, without importing NumPy for those who send none
        return given.tolist()
    raise NotImplementedError(f"{type(given).__name__} has no form in JSON")
