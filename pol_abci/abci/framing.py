"""ABCI's socket framing: each message follows its length, an unsigned varint. No I/O.

CometBFT v0.38, spec/abci/abci++_client_server.md. As CometBFT's own reader, ours takes a varint
that is longer than its value needs, up to ten bytes; what it refuses ends the connection.
"""

from __future__ import annotations

from pol_abci.rules.errors import PolError

MAX_FRAME_BYTES = 104_857_600 + 4_194_304
"""The largest block of CometBFT, and room for the votes of its last commit beside it."""
MAX_VARINT_BYTES = 10
"""Of a 64-bit number, seven bits a byte."""
CONTINUES = 0x80
"""Set in each byte of a varint but the last."""


class FramingError(PolError):
    """The stream is not ABCI's framing, or asks for more than this node will hold."""


def encode_varint(number: int) -> bytes:
    """The shortest unsigned varint of `number` >= 0, low bits first."""
    encoded = bytearray()
    while number >= CONTINUES:
        encoded.append(number % CONTINUES | CONTINUES)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_frame(message: bytes) -> bytes:
    """One message as it goes over the wire."""
    return encode_varint(len(message)) + message


class FrameReader:
    """Cuts a stream of bytes into messages.

    Bytes go in by `feed` as they arrive, messages come out of `next_frame` in order. What lies in
    between is kept once; its size is bounded by what is fed before `next_frame` answers None, and
    one frame.

    Parameters
    ----------
    max_frame_bytes
        The longest message that is taken.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._start = 0  # of the first byte not yet given out
        self._fault: FramingError | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream. After a FramingError they are dropped."""
        if self._fault is not None:
            return
        if self._start:  # once a feed, so that many small frames cost one move
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream could end here without tearing a message."""
        return self._start == len(self._buffer)

    def next_frame(self) -> bytes | None:
        """Give the next whole message, or None when more bytes are needed.

        Raises
        ------
        FramingError
            The stream cannot be read on, at this or any later call.
        """
        if self._fault is not None:
            raise self._fault
        try:
            prefix = self._read_length()
        except FramingError as fault:
            self._fault = fault
            self._buffer.clear()
            self._start = 0
            raise
        if prefix is None:
            return None
        length, body = prefix
        if len(self._buffer) - body < length:
            return None
        self._start = body + length
        return bytes(memoryview(self._buffer)[body : self._start])

    def _read_length(self) -> tuple[int, int] | None:
        """The length of the next frame and where its body starts."""
        length = 0
        prefix = self._buffer[self._start : self._start + MAX_VARINT_BYTES]
        for position, byte in enumerate(prefix):
            length |= (byte % CONTINUES) << (7 * position)
            if byte < CONTINUES:
                if length > self._max_frame_bytes:
                    raise FramingError(
                        f"a message of {length} bytes is announced, the limit is "
                        f"{self._max_frame_bytes}: is the peer CometBFT v0.38, and its "
                        "block.max_bytes set?"
                    )
                return length, self._start + position + 1
        if len(prefix) == MAX_VARINT_BYTES:
            raise FramingError(
                f"a length of more than {MAX_VARINT_BYTES} bytes: the peer does not speak "
                "ABCI 2.0's socket protocol"
            )
        return None
