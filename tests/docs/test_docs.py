"""Does the documentation say what is so?

Every block of code on a page is run, page by page, in an empty folder of its own; every file, module and setting that a
page names must exist. What a block needs is said in a comment before its fence, which readers do not see:

- `<!-- server -->`: the command runs until the page ends, then gets Ctrl-C; port 8080 is replaced by a free one.
- `<!-- needs MODULE -->`: the rest of the page is skipped where the module is not installed.
- `<!-- exit N -->`: the last command ends with this exit code.
- `<!-- not run: REASON -->`: it is shown only.

A `diff` with a title changes that file: its removed lines, which must be there once, become the added ones.

A page that begins with `<!-- continues PAGE -->` is read after that one, in the same folder, with its servers running.
One that begins with `<!-- files of PAGE -->` finds the files that the other page writes, made by running them.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
PAGES = sorted([*(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"])
RUN = ("python", "console", "diff")

FENCE = re.compile(
    r"(?:^[ ]*<!--\s*(?P<note>[^\n]*?)\s*-->\n+)?^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str | None
    note: str
    code: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', found["info"])
        code = re.sub(rf"^{found['indent']}", "", found["code"], flags=re.MULTILINE)
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], title[1] if title else None, found["note"] or "", code)


def named(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def runs(block: Block) -> bool:
    return block.language in RUN and not block.note.startswith("not run:")


def begins_with(page: Path, what: str) -> Path | None:
    """The page that this one names in its first comment, `<!-- WHAT PAGE -->`."""
    found = re.match(rf"<!-- {what} (\S+) -->\n", page.read_text())
    return (page.parent / found[1]).resolve() if found else None


class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    def __init__(self, folder: Path, port: int, stack: ExitStack) -> None:
        self._folder, self._port, self._stack = folder, port, stack
        module = ModuleType("page_of_the_documentation")  # a real one: dataclasses look their own up by name
        sys.modules[module.__name__] = module
        stack.callback(sys.modules.pop, module.__name__)
        self._namespace: dict[str, Any] = vars(module)

    def read(self, page: Path) -> None:
        other = begins_with(page, "files of")
        for block in blocks(other) if other is not None else ():
            if block.title is not None:
                self._python(block, block.code)
        for block in blocks(page):
            if runs(block):
                self.do(block)

    def do(self, block: Block) -> None:
        code = block.code.replace(":8080", f":{self._port}")
        if block.language == "python":
            self._python(block, code)
        elif block.language == "diff":
            self._edit(block)
        elif block.note == "server":
            self._serve(block, code)
        else:
            self._type(block, code)

    def _python(self, block: Block, code: str) -> None:
        if block.title is not None:
            (self._folder / block.title).write_text(code)
        # A page's blocks build on each other; line numbers are the page's own, so a failure points there.
        exec(compile("\n" * block.line + code, str(block.page), "exec"), self._namespace)

    def _edit(self, block: Block) -> None:
        assert block.title is not None, f"{block.where}: which file?"
        lines = block.code.splitlines()
        removed, added = ("\n".join(line[1:] for line in lines if line[0] in kinds) + "\n" for kinds in ("- ", "+ "))
        file = self._folder / block.title
        text = file.read_text()
        assert text.count(removed) == 1, f"{block.where}: not once in {block.title}:\n{removed}"
        file.write_text(text.replace(removed, added))

    def _type(self, block: Block, code: str) -> None:
        given = commands(code)
        for index, command in enumerate(given):
            ran = self._shell(command)
            last = index == len(given) - 1
            expected = int(block.note.split()[1]) if last and block.note.startswith("exit ") else 0
            assert ran.returncode == expected, f"{block.where}: {command}\n{ran.stdout}{ran.stderr}"

    def _shell(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def _serve(self, block: Block, code: str) -> None:
        (command,) = commands(code)
        output = self._folder / f"server-{block.line}.log"
        with output.open("w") as log:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command} --port {self._port}"],
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._stack.callback(self._interrupt, block, server, output)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert server.poll() is None, f"{block.where}: the server ended\n{output.read_text()}"
            assert time.monotonic() < deadline, f"{block.where}: the server never answered\n{output.read_text()}"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/v2/health/live", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _interrupt(self, block: Block, server: subprocess.Popen[bytes], output: Path) -> None:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            raise
        finally:
            print(f"what the server of {block.where} said:\n{output.read_text()}")  # seen where the test fails
        assert server.returncode in (0, 130), f"{block.where}: ended with {server.returncode}"


def commands(code: str) -> list[str]:
    """The commands of a console block: lines after `$ `, with those that continue them."""
    found: list[str] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
        elif found and found[-1].endswith("\\"):
            found[-1] += "\n" + line
    return found


# Pages of a quarter of a minute or more whose subject other tests hold as well.
LONG = {
    "docs/howto/choose-a-strategy.md",
    "docs/howto/grow-a-model.md",
    "docs/howto/recommend.md",
    "docs/howto/text.md",
}
RUNNABLE = [page for page in PAGES if any(map(runs, blocks(page))) and begins_with(page, "continues") is None]


@pytest.fixture
def reader(tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    for name in [name for name in os.environ if name.startswith("LEAVEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # a page's files import each other
    with ExitStack() as stack:
        yield Reader(tmp_path, free_port(), stack)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if named(page) in LONG else ()) for page in RUNNABLE],
    ids=named,
)
def test_what_a_page_tells_to_do_works(page: Path, reader: Reader):
    """One test per page that stands alone; the pages that continue it follow in the same test."""
    pages = [page, *(other for other in PAGES if begins_with(other, "continues") == page)]
    for block in (block for each in pages for block in blocks(each)):
        if block.note.startswith("needs ") and find_spec(block.note.split()[1]) is None:
            pytest.skip(f"{block.where} needs {block.note.split()[1]}, which is not installed")
    for each in pages:
        reader.read(each)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_comment_before_a_fence_is_understood(page: Path):
    known = re.compile(r"server|needs [\w.]+|exit \d+|not run: .+")
    for block in blocks(page):
        assert not block.note or known.fullmatch(block.note), f"{block.where}: {block.note}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_a_page_names_is_there(page: Path):
    names = re.findall(r"`((?:src|tests|docs|benchmarks|\.ci)/[\w./-]*)`", page.read_text())
    missing = [name for name in names if not (REPOSITORY / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_python_name_a_page_names_is_there(page: Path):
    text = page.read_text()
    names = re.findall(r"`(leaven(?:\.\w+)+)(?:\([^`]*\))?`|^::: (leaven(?:\.\w+)+)", text, re.MULTILINE)
    missing = [name for pair in names for name in pair if name and not exists(name)]
    assert not missing


def exists(name: str) -> bool:
    """Whether `name` is a module, or something in one."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        module = ".".join(parts[:depth])
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            continue
        for attribute in parts[depth:]:
            if not hasattr(found, attribute) and attribute not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, attribute, None)
        return True
    return False


def test_every_setting_is_explained():
    settings = (REPOSITORY / "src/leaven/settings.py").read_text()
    page = (REPOSITORY / "docs/reference/settings.md").read_text()
    read = set(re.findall(r"LEAVEN_[A-Z_]+", settings))
    explained = set(re.findall(r"`(LEAVEN_[A-Z_]+)`", page))
    assert read == explained


def test_the_command_line_page_takes_its_text_from_the_commands():
    assert "<!-- every command -->" in (REPOSITORY / "docs/reference/cli.md").read_text()


def test_the_version_is_the_same_everywhere():
    from leaven import __version__

    assert f'version = "{__version__}"' in (REPOSITORY / "pyproject.toml").read_text()
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_no_page_shows_a_registry_host_or_a_path_of_somebody_s_machine():
    files = [*PAGES, *(REPOSITORY / name for name in ("Makefile", "constraints.txt", "mkdocs.yml", ".ci/run"))]
    told = re.compile(r"file://|index-url|/home/\w+|/root/|/Users/\w+")
    assert not [named(file) for file in files if told.search(file.read_text())]
