"""Which version of each package do the supported Pythons agree on?

For each Python: `pip install --dry-run --ignore-installed --report REPORT ".[dev,demo]"`, then
`python .ci/constraints.py 3.11=REPORT 3.12=REPORT … > constraints.txt`, oldest Python first.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HEAD = """\
# Versions that are known to work together, for every supported Python; made by .ci/constraints.py.
# Not needed by those who depend on Leaven, only for the same environment everywhere (make setup, .ci/run).
pyarrow<26
"""


def versions(report: Path) -> dict[str, str]:
    """Return version by normalised name from a report of pip."""
    found = (entry["metadata"] for entry in json.loads(report.read_text())["install"])
    return {re.sub(r"[-_.]+", "-", meta["name"]).lower(): meta["version"] for meta in found}


def lines(by_python: dict[str, dict[str, str]]) -> list[str]:
    """Return one line per name, or one per distinct version where the Pythons differ."""
    out = []
    for name in sorted(set().union(*by_python.values()) - {"leaven"}):
        pythons: dict[str, list[str]] = {}
        for python, found in by_python.items():
            if name in found:
                pythons.setdefault(found[name], []).append(python)
        for version, those in pythons.items():
            out.append(f"{name}=={version}" + (f" ; {_marker(those, list(by_python))}" if len(pythons) > 1 else ""))
    return out


def _marker(those: list[str], all_pythons: list[str]) -> str:
    """The newest of the Pythons speaks for those that are newer still."""
    if those == all_pythons[-len(those) :]:
        return f'python_version >= "{those[0]}"'
    return " or ".join(f'python_version == "{python}"' for python in those)


if __name__ == "__main__":
    reports = dict(argument.split("=", 1) for argument in sys.argv[1:])
    print(HEAD + "\n".join(lines({python: versions(Path(report)) for python, report in reports.items()})))
