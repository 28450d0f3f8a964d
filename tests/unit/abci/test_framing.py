from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol_abci.abci.framing import (
    MAX_FRAME_BYTES,
    FrameReader,
    FramingError,
    encode_frame,
    encode_varint,
)


def read_all(pieces: list[bytes], max_frame_bytes: int = MAX_FRAME_BYTES) -> list[bytes | str]:
    """Frames in order, and the word "fault" where the stream breaks."""
    reader = FrameReader(max_frame_bytes)
    frames: list[bytes | str] = []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (frame := reader.next_frame()) is not None:
                frames.append(frame)
        except FramingError:
            return [*frames, "fault"]
    return frames


def cut(stream: bytes, positions: list[int]) -> list[bytes]:
    edges = [0, *sorted(position % (len(stream) + 1) for position in positions), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**63, "80" * 9 + "01")],
)
def test_varint_is_that_of_protobuf(number: int, encoded: str) -> None:
    assert encode_varint(number).hex() == encoded


@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(0, 10_000)))
def test_any_split_of_a_stream_gives_its_messages(
    messages: list[bytes], positions: list[int]
) -> None:
    stream = b"".join(map(encode_frame, messages))
    assert read_all(cut(stream, positions)) == messages


@given(st.binary(max_size=400), st.lists(st.integers(0, 400)), st.integers(0, 64))
def test_any_split_of_garbage_ends_alike(
    stream: bytes, positions: list[int], max_frame_bytes: int
) -> None:
    whole = read_all([stream], max_frame_bytes)
    assert read_all(cut(stream, positions), max_frame_bytes) == whole
    assert all(len(frame) <= max_frame_bytes for frame in whole if isinstance(frame, bytes))


@given(st.binary(min_size=11, max_size=200).map(lambda tail: b"\xff" * 10 + tail))
def test_an_endless_length_is_refused_at_ten_bytes(stream: bytes) -> None:
    assert read_all([stream[:9]]) == []
    assert read_all([stream]) == ["fault"]


def test_a_length_longer_than_it_needs_to_be_is_taken_as_cometbft_takes_it() -> None:
    assert read_all([b"\x82\x80\x00ab"]) == [b"ab"]
    assert read_all([b"\x82" + b"\x80" * 8 + b"\x00ab"]) == [b"ab"]


def test_the_limit_itself_is_allowed_and_one_more_is_refused_before_its_bytes_arrive() -> None:
    assert read_all([encode_frame(b"x" * 10)], 10) == [b"x" * 10]
    assert read_all([encode_varint(11)], 10) == ["fault"]
    assert read_all([encode_varint(2**64 - 1)]) == ["fault"]


def test_messages_before_a_fault_are_not_lost() -> None:
    assert read_all([encode_frame(b"one") + b"\xff" * 10]) == [b"one", "fault"]


def test_a_broken_reader_stays_broken_and_keeps_nothing() -> None:
    reader = FrameReader(10)
    reader.feed(encode_varint(11) + b"x" * 1_000)
    for _ in range(2):
        with pytest.raises(FramingError, match="the limit is 10"):
            reader.next_frame()
        reader.feed(b"more")
    assert reader.is_between_frames


def test_a_torn_message_is_told_from_a_finished_stream() -> None:
    reader = FrameReader()
    assert reader.is_between_frames
    reader.feed(encode_frame(b"whole") + b"\x05to")
    assert reader.next_frame() == b"whole"
    assert reader.next_frame() is None
    assert not reader.is_between_frames
    reader.feed(b"rn!")
    assert reader.next_frame() == b"torn!"
    assert reader.is_between_frames


def test_a_large_message_in_small_pieces_is_joined() -> None:
    message = bytes(range(256)) * 4_096
    stream = encode_frame(message)
    pieces = [stream[start : start + 1_000] for start in range(0, len(stream), 1_000)]
    assert read_all(pieces) == [message]
