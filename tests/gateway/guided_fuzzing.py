"""Fuzzes a reader, guided by which of our code it reaches.

python -m tests.gateway.guided_fuzzing TARGET CORPUS [options of libFuzzer]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["leaven.gateway"]):
    from tests.gateway.fuzzing import fuzzed
from tests.gateway.installations import a_flight


def main() -> None:
    """Fuzz until time is up, or something is found."""
    target, corpus = sys.argv[1], Path(sys.argv[2])
    corpus.mkdir(exist_ok=True)
    seeds = (a_flight(), {"rows": [{"carrier": "AA", "dep_hour": 8}]}, {"loop": "flights", "name": "y", "unit": "u"})
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(json.dumps(seed).encode())

    def one(data: bytes) -> None:
        fuzzed(target, data, str(len(data) // 2) if target == "infer" and data[-1:] < b"\x40" else None)

    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
