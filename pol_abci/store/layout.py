"""What is in the data file: databases, keys and values of format 2.

    about           "format", "chain", "genesis", "version"
    state           bucket (2 bytes) ‖ key -> entry; a bucket is one range of keys
    buckets         bucket -> root over its entries; only those that are not empty
    chunk-heights   chunk index -> height whose commit wrote the chunk that is valid now
    chunks          chunk index ‖ height -> chunk of the head's weights
    undo            what the last commit overwrote; empty where nothing can be rolled back
    records         generation -> entry: its record, which no root covers

An entry is the hash of its leaf (key, payload) and the payload. So a bucket's root is computed
from the hashes of the entries that stay, and whatever is read of an entry is held against its own.
A changed chunk is written beside the one that it replaces, which the next commit deletes: the
undo of 17 MB of weights costs no more than their heights. Integers are big-endian, indices,
heights and generations 8 bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pol_abci.rules.merkle import HASH_BYTES, bucket_of, hash_entry
from pol_abci.store.environment import MAX_KEY_BYTES

FORMAT = 2

ABOUT = b"about"
STATE = b"state"
BUCKET_ROOTS = b"buckets"
CHUNK_HEIGHTS = b"chunk-heights"
CHUNKS = b"chunks"
UNDO = b"undo"
RECORDS = b"records"
DATABASES = (ABOUT, STATE, BUCKET_ROOTS, CHUNK_HEIGHTS, CHUNKS, UNDO, RECORDS)

FORMAT_KEY = b"format"
CHAIN_KEY = b"chain"
GENESIS_KEY = b"genesis"
VERSION_KEY = b"version"

UNDO_VERSION = b"v"
UNDO_STATE = b"s"
UNDO_CHUNK = b"c"
UNDO_RECORD = b"r"

BUCKET_BYTES = 2
MAX_STATE_KEY_BYTES = MAX_KEY_BYTES - BUCKET_BYTES - len(UNDO_STATE)

_ABSENT = b"\x00"
_PRESENT = b"\x01"


@dataclass(frozen=True, slots=True)
class Commit:
    """Height and app hash of a version of the state; 0 and nothing before the first commit."""

    height: int
    app_hash: bytes

    def encode(self) -> bytes:
        """Both, and a digest of them, because nothing else covers the height."""
        body = encode_integer(self.height) + self.app_hash
        return body + hashlib.sha256(body).digest()

    @classmethod
    def decode(cls, encoded: bytes) -> Commit | None:
        """What `encode` wrote, or None for anything else."""
        body, digest = encoded[:-HASH_BYTES], encoded[-HASH_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        return cls(decode_integer(body[:8]), body[8:])


def encode_integer(value: int) -> bytes:
    """8 bytes."""
    return value.to_bytes(8, "big")


def decode_integer(encoded: bytes) -> int:
    """The integer of any number of bytes."""
    return int.from_bytes(encoded, "big")


def encode_bucket(index: int) -> bytes:
    """The two bytes with which the keys of a bucket's entries begin."""
    return index.to_bytes(BUCKET_BYTES, "big")


def encode_state_key(key: bytes) -> bytes:
    """Where the state entry `key` lies.

    Raises
    ------
    ValueError
        For an empty key, or one that LMDB cannot hold: no key of the rules is either.
    """
    if not 0 < len(key) <= MAX_STATE_KEY_BYTES:
        raise ValueError(f"a state key has 1 to {MAX_STATE_KEY_BYTES} bytes, not {len(key)}")
    return encode_bucket(bucket_of(key)) + key


def encode_entry(key: bytes, payload: bytes) -> bytes:
    """An entry under `key`, which is the state's or a record's own."""
    return hash_entry(key, payload) + payload


def get_leaf_hash(entry: bytes) -> bytes:
    """The hash that an entry carries, not held against its payload."""
    return entry[:HASH_BYTES]


def get_payload(entry: bytes) -> bytes:
    """The payload of an entry, not held against its hash."""
    return entry[HASH_BYTES:]


def encode_chunk_key(index: int, height: int) -> bytes:
    """Where the chunk lies that the commit of `height` wrote."""
    return encode_integer(index) + encode_integer(height)


def encode_optional(value: bytes | None) -> bytes:
    """A value that may be absent."""
    return _ABSENT if value is None else _PRESENT + value


def decode_optional(encoded: bytes) -> bytes | None:
    """What `encode_optional` was given."""
    return encoded[1:] if encoded.startswith(_PRESENT) else None
