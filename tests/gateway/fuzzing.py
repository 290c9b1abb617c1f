"""What the fuzzers call: each reader of bodies, where any exception that is no refusal comes through."""

from __future__ import annotations

from leaven.errors import LeavenError
from leaven.gateway import protocol
from leaven.gateway.feedback import read_feedback
from leaven.gateway.grpc.conversion import infer_request
from leaven.gateway.grpc.messages import message
from leaven.gateway.rows import read_rows
from leaven.gateway.tabular import _decoder, _units, rows_of
from tests.gateway.installations import FLIGHTS

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
