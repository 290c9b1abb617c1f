"""Does the command line find its commands quickly, and say in its exit code and words how it went?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
import typer

from benchmarks.startup import COMMANDS as STARTS
from benchmarks.startup import fastest
from leaven.cli import COMMANDS, main
from leaven.cli.output import AsJson, emit
from leaven.cli.root import load_command
from leaven.errors import BadDefinition, LeavenError


class LakeIsDry(LeavenError, RuntimeError):
    def __str__(self) -> str:
        return "the lake is dry. Wait for rain."


@pytest.fixture
def status_does(monkeypatch: pytest.MonkeyPatch):
    """Return a function that puts another function in the place of `leaven status`."""

    def put(function) -> None:
        module = ModuleType("tests_status")
        module.app = typer.Typer()  # type: ignore[attr-defined]
        module.app.command()(function)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tests_status", module)
        monkeypatch.setitem(COMMANDS, "status", ("tests_status", "Show something."))

    return put


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


def test_help_names_every_command_with_its_line(leaven):
    shown = leaven("--help")
    assert shown.returncode == 0
    for name, (_, line) in COMMANDS.items():
        assert any(name in row and line in row for row in shown.stdout.splitlines()), name


def test_help_imports_no_command():
    script = "import sys\nfrom leaven.cli import main\ntry:\n    main(['--help'])\nfinally:\n    print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "leaven.cli" in loaded
    assert not loaded & {module for module, _ in COMMANDS.values()}
    assert not loaded & {"numpy", "msgspec", "sqlalchemy", "duckdb", "pydantic"}


def test_help_answers_before_a_person_notices():
    """0.3 s of processor time, or three bare starts of Python on a slow machine; the least of five runs."""
    bare, shown = (fastest(STARTS[name], rounds=5) for name in ("bare python", "leaven --help"))
    assert shown.cpu < max(0.3, 3 * bare.cpu)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_the_table_loads_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]):
    assert find_spec(COMMANDS[name][0]) is not None, f"{COMMANDS[name][0]} does not exist"
    command = load_command(name)
    assert command.help
    assert not {"install_completion", "show_completion"} & {param.name for param in command.params}
    assert exit_code(name, "--help") == 0
    assert f"leaven {name}" in capsys.readouterr().out


def test_every_command_of_the_package_is_in_the_table():
    import leaven.cli

    (folder,) = leaven.cli.__path__
    exporting = {file.stem for file in Path(folder).glob("*.py") if "\napp = typer.Typer(" in file.read_text()}
    assert exporting <= {module.rpartition(".")[2] for module, _ in COMMANDS.values()}


def test_a_misspelt_command_is_wrong_use_and_the_right_one_is_named(capsys: pytest.CaptureFixture[str]):
    assert exit_code("rolback") == 2
    assert "rollback" in capsys.readouterr().err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]):
    assert exit_code() == 2
    assert "rollback" in "".join(capsys.readouterr())


@pytest.mark.parametrize("error", [LakeIsDry(), BadDefinition("Loop('x')", "it is bad", "Mend it.")])
def test_what_leaven_refuses_is_one_sentence_and_an_exit_code(error, status_does, capsys: pytest.CaptureFixture[str]):
    def status() -> None:
        raise error

    status_does(status)
    assert exit_code("status") == (2 if isinstance(error, BadDefinition) else 3)
    shown = capsys.readouterr()
    assert shown.err == f"error: {error}\n"
    assert shown.out == ""


def test_a_program_that_asked_for_json_gets_the_error_as_json(status_does, capsys: pytest.CaptureFixture[str]):
    def status(as_json: AsJson = False) -> None:
        raise LakeIsDry

    status_does(status)
    assert exit_code("status", "--json") == 3
    assert json.loads(capsys.readouterr().out) == {"error": "the lake is dry. Wait for rain."}


def test_what_nobody_expected_names_the_way_to_its_traceback(
    status_does, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def status() -> None:
        raise ZeroDivisionError("division by zero")

    status_does(status)
    monkeypatch.delenv("LEAVEN_DEBUG", raising=False)
    assert exit_code("status") == 3
    said = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in said
    assert "LEAVEN_DEBUG=1" in said
    assert "Traceback" not in said
    monkeypatch.setenv("LEAVEN_DEBUG", "1")
    assert exit_code("status") == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_ends_quietly(status_does, capsys: pytest.CaptureFixture[str]):
    def status() -> None:
        raise KeyboardInterrupt

    status_does(status)
    assert exit_code("status") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_the_answer_no_is_exit_code_one(status_does):
    def status() -> None:
        raise typer.Exit(1)

    status_does(status)
    assert exit_code("status") == 1


def test_a_reader_that_goes_away_is_no_error():
    """`leaven … | head -1`: the pipe closes while the command still writes."""
    script = (
        "import sys, types, typer, leaven.cli as cli\n"
        "from leaven.cli.output import emit\n"
        "module = sys.modules['many'] = types.ModuleType('many'); module.app = typer.Typer()\n"
        "@module.app.command()\n"
        "def status():\n"
        "    for _ in range(100_000):\n"
        "        emit({'line': 'x' * 100}, as_json=True, human=print)\n"
        "cli.COMMANDS['status'] = ('many', 'Write.')\n"
        "cli.main(['status'])"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.readline()
        writer.stdout.close()
        said = writer.stderr.read().decode()
        writer.wait(timeout=120)
    assert said == ""


def complete(*words: str) -> list[str]:
    """What bash is offered after `leaven WORDS`, the last of which is being typed."""
    run = subprocess.run(
        [sys.executable, "-m", "leaven"],
        env=os.environ
        | {
            "_LEAVEN_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(("leaven", *words)),
            "COMP_CWORD": f"{len(words)}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.split()


def test_the_shell_completes_commands_and_their_options():
    assert complete("ro") == ["rollback"]
    assert "--json" in complete("versions", "--")


class Served(msgspec.Struct):
    at: datetime
    share: float


def test_json_is_one_line_that_programs_can_read(capsys: pytest.CaptureFixture[str]):
    data = {
        "served": [Served(datetime(2013, 3, 1, tzinfo=UTC), float("nan"))],
        "numpy": [np.float64(0.5), np.int64(3), np.array([1.0, np.nan])],
        "home": Path("a/b"),
    }
    emit(data, as_json=True, human=pytest.fail)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "served": [{"at": "2013-03-01T00:00:00Z", "share": None}],
        "numpy": [0.5, 3, [1.0, None]],
        "home": "a/b",
    }


def test_a_person_reads_from_the_console_and_a_pipe_cuts_no_line_short(capsys: pytest.CaptureFixture[str]):
    emit({}, as_json=False, human=lambda console: console.print("word " * 30))
    assert capsys.readouterr().out.splitlines() == [("word " * 30).rstrip() + " "]
