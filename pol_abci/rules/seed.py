"""Tagged hashes, the streams drawn from them, and the chain of seeds; protocol sections 1, 7, 9.

Nobody chooses what comes out of here: a seed depends on the walk before it, a batch on the seed,
and the requirements on the last state of the walk.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pol_abci.rules.params import Address

Field = bytes | memoryview | int
"""What a tagged hash covers; an integer is 0 <= value < 2^64 and takes 8 bytes."""

WORD_BYTES = 8
_WORDS = 2 ** (8 * WORD_BYTES)
_FIRST_BLOCK_BYTES = 1_024


def _encode_fields(tag: str, fields: tuple[Field, ...]) -> bytes:
    """`u8 len(tag) ‖ tag`, then `u32 len ‖ bytes` of each field."""
    name = tag.encode("ascii")
    parts: list[bytes | memoryview] = [len(name).to_bytes(1, "big"), name]
    for field in fields:
        value = field.to_bytes(WORD_BYTES, "big") if isinstance(field, int) else field
        parts.append(len(value).to_bytes(4, "big"))
        parts.append(value)
    return b"".join(parts)


def hash_fields(tag: str, *fields: Field) -> bytes:
    """H(tag; fields…) of protocol section 1, 32 bytes.

    Raises
    ------
    OverflowError
        For an integer outside of 64 bits, a bug of the caller.
    """
    return hashlib.sha256(_encode_fields(tag, fields)).digest()


class Stream:
    """An endless sequence of bytes that a tag and fields determine; protocol section 1."""

    def __init__(self, tag: str, *fields: Field) -> None:
        self._shake = hashlib.shake_256(_encode_fields(tag, fields))
        self._bytes = b""
        self._position = 0

    def next_bytes(self, count: int) -> bytes:
        """The next `count` bytes as they are."""
        start, end = self._position, self._position + count
        if end > len(self._bytes):
            # hashlib squeezes from the start each time, so each block doubles what there was.
            size = max(end, 2 * len(self._bytes), _FIRST_BLOCK_BYTES)
            self._bytes = self._shake.digest(size)
        self._position = end
        return self._bytes[start:end]

    def uniform(self, bound: int) -> int:
        """An integer of 0 <= value < bound, each as likely; 1 <= bound <= 2^64.

        Raises
        ------
        ValueError
            For a bound that no word can serve, a bug of the caller.
        """
        if not 1 <= bound <= _WORDS:
            raise ValueError(f"cannot draw below {bound}: give 1 to 2^64")
        limit = _WORDS - _WORDS % bound
        while True:
            word = int.from_bytes(self.next_bytes(WORD_BYTES), "big")
            if word < limit:
                return word % bound

    def draw_distinct(self, count: int, bound: int) -> list[int]:
        """`count` different integers below `bound`, in the order drawn.

        Raises
        ------
        ValueError
            When there are not that many.
        """
        if count > bound:
            raise ValueError(f"cannot draw {count} different values of {bound}")
        drawn: dict[int, None] = {}
        while len(drawn) < count:
            drawn.setdefault(self.uniform(bound))
        return list(drawn)


def compute_chain_seed(chain_id: str) -> bytes:
    """Seed of the first weights W_0. Not s_0, which depends on their root."""
    return hash_fields("chain-seed", chain_id.encode())


def compute_first_seed(chain_id: str, genesis_digest: bytes) -> bytes:
    """s_0 of protocol section 9."""
    return hash_fields("seed-0", chain_id.encode(), genesis_digest)


def compute_next_seed(
    seed: bytes, address: Address, nonce: int, steps: int, weights_root: bytes
) -> bytes:
    """s_{n+1} of protocol section 9, from s_n and the accepted proof.

    Nothing enters that can be changed more cheaply than by another walk.
    """
    return hash_fields("seed", seed, address, nonce, steps, weights_root)


def compute_next_paper_seed(
    seed: bytes, address: Address, batch: bytes, weights_root: bytes
) -> bytes:
    """s_{n+1} of protocol section 14, from s_n and the accepted proof; `batch` is P packed."""
    return hash_fields("paper-seed", seed, address, batch, weights_root)


def compute_first_probe(seed: bytes, first_layer: bytes) -> bytes:
    """probe_0 from s_n and the bytes of the first layer's weights in W_n; protocol section 4."""
    return hash_fields("probe", seed, first_layer)


def compute_probe(previous: bytes, first_layer: bytes) -> bytes:
    """probe_t from probe_{t-1} and the bytes of the first layer's weights in W^(t)."""
    return hash_fields("probe", previous, first_layer)


def _has_zero_bits(digest: bytes, count: int) -> bool:
    """Whether `digest` begins with `count` zero bits."""
    return int.from_bytes(digest, "big") >> (8 * len(digest) - count) == 0


def is_stamped(
    seed: bytes, address: Address, body_with_stamp_0: bytes, stamp: int, stamp_bits: int
) -> bool:
    """Whether H("stamp"; s_n, address, body with stamp = 0, stamp) begins with enough zero bits.

    Protocol section 7; `seed` is s_n of the generation that the proof extends. It is covered: else
    stamps could be made before that generation is there. So is the address: else one stamp would
    serve any number of keys.
    """
    digest = hash_fields("stamp", seed, address, body_with_stamp_0, stamp)
    return _has_zero_bits(digest, stamp_bits)


def find_stamp(
    seed: bytes, address: Address, body_with_stamp_0: bytes, stamp_bits: int, start: int = 0
) -> int:
    """The first stamp from `start` on that `is_stamped`; takes 2^stamp_bits hashes on average."""
    prefix = hashlib.sha256(_encode_fields("stamp", (seed, address, body_with_stamp_0)))
    prefix.update(WORD_BYTES.to_bytes(4, "big"))
    stamp = start
    while True:
        attempt = prefix.copy()
        attempt.update(stamp.to_bytes(WORD_BYTES, "big"))
        if _has_zero_bits(attempt.digest(), stamp_bits):
            return stamp
        stamp += 1
