"""Which loops does the owner's file define?"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from leaven.errors import BadDefinition
from leaven.loop import Loop


class BadLoopFile(BadDefinition):
    """A loop file cannot be read, cannot be run, or defines no loop."""


def load_loop(path: Path, *, name: str | None = None) -> Loop:
    """Return the loop called `name` that the file defines; without a name the variable `loop`, or the only one.

    Raises:
        BadLoopFile: the file is missing, fails when it is run, or does not say which loop is meant.
        BadDefinition: a value in it is not one that Leaven can run; `where` begins with file and line.
    """
    found = _loops_by_variable(path)
    loops = _distinct(found)
    if name is not None:
        for loop in loops:
            if loop.name == name:
                return loop
        there = ", ".join(repr(loop.name) for loop in loops)
        raise BadLoopFile(str(path), f"it defines no loop {name!r}", f"It defines {there}: use one of these names.")
    if "loop" in found:
        return found["loop"]
    if len(loops) > 1:
        there = ", ".join(repr(loop.name) for loop in loops)
        raise BadLoopFile(str(path), f"it defines {there}", "Call one of the variables `loop`, or name the loop.")
    return loops[0]


def load_loops(path: Path) -> list[Loop]:
    """Return all loops that the file defines, in the order of its variables; at least one.

    Raises:
        BadLoopFile: the file is missing, fails when it is run, defines no loop, or two of the same name.
        BadDefinition: a value in it is not one that Leaven can run; `where` begins with file and line.
    """
    return _distinct(_loops_by_variable(path))


def function_beside(path: Path, name: str, *, where: str) -> Callable[..., Any]:
    """Return a function of the owner's, `"module:function"`, whose module lies beside the loop file or is installed.

    Raises:
        BadDefinition: there is no such function; its module's own errors are told.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise BadDefinition(where, f"{name!r} is no function", 'Write it as "module:function".')
    with _importing_from(path.absolute().parent):
        try:
            found = getattr(import_module(module), function, None)
        except Exception as error:
            what = f"module {module!r} cannot be imported ({type(error).__name__}: {error})"
            raise BadDefinition(where, what, f"Put it beside {path.name}, and see that it runs.") from error
    if not callable(found):
        raise BadDefinition(where, f"module {module!r} has no function {function!r}", "Name one that it has.")
    return found  # type: ignore[no-any-return]


def _loops_by_variable(path: Path) -> dict[str, Loop]:
    module = _run(path.absolute())
    found = {variable: given for variable, given in vars(module).items() if isinstance(given, Loop)}
    if not found:
        mend = 'Write `loop = Loop("name", …)` in it, or start from a sample: leaven init SAMPLE.parquet.'
        raise BadLoopFile(str(path), "it defines no loop", mend)
    named: dict[str, Loop] = {}
    for loop in found.values():
        if named.setdefault(loop.name, loop) != loop:
            raise BadLoopFile(str(path), f"two loops are called {loop.name!r}", "Give each loop a name of its own.")
    return found


def _distinct(found: dict[str, Loop]) -> list[Loop]:
    return list({loop.name: loop for loop in found.values()}.values())


def _run(path: Path) -> ModuleType:
    """Run the file as a module of a private name, so that no import can meet it by accident."""
    code = _compiled(path)
    name = f"_leaven_loop_{sha256(str(path).encode()).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickles in the file look their module up
    with _importing_from(path.parent):
        try:
            exec(code, vars(module))  # noqa: S102  # the file is the owner's own program
        except BadDefinition as error:
            raise BadDefinition(f"{_place(path, error)}: {error.where}", error.what, error.mend) from error
        except ModuleNotFoundError as error:
            mend = "Install it into the environment that runs Leaven, or mend the import."
            raise BadLoopFile(_place(path, error), f"there is no module {error.name!r}", mend) from error
        except (Exception, SystemExit) as error:
            what = f"{type(error).__name__}: {error}".rstrip(".")
            raise BadLoopFile(_place(path, error), what, "Mend the line, then run `leaven check` again.") from error
    return module


def _compiled(path: Path) -> CodeType:
    try:
        # Compiled here and not imported: a cached .pyc can be older than an edit made within the same second.
        return compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except FileNotFoundError as error:
        mend = "Name an existing file, or write one: leaven init SAMPLE.parquet."
        raise BadLoopFile(str(path), "there is no such file", mend) from error
    except OSError as error:
        raise BadLoopFile(str(path), f"it cannot be read ({error.strerror})", "Name a readable Python file.") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        what = getattr(error, "msg", None) or str(error)
        raise BadLoopFile(f"{path}:{line}", f"it is not Python: {what}", "Mend the line.") from error


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Modules beside the loop file can be imported while it runs."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _place(path: Path, error: BaseException) -> str:
    """The file and the line of it that was running when `error` was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)
