from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.storage.frames import HEADER, MAGIC, EventRefused, decode_segment, encode_frame, moment

from .builders import NOON, a_label, a_prediction, minutes

HEAD = HEADER.pack(MAGIC, 0)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.none() | texts | st.floats(allow_nan=False) | st.booleans() | st.integers(-(2**63), 2**63 - 1)


@given(features=st.none() | st.dictionaries(texts, values), unit=texts, answer=st.none() | st.floats(allow_nan=False))
def test_what_is_written_is_what_is_read(features, unit, answer):
    event = a_prediction(unit=unit, features=features, answer=answer)
    label = a_label(value=answer, source=unit)
    assert decode_segment(HEAD + encode_frame(event) + encode_frame(label)).events == (event, label)


def test_a_segment_cut_at_any_byte_gives_the_whole_frames_before_the_cut():
    frames = [encode_frame(a_prediction(f"p{i}")) for i in range(3)]
    whole = HEAD + b"".join(frames)
    for cut in range(len(HEAD), len(whole)):
        read = decode_segment(whole[:cut])
        kept = sum(len(HEAD) + sum(map(len, frames[: i + 1])) <= cut for i in range(3))
        assert [event.id for event in read.events] == [f"p{i}" for i in range(kept)]
        assert not read.rejects
        assert read.torn == cut - len(HEAD) - sum(map(len, frames[:kept]))


def test_zeros_at_the_end_are_a_torn_tail():
    read = decode_segment(HEAD + encode_frame(a_prediction()) + bytes(4096))
    assert (len(read.events), read.rejects, read.torn) == (1, (), 4096)


def test_damage_before_the_end_is_set_aside_with_everything_after_it():
    first, second, third = (encode_frame(a_prediction(f"p{i}")) for i in range(3))
    damaged = bytearray(second)
    damaged[20] ^= 1
    read = decode_segment(HEAD + first + damaged + third)
    assert [event.id for event in read.events] == ["p0"]
    assert [(reject.reason, reject.content) for reject in read.rejects] == [
        ("the checksum does not match", bytes(damaged + third))
    ]


def test_a_frame_that_is_no_event_is_set_aside_alone():
    import struct
    from zlib import crc32

    body = msgspec.msgpack.encode(["no such event", 1])
    stranger = struct.pack("<II", len(body), crc32(body)) + body
    read = decode_segment(HEAD + stranger + encode_frame(a_prediction()))
    assert len(read.events) == 1
    assert [reject.content for reject in read.rejects] == [body]


def test_a_file_of_another_kind_is_set_aside_whole():
    assert decode_segment(b"PAR1" + bytes(100)).rejects[0].content == b"PAR1" + bytes(100)


@pytest.mark.parametrize("unit", ["\ud800", "x" * (17 * 2**20)], ids=["half a surrogate pair", "too long"])
def test_what_cannot_be_written_is_refused_when_it_is_given(unit):
    with pytest.raises(EventRefused):
        encode_frame(a_prediction(unit=unit))


def test_a_reader_may_expect_feedback_from_when_it_was_received_on():
    assert moment(a_label(at=NOON, received=minutes(5))) == moment(a_prediction(at=minutes(5)))


def test_a_frame_that_was_written_in_part_and_then_zeros_are_a_torn_tail():
    """What a power cut leaves of a file that had grown: the frames before stay, the rest was never acknowledged."""
    whole, cut = encode_frame(a_prediction("p1")), encode_frame(a_prediction("p2", features={"carrier": "UA"}))
    for kept in range(len(cut)):
        tail = cut[:kept] + bytes(4096 - kept)
        read = decode_segment(HEAD + whole + tail)
        assert (len(read.events), read.rejects, read.torn) == (1, (), 4096)
