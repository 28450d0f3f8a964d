"""Proofs of entries against the app hash, and of their absence; protocol section 12.

A proof is a list of CometBFT's ProofOps from the leaf up: entry in bucket, bucket among buckets
(its key empty), store beneath the app hash; for weights, chunk in store and store. Each is of
type "simple:v", so the stock light client verifies the stored value under the path
`/store/<name>/key`. It cannot verify absence; there the first op is of type "pol:absent" and
carries all leaves of the bucket that would hold the key, one after the other.

A proof's `total` is covered by no hash, but what it proves does not depend on it: a leaf's hash
covers the key, and no inner node can stand for a leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.rules.errors import PolError
from pol_abci.rules.merkle import (
    BUCKETS,
    HASH_BYTES,
    STATE_STORE,
    WEIGHTS_STORE,
    bucket_of,
    compute_aunts,
    compute_bucket_leaves,
    compute_leaf,
    compute_root,
    encode_chunk_key,
    encode_uvarint,
    encode_value,
    hash_inner,
    hash_leaf,
    hash_store,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

VALUE_OP = "simple:v"
ABSENCE_OP = "pol:absent"

_STORES = (STATE_STORE, WEIGHTS_STORE)
_MAX_UVARINT_BYTES = 9
"""Of a non-negative int64, as protobuf has it."""


class InvalidProof(PolError):
    """A proof that does not prove what was asked; do not trust the node that gave it."""


@dataclass(frozen=True, slots=True)
class ProofOp:
    """One level of a proof: the fields of CometBFT's message of the same name."""

    type: str
    key: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class _Membership:
    """That a leaf is one of `total`: CometBFT's crypto.Proof."""

    total: int
    index: int
    leaf_hash: bytes
    aunts: tuple[bytes, ...]


def prove_state_entry(
    key: bytes,
    entries: Sequence[tuple[bytes, bytes]],
    bucket_aunts: Sequence[bytes],
    weights_root: bytes,
) -> list[ProofOp]:
    """Proof of what the state holds under `key`: its payload, or nothing.

    `entries` are the keys and payloads of the key's bucket, sorted by key; `bucket_aunts` is
    `BucketTree.prove(bucket_of(key))`.
    """
    leaves = compute_bucket_leaves(entries)
    position = next((i for i, (entry_key, _) in enumerate(entries) if entry_key == key), None)
    if position is None:
        first = ProofOp(ABSENCE_OP, key, b"".join(leaves))
    else:
        first = _prove_leaf(key, [hash_leaf(leaf) for leaf in leaves], position)
    bucket_leaf = hash_leaf(compute_leaf(b"", compute_root(leaves)))
    bucket = _Membership(BUCKETS, bucket_of(key), bucket_leaf, tuple(bucket_aunts))
    state_root = _compute_root_from_aunts(bucket)
    return [first, _encode_op(b"", bucket), _prove_store(STATE_STORE, state_root, weights_root)]


def prove_weights_chunk(
    index: int, chunk_hashes: Sequence[bytes], state_root: bytes
) -> list[ProofOp]:
    """Proof of chunk `index` of the head's weights.

    `chunk_hashes` is `compute_chunk_hashes` of the weights.
    """
    chunk = _prove_leaf(encode_chunk_key(index), chunk_hashes, index)
    weights_root = _compute_root_from_aunts(_decode_op(chunk))
    return [chunk, _prove_store(WEIGHTS_STORE, state_root, weights_root)]


def verify_state(
    ops: Sequence[ProofOp], app_hash: bytes, key: bytes, payload: bytes | None
) -> None:
    """Check that the state of `app_hash` holds `payload` under `key`, or with None nothing.

    Raises
    ------
    InvalidProof
        When the ops do not prove just that.
    """
    if len(ops) != 3:  # noqa: PLR2004  # entry, bucket, store
        raise InvalidProof(f"a proof of state has 3 levels, this one {len(ops)}")
    entry, bucket, store = ops
    if payload is None:
        root = _verify_absence(entry, key)
    else:
        root = _verify_value(entry, key, encode_value(payload))
    state_root = _verify_value(bucket, b"", root, index=bucket_of(key), total=BUCKETS)
    _verify_store(store, STATE_STORE, state_root, app_hash)


def verify_chunk(ops: Sequence[ProofOp], app_hash: bytes, index: int, chunk: bytes) -> None:
    """Check that `chunk` is chunk `index` of the weights that `app_hash` commits to.

    Raises
    ------
    InvalidProof
        When the ops do not prove just that.
    """
    if len(ops) != 2:  # noqa: PLR2004  # chunk, store
        raise InvalidProof(f"a proof of weights has 2 levels, this one {len(ops)}")
    root = _verify_value(ops[0], encode_chunk_key(index), encode_value(chunk), index=index)
    _verify_store(ops[1], WEIGHTS_STORE, root, app_hash)


def _prove_leaf(key: bytes, hashes: Sequence[bytes], index: int) -> ProofOp:
    """Op for leaf `index` of those with these hashes."""
    aunts = tuple(compute_aunts(hashes, index))
    return _encode_op(key, _Membership(len(hashes), index, hashes[index], aunts))


def _prove_store(name: bytes, state_root: bytes, weights_root: bytes) -> ProofOp:
    """Op for a store beneath the app hash."""
    hashes = [hash_store(STATE_STORE, state_root), hash_store(WEIGHTS_STORE, weights_root)]
    return _prove_leaf(name, hashes, _STORES.index(name))


def _verify_value(
    op: ProofOp, key: bytes, value: bytes, *, index: int | None = None, total: int | None = None
) -> bytes:
    """Root of the tree in which `op` proves `value` under `key`, at a place if one is given."""
    if op.type != VALUE_OP or op.key != key:
        raise InvalidProof("the proof is of another key, or not of a value")
    proof = _decode_op(op)
    if index not in (None, proof.index) or total not in (None, proof.total):
        raise InvalidProof("the proof is of another place in the tree")
    if proof.leaf_hash != hash_leaf(compute_leaf(key, value)):
        raise InvalidProof("the proof is of another value")
    return _compute_root_from_aunts(proof)


def _verify_absence(op: ProofOp, key: bytes) -> bytes:
    """Root of the bucket whose leaves `op` lists, which must not have `key` among them."""
    if op.type != ABSENCE_OP or op.key != key:
        raise InvalidProof("the proof is of another key, or not of absence")
    leaves = []
    rest = op.data
    while rest:
        length, size = _decode_uvarint(rest, 0)
        # Cut wrongly, or not well formed, the leaves are not the bucket's and give another root.
        leaf = rest[: size + length + 1 + HASH_BYTES]
        if leaf[size : size + length] == key:
            raise InvalidProof("the key that should be absent is in the bucket")
        leaves.append(leaf)
        rest = rest[len(leaf) :]
    return compute_root(leaves)


def _verify_store(op: ProofOp, name: bytes, root: bytes, app_hash: bytes) -> None:
    """Check the topmost level."""
    index = _STORES.index(name)
    if _verify_value(op, name, root, index=index, total=len(_STORES)) != app_hash:
        raise InvalidProof("the proof does not lead to the app hash of the trusted header")


def _compute_root_from_aunts(proof: _Membership) -> bytes:
    """Root that a leaf and its aunts lead to, by the shape of a tree of `total` leaves."""
    if proof.index >= proof.total:
        raise InvalidProof("the proof is of a leaf behind the last one")
    node, index, last = proof.leaf_hash, proof.index, proof.total - 1
    aunts = iter(proof.aunts)
    while last:
        # The last node of a level has no sibling when its index is even.
        if index % 2 or index < last:
            aunt = next(aunts, None)
            if aunt is None:
                raise InvalidProof("the proof has too few hashes")
            node = hash_inner(aunt, node) if index % 2 else hash_inner(node, aunt)
        index >>= 1
        last >>= 1
    if next(aunts, None) is not None:
        raise InvalidProof("the proof has too many hashes")
    return node


# CometBFT's crypto.ValueOp {bytes key = 1; Proof proof = 2} and crypto.Proof {int64 total = 1;
# int64 index = 2; bytes leaf_hash = 3; repeated bytes aunts = 4} in protobuf's encoding. By hand,
# because a verifier wants one encoding for each proof, and a generated decoder takes many.


def _encode_op(key: bytes, proof: _Membership) -> ProofOp:
    """`proof` as a "simple:v" op."""
    fields = [_encode_integer(1, proof.total), _encode_integer(2, proof.index)]
    fields.append(_encode_bytes(3, proof.leaf_hash))
    fields.extend(_encode_bytes(4, aunt) for aunt in proof.aunts)
    message = _encode_bytes(1, key) if key else b""
    return ProofOp(VALUE_OP, key, message + _encode_bytes(2, b"".join(fields)))


def _encode_integer(number: int, value: int) -> bytes:
    """Varint field; protobuf leaves zero out."""
    return bytes((number << 3,)) + encode_uvarint(value) if value else b""


def _encode_bytes(number: int, value: bytes) -> bytes:
    """Length-delimited field."""
    return bytes((number << 3 | 2,)) + encode_uvarint(len(value)) + value


def _decode_op(op: ProofOp) -> _Membership:
    """The proof in a "simple:v" op; whatever `_encode_op` would not write is refused."""
    start = len(_encode_bytes(1, op.key)) if op.key else 0
    _, position = _decode_uvarint(op.data, start + 1)
    total, position = _decode_integer(1, op.data, position)
    index, position = _decode_integer(2, op.data, position)
    hashes = tuple(
        op.data[hash_start + 2 : hash_start + 2 + HASH_BYTES]
        for hash_start in range(position, len(op.data), 2 + HASH_BYTES)
    )
    # Positions were guessed as if all were well formed: encoding again shows whether it was.
    proof = _Membership(total, index, hashes[0] if hashes else b"", hashes[1:])
    if _encode_op(op.key, proof) != op:
        raise InvalidProof("the data of the proof is not well formed")
    return proof


def _decode_integer(number: int, data: bytes, position: int) -> tuple[int, int]:
    """Value of a varint field at `position`, 0 when another field is there, and where it ends."""
    if data[position : position + 1] != bytes((number << 3,)):
        return 0, position
    return _decode_uvarint(data, position + 1)


def _decode_uvarint(data: bytes, position: int) -> tuple[int, int]:
    """An integer below 2^63 at `position`, and where it ends."""
    number = 0
    for i, byte in enumerate(data[position : position + _MAX_UVARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:  # noqa: PLR2004  # no further byte follows
            return number, position + i + 1
    raise InvalidProof("an integer in the proof is cut off or too large")
