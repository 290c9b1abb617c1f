"""Do imports point one way, and does the core stay values in, values out?

Every rule is read off the source by `ast`, so a breach is named by file and line, and code that no test runs is held to
the rules as well.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "leaven"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CORE = words("stats events curation monitoring triggers training gates experiments loop values duration errors tokens")
GROUND = words("clock settings logs")  # what reads time and environment; others get their values as arguments
# Adapter -> the other adapters it may import; all of them may import the core and the ground.
ADAPTERS: dict[str, frozenset[str]] = {
    "storage": words(""),
    "registry": words("storage.control storage.place storage.bucket"),
    "learners": words("loopfile"),
    "loopfile": words(""),
    "endpoints": words("client.http1"),  # servers elsewhere that answer for a version
    "gateway": words("registry learners endpoints"),
    "integrations": words(""),
    "client": words(""),
}
COMPOSITION = words("controller app system cli demo backup doctor runfile __init__ __main__")

# What the core may use of others: computation, nothing that has a clock, a file, a network or an environment.
CORE_LIBRARIES = words("leaven numpy scipy msgspec")
CORE_STDLIB = words(
    "__future__ abc array ast base64 bisect collections concurrent contextlib copy dataclasses datetime decimal enum"
    " fractions functools hashlib heapq hmac itertools json math numbers operator re statistics string struct textwrap"
    " types typing warnings zlib"
)
# What a gateway process must not load before a served model needs it.
HEAVY = words(
    "alembic dbos deltalake duckdb google grpc implicit lightgbm matplotlib obstore pandas pyarrow rich river"
    " safetensors scipy skops sklearn sqlalchemy tokenizers torch typer xgboost"
)


@dataclass(frozen=True)
class Import:
    """One imported module, and where that is written."""

    module: str
    file: Path
    line: int
    at_load: bool  # runs when the module is loaded: neither inside a function nor only for the type checker

    @property
    def where(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line}"

    @property
    def part(self) -> str:
        """The part of Leaven that is imported: the first name after `leaven`."""
        return self.module.split(".")[1] if self.module.startswith("leaven.") else "__init__"


def modules() -> list[Path]:
    return sorted(file for file in PACKAGE.rglob("*.py") if "__pycache__" not in file.parts)


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def imports(file: Path, tree: ast.Module | None = None) -> Iterator[Import]:
    """Every import of `file`, relative ones made absolute, `from leaven import x` resolved to `leaven.x`."""
    package = ["leaven", *file.relative_to(PACKAGE).parts[:-1]]

    def visit(node: ast.AST, at_load: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, file, node.lineno, at_load)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if is_module(inner) else base, file, node.lineno, at_load)
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or for_types(node, child)
            yield from visit(child, at_load and not lazy)

    yield from visit(tree or tree_of(file), True)


def for_types(node: ast.AST, child: ast.AST) -> bool:
    """Whether `child` stands in the body of `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and child in node.body


def is_module(name: str) -> bool:
    return name.startswith("leaven.") and file_of(name) is not None


def file_of(name: str) -> Path | None:
    """The file of a module of Leaven, or None if `name` is none."""
    base = PACKAGE.joinpath(*name.split(".")[1:])
    return next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file() and f != PACKAGE), None)


def all_imports() -> Iterator[Import]:
    for file in modules():
        yield from imports(file)


def none_of(breaches: Iterable[str]) -> None:
    found = sorted(set(breaches))
    assert not found, "\n" + "\n".join(found)


def outward(found: Import) -> str | None:
    """Why this import points outwards, or None if it does not."""
    here, there = part_of(found.file), found.part
    if not found.module.startswith("leaven") or here == there or here in COMPOSITION:
        return None
    if here in CORE or here in GROUND:
        inner = CORE if here in CORE else CORE | GROUND
        return None if there in inner else f"the core imports {found.module}"
    if there in CORE | GROUND or any(
        f"{found.module}.".startswith(f"leaven.{allowed}.") for allowed in ADAPTERS.get(here, frozenset())
    ):
        return None
    return f"the adapter {here!r} imports {found.module}"


def test_every_part_has_its_place_on_the_map():
    known = CORE | GROUND | ADAPTERS.keys() | COMPOSITION
    none_of(
        f"{part_of(file)}: in none of CORE, GROUND, ADAPTERS, COMPOSITION of {Path(__file__).name}"
        for file in modules()
        if part_of(file) not in known
    )


def test_imports_point_inwards():
    none_of(f"{found.where}: {why}" for found in all_imports() if (why := outward(found)))


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("gates/new.py", "from leaven.storage.lake import Lake", "the core imports leaven.storage"),
        ("gates/new.py", "from leaven import clock", "the core imports leaven.clock"),
        ("gates/new.py", "from ..settings import Settings", "the core imports leaven.settings"),
        ("gates/new.py", "def f():\n    import leaven.cli", "the core imports leaven.cli"),
        ("storage/new.py", "from leaven.gateway import app", "the adapter 'storage' imports leaven.gateway"),
        ("registry/new.py", "from leaven.storage import lake", "the adapter 'registry' imports leaven.storage"),
        ("clock.py", "from leaven.storage import lake", "the core imports leaven.storage"),
    ],
)
def test_an_import_that_points_outwards_is_seen(file: str, line: str, why: str):
    said = [outward(found) for found in imports(PACKAGE / file, ast.parse(line))]
    assert any(text and text.startswith(why) for text in said), said


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("gates/new.py", "from leaven.events.columns import Examples"),
        ("storage/new.py", "from leaven.clock import Clock"),
        ("registry/new.py", "from leaven.storage.control.schema import versions"),
        ("gateway/new.py", "from leaven.registry.routing import newer_tables"),
        ("cli/new.py", "from leaven.gateway import app"),
    ],
)
def test_an_import_that_points_inwards_is_let_be(file: str, line: str):
    assert [outward(found) for found in imports(PACKAGE / file, ast.parse(line))] == [None]


def test_the_core_uses_libraries_that_only_compute():
    none_of(
        f"{found.where}: the core imports {found.module}"
        for found in all_imports()
        if part_of(found.file) in CORE and found.module.split(".")[0] not in CORE_LIBRARIES | CORE_STDLIB
    )


def calls(node: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call under `node`, with the dotted text of what is called."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            yield inner, ast.unparse(inner.func)


READS_TIME = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")
CHANCE = ("numpy.random.", "np.random.")


def impure(call: ast.Call, called: str) -> str | None:
    """What a call asks of the world, or None if nothing."""
    if called.endswith(READS_TIME):
        return "asks what time it is; take `now` as an argument"
    if called.startswith(CHANCE) and not (called.endswith(("default_rng", "Generator", "PCG64", "SeedSequence"))):
        return "draws from the process-wide random state; take `rng` as an argument"
    if called.endswith("default_rng") and not call.args and not call.keywords:
        return "seeds itself from the machine; take `rng` or a seed as an argument"
    return "touches files or the terminal" if called in ("open", "print", "input") else None


def test_the_core_asks_for_no_time_chance_or_file():
    none_of(
        f"{file.relative_to(PACKAGE.parent)}:{call.lineno}: {called}() {why}"
        for file in modules()
        if part_of(file) in CORE
        for call, called in calls(tree_of(file))
        if (why := impure(call, called))
    )


def only_in(allowed: set[str], breach: Callable[[ast.AST], bool], what: str) -> Iterator[str]:
    for file in modules():
        inside = str(file.relative_to(PACKAGE))
        if inside not in allowed:
            for node in ast.walk(tree_of(file)):
                if breach(node):
                    yield f"{file.relative_to(PACKAGE.parent)}:{node.lineno}: {what}"


def test_only_settings_read_the_environment():
    def reads(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom):
            return node.module == "os" and any(alias.name in ("environ", "getenv") for alias in node.names)
        return isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb")

    none_of(only_in({"settings.py"}, reads, "reads the environment; add it to settings.py"))


def test_only_the_clock_reads_the_time_of_day():
    def reads(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func).endswith(READS_TIME)

    none_of(only_in({"clock.py"}, reads, "asks what time it is; ask the Clock that was handed in"))


def loaded_with(module: str) -> dict[str, list[Import]]:
    """Modules that loading `module` loads, by name, each with the chain of imports that leads there."""
    reached: dict[str, list[Import]] = {}
    waiting: list[tuple[str, list[Import]]] = [(module, [])]
    while waiting:
        name, chain = waiting.pop()
        if name in reached:
            continue
        reached[name] = chain
        file = file_of(name)
        if file is not None:
            parents = [".".join(name.split(".")[:depth]) for depth in range(2, name.count(".") + 1)]
            waiting += [(parent, chain) for parent in parents]
            waiting += [(found.module, [*chain, found]) for found in imports(file) if found.at_load]
    return reached


def name_of(file: Path) -> str:
    return ".".join(["leaven", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def test_a_gateway_process_loads_nothing_heavy_before_it_is_needed():
    process = [PACKAGE / "cli" / "gateway_worker.py", *(file for file in modules() if part_of(file) == "gateway")]
    process = [file for file in process if "grpc" not in file.parts]  # loaded where gRPC is asked for
    none_of(
        f"{name_of(file)} loads {reached}: " + " > ".join(found.where for found in chain)
        for file in process
        for reached, chain in loaded_with(name_of(file)).items()
        if reached.split(".")[0] in HEAVY
    )


def test_the_command_line_loads_nothing_heavy_for_its_help():
    reached = loaded_with("leaven.cli.root")
    none_of(f"leaven.cli.root loads {name}" for name in reached if name.split(".")[0] in HEAVY - {"typer"})


def test_the_client_loads_no_server():
    every = [file for file in modules() if part_of(file) == "client"]
    reached = {name for file in every for name in loaded_with(name_of(file))}
    assert {name.split(".")[1] for name in reached if name.startswith("leaven.")} <= words(
        "client clock duration errors settings"
    )
    assert not {name.split(".")[0] for name in reached} & (HEAVY | {"numpy", "uvicorn", "starlette"})


def folders() -> list[Path]:
    return sorted({file.parent for file in modules()})


def test_every_folder_says_what_it_is_for():
    none_of(
        f"{folder.relative_to(PACKAGE.parent)}: no __init__.py with a docstring"
        for folder in folders()
        if not (folder / "__init__.py").is_file() or not ast.get_docstring(tree_of(folder / "__init__.py"))
    )


def test_no_folder_is_empty():
    def holds_something(folder: Path) -> bool:
        files = [file for file in folder.iterdir() if file.name not in ("__init__.py", "__pycache__")]
        init = folder / "__init__.py"
        return bool(files) or (init.is_file() and len(tree_of(init).body) > 1)

    every = [path for path in PACKAGE.rglob("*") if path.is_dir() and "__pycache__" not in path.parts]
    none_of(f"{folder.relative_to(PACKAGE.parent)}: empty" for folder in every if not holds_something(folder))


def test_modules_and_functions_stay_short_enough_to_read():
    breaches = []
    for file in modules():
        lines = file.read_text().count("\n")
        if lines > 500:
            breaches.append(f"{file.relative_to(PACKAGE.parent)}: {lines} lines; split it by idea (500 at most)")
        for node in ast.walk(tree_of(file)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    breaches.append(f"{file.relative_to(PACKAGE.parent)}:{node.lineno}: {node.name} has {length} lines")
    none_of(breaches)


def test_nothing_is_swallowed_in_silence():
    none_of(
        f"{file.relative_to(PACKAGE.parent)}:{node.lineno}: an except that only passes"
        for file in modules()
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
    )
