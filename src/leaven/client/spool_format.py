"""How is a report written into a spool file, and how is a file read back whole, torn or damaged?

One report per line: eight hex digits of the CRC-32 of what follows, a space, JSON. A line that a crash cut off has no
end or no right checksum; a damaged one costs itself and not its neighbours, since JSON holds no line ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

import msgspec

from leaven.client.requests import SentReport

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SentReport).decode


@dataclass(frozen=True, slots=True)
class SpoolContent:
    """What a spool file held."""

    reports: tuple[SentReport, ...]
    damaged: tuple[bytes, ...]  # lines that are no report
    torn: int  # bytes of an unfinished line at the end; nobody was told that it is kept


def to_lines(reports: Iterable[SentReport]) -> bytes:
    """Return `reports` as lines of a spool file."""
    return b"".join(_line(_encode(report)) for report in reports)


def _line(body: bytes) -> bytes:
    return b"%08x %b\n" % (crc32(body), body)


def from_lines(content: bytes) -> SpoolContent:
    """Return what a spool file holds, in order."""
    *lines, tail = content.split(b"\n")
    reports: list[SentReport] = []
    damaged: list[bytes] = []
    for line in lines:
        report = _report(line)
        if report is None:
            damaged.append(line)
        else:
            reports.append(report)
    return SpoolContent(tuple(reports), tuple(damaged), len(tail))


def _report(line: bytes) -> SentReport | None:
    if len(line) < 10 or line[:9] != b"%08x " % crc32(line[9:]):
        return None
    try:
        return _decode(line[9:])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class SetAside(msgspec.Struct, frozen=True):
    """A report that the gateway will never take, or a line that is none, with the reason; one line of JSON."""

    reason: str
    status: int | None  # None: it never reached the gateway
    report: SentReport | str


def set_aside_lines(entries: Iterable[SetAside]) -> bytes:
    """Return `entries` as lines of JSON, for people and programs to read."""
    return b"".join(_encode(entry) + b"\n" for entry in entries)
