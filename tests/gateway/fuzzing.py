"""What the fuzzers call: each reader of bodies, where any exception that is no refusal comes through.

python -m tests.gateway.fuzzing TARGET CORPUS [options of libFuzzer]     coverage-guided, where atheris is installed
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from leaven.errors import LeavenError
from leaven.gateway import protocol
from leaven.gateway.feedback import read_feedback
from leaven.gateway.grpc.conversion import infer_request
from leaven.gateway.grpc.messages import message
from leaven.gateway.rows import read_rows
from leaven.gateway.tabular import _decoder, _units, rows_of
from tests.gateway.installations import FLIGHTS, a_flight

_Message = message("ModelInferRequest")


def _infer(body: bytes, length: str | None) -> None:
    request = protocol.parse_infer(body, length)
    protocol.check_outputs(request)
    read_rows(request, FLIGHTS, unit=None)


def _rows(body: bytes, _: str | None) -> None:
    written = protocol.decode_json(_decoder.decode, body)
    rows_of(written.rows, FLIGHTS, units=_units(written, FLIGHTS, None))


def _feedback(body: bytes, _: str | None) -> None:
    read_feedback(body, loops=["flights"], now=1_700_000_000_000_000, new_id=lambda: "id")


def _packed(body: bytes, encoding: str | None) -> None:
    plain = protocol.inflate(body, encoding or "gzip", limit=100_000)
    assert len(plain) <= 100_000


def _grpc(body: bytes, _: str | None) -> None:
    from leaven.gateway.grpc.service import _decoded

    request = infer_request(_decoded(_Message, body))
    protocol.check_outputs(request)
    read_rows(request, FLIGHTS, unit=None)


TARGETS = {"infer": _infer, "rows": _rows, "feedback": _feedback, "packed": _packed, "grpc": _grpc}


def fuzzed(target: str, body: bytes, more: str | None = None) -> None:
    """Let a reader read; refusals are what is wanted."""
    try:
        TARGETS[target](body, more)
    except LeavenError as refusal:
        said = str(refusal)
    else:
        return
    assert 20 < len(said) < 2000, said  # a sentence, and not the body come back


def _seeds(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, seed in enumerate((a_flight(), {"rows": [{"carrier": "AA", "dep_hour": 8}]},
                                   {"loop": "flights", "name": "y", "unit": "u", "value": 1})):  # fmt: skip
        (folder / f"seed{number}").write_bytes(json.dumps(seed).encode())
    (folder / "packed").write_bytes(msgspec.msgpack.encode(a_flight()))


def main() -> None:
    """Fuzz until time is up, or something is found."""
    import atheris

    target, corpus = sys.argv[1], Path(sys.argv[2])
    _seeds(corpus)
    atheris.instrument_all()

    def one(data: bytes) -> None:
        length = len(data) // 2 if target == "infer" and data[-1:] < b"\x40" else None
        fuzzed(target, data, None if length is None else str(length))

    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
