"""How is an event written into a segment, and how is a segment read back whole, torn or damaged?

A segment is a header, then frames: `[u32 length][u32 crc32] msgpack(event)`, little-endian. The header's second half
is filled in when the segment is sealed: the moment of its oldest event, so that nobody has to read the segment for it.
Nothing here is ever unpickled: a frame decodes into one of the two event records or is set aside.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from zlib import crc32

import msgspec

from leaven.errors import LeavenError
from leaven.events.records import Event, FeedbackReceived, PredictionServed

HEADER = struct.Struct("<8sq")  # magic, moment of the oldest event in microseconds (0 while the segment is open)
MAGIC = b"LVNWAL1\n"
LONGEST_FRAME = 16 * 2**20  # a length beyond this is not one that was written here

_FRAME = struct.Struct("<II")
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(PredictionServed | FeedbackReceived)


class EventRefused(LeavenError, ValueError):
    """An event cannot be written down at all, now or later."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"this event cannot be logged: {self.why}. Send text that is valid Unicode and numbers of 64 bits."


@dataclass(frozen=True, slots=True)
class Reject:
    """Bytes of a segment that are no event, with the reason; kept in a quarantine file."""

    offset: int
    reason: str
    content: bytes


@dataclass(frozen=True, slots=True)
class SegmentContent:
    """What a segment held."""

    events: tuple[Event, ...]
    rejects: tuple[Reject, ...]
    torn: int  # bytes of an unfinished frame at the end; nobody was told that it is kept


def encode_frame(event: Event) -> bytes:
    """Return `event` as one frame.

    Raises:
        EventRefused: the event holds what msgpack cannot carry (half a surrogate pair, an integer beyond 64 bits) or
            is longer than 16 MiB.
    """
    try:
        body = _ENCODER.encode(event)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError) as error:
        raise EventRefused(str(error)) from error
    if len(body) > LONGEST_FRAME:
        raise EventRefused(f"it is {len(body)} bytes long, more than {LONGEST_FRAME}")
    return _FRAME.pack(len(body), crc32(body)) + body


def moment(event: Event) -> int:
    """Return the moment, in microseconds, from which on a reader may expect to see `event`."""
    return event.at if isinstance(event, PredictionServed) else event.received_at


def decode_segment(content: bytes) -> SegmentContent:
    """Return the events of a segment, what could not be read, and how much of a tail was cut.

    A frame that ends beyond the end of the segment is a torn tail, and zeros count as such an end: they are what a
    power cut leaves of blocks that were allocated and not written. A frame before that whose checksum is wrong makes
    everything from it on unreadable: its length cannot be trusted. A frame that is whole but no event is set aside
    alone.
    """
    events: list[Event] = []
    rejects: list[Reject] = []
    if len(content) < HEADER.size:
        return SegmentContent((), (), len(content))
    if not content.startswith(MAGIC):
        return SegmentContent((), (Reject(0, "this is no segment of this version of the log", content),), 0)
    offset, end, view = HEADER.size, len(content), memoryview(content)
    while offset + _FRAME.size <= end:
        length, checksum = _FRAME.unpack_from(view, offset)
        start = offset + _FRAME.size
        body = view[start : start + length]
        if length == 0 or crc32(body) != checksum:
            if start + length >= len(content.rstrip(b"\0")):
                break
            rejects.append(Reject(offset, "the checksum does not match", bytes(view[offset:])))
            return SegmentContent(tuple(events), tuple(rejects), 0)
        try:
            events.append(_DECODER.decode(body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            rejects.append(Reject(offset, str(error), bytes(body)))
        offset = start + length
    return SegmentContent(tuple(events), tuple(rejects), end - offset)
