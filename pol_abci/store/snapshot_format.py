"""Snapshots as they go from node to node, format 1; docs/protocol.md section 12. No I/O.

    content    each entry of the state, by bucket and then by key:
                   u16 length of key ‖ key ‖ u32 length of payload ‖ payload
               u16 zero
               the canonical bytes of the head's weights, to the end
    chunks     the content, cut every 2 MiB
    metadata   s_0 of the chain ‖ SHA-256 of each chunk

Nothing in it depends on the node that made it. A reader believes nothing of it either: who has
read all of a content knows the app hash that it leads to.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.rules.merkle import HASH_BYTES
from pol_abci.store import layout
from pol_abci.store.errors import WrongSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SNAPSHOT_FORMAT = 1
SNAPSHOT_CHUNK_BYTES = 2 * 2**20
"""CometBFT's peers carry up to 16 MB in a message, but its gRPC no more than 4 MiB."""
MAX_SNAPSHOT_CHUNKS = 2_048
"""4 GiB: what a stranger can make a joining node fetch before it finds out."""
MAX_PAYLOAD_BYTES = 2**24
"""Of an entry. The largest record there is, 10,000 validators, has some 400 kB."""

_KEY_LENGTH = struct.Struct(">H")
_PAYLOAD_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a snapshot before its chunks: its chain's s_0, and the chunks' hashes."""

    first_seed: bytes
    chunk_hashes: tuple[bytes, ...]

    def encode(self) -> bytes:
        """One after the other, 32 bytes each."""
        return self.first_seed + b"".join(self.chunk_hashes)

    @property
    def hash(self) -> bytes:
        """What names the snapshot among those of its height."""
        return hashlib.sha256(self.encode()).digest()

    @classmethod
    def decode(cls, encoded: bytes) -> Metadata:
        """Read what `encode` wrote.

        Raises
        ------
        WrongSnapshot
            For a length that metadata can't have.
        """
        count, rest = divmod(len(encoded), HASH_BYTES)
        if rest or not 1 <= count - 1 <= MAX_SNAPSHOT_CHUNKS:
            raise WrongSnapshot(
                f"metadata are a seed and the hashes of 1 to {MAX_SNAPSHOT_CHUNKS} chunks, "
                f"not {len(encoded)} bytes"
            )
        first_seed, *hashes = (
            encoded[start : start + HASH_BYTES] for start in range(0, len(encoded), HASH_BYTES)
        )
        return cls(first_seed, tuple(hashes))


def encode_content(
    entries: Iterable[tuple[bytes, bytes]], weights: Iterable[bytes]
) -> Iterator[bytes]:
    """The content of a snapshot, in pieces of any length.

    `entries` are keys and payloads by bucket and then by key, `weights` their bytes in pieces.
    """
    for key, payload in entries:
        yield _KEY_LENGTH.pack(len(key)) + key + _PAYLOAD_LENGTH.pack(len(payload)) + payload
    yield _KEY_LENGTH.pack(0)
    yield from weights


def cut_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A content's chunks; the last one is what is left, and never empty."""
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        while len(chunk) > SNAPSHOT_CHUNK_BYTES:
            yield bytes(chunk[:SNAPSHOT_CHUNK_BYTES])
            del chunk[:SNAPSHOT_CHUNK_BYTES]
    yield bytes(chunk)


class ContentReader:
    """Reads a content from its chunks in order, holding little more than one of them.

    Entries are to be read to their end before the weights.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._start = 0  # of what is not read yet

    def read_entries(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Where each entry lies in a store, its key and its payload, in the order of the first.

        Raises
        ------
        WrongSnapshot
            For a malformed entry, or one that does not follow the one before it.
        """
        before = b""
        while key_bytes := self._read_length(_KEY_LENGTH):
            if key_bytes > layout.MAX_STATE_KEY_BYTES:
                raise WrongSnapshot(f"a snapshot has a key of {key_bytes} bytes")
            key = self._read(key_bytes)
            payload_bytes = self._read_length(_PAYLOAD_LENGTH)
            if payload_bytes > MAX_PAYLOAD_BYTES:
                raise WrongSnapshot(f"a snapshot has an entry of {payload_bytes} bytes")
            payload = self._read(payload_bytes)
            place = layout.encode_state_key(key)
            if place <= before:
                raise WrongSnapshot("the entries of a snapshot are not in order")
            before = place
            yield place, key, payload

    def read_weights(self, piece_bytes: int) -> Iterator[bytes]:
        """What follows the entries, in pieces of this length and a last one of what is left."""
        while piece := self._read_at_most(piece_bytes):
            yield piece

    def _read_length(self, form: struct.Struct) -> int:
        (length,) = form.unpack(self._read(form.size))
        assert isinstance(length, int)
        return length

    def _read(self, count: int) -> bytes:
        found = self._read_at_most(count)
        if len(found) < count:
            raise WrongSnapshot("a snapshot ends in the middle of its entries")
        return found

    def _read_at_most(self, count: int) -> bytes:
        end = self._start + count
        if end > len(self._buffer):
            kept = [self._buffer[self._start :]]
            missing = count - len(kept[0])
            while missing > 0 and (chunk := next(self._chunks, None)) is not None:
                kept.append(chunk)
                missing -= len(chunk)
            self._buffer, self._start, end = b"".join(kept), 0, count
        found = self._buffer[self._start : end]
        self._start = end
        return found
