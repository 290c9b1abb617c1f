"""How much disk does an installation take, by part?

Makes environments of its own and installs into them, so it needs a package index and a minute or two:

    python benchmarks/install_size.py
"""

from __future__ import annotations

import subprocess
import sys
import time
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
PARTS = ("", "xgboost", "plot", "demo")


def main() -> None:
    print(f"{'what':<22} {'MB':>6} {'packages':>9} {'install s':>10}")
    with TemporaryDirectory() as place:
        for extra in PARTS:
            folder = Path(place) / (extra or "core")
            venv.create(folder, with_pip=True)
            empty = megabytes(folder)
            began = time.monotonic()
            wanted = f"{ROOT}[{extra}]" if extra else str(ROOT)
            install(folder, wanted)
            taken = time.monotonic() - began
            name = f"leaven[{extra}]" if extra else "leaven"
            print(f"{name:<22} {megabytes(folder) - empty:6.0f} {packages(folder):9d} {taken:10.0f}")
            if not extra:
                show_largest(folder)


def install(folder: Path, what: str) -> None:
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", what], check=True, stderr=subprocess.DEVNULL)


def megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def packages(folder: Path) -> int:
    return len(list(folder.glob("lib/python*/site-packages/*.dist-info")))


def show_largest(folder: Path) -> None:
    """The largest packages of the core, each with the libraries that its wheel brings."""
    site = next(folder.glob("lib/python*/site-packages"))
    sizes: dict[str, float] = {}
    for entry in site.iterdir():
        name = entry.name.split(".")[0].lstrip("_").removesuffix("-")
        size = megabytes(entry) if entry.is_dir() else entry.stat().st_size / 1e6
        sizes[name] = sizes.get(name, 0) + size
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:12]:
        print(f"  {name:<20} {size:6.0f}")


if __name__ == "__main__":
    main()
    sys.exit(0)
