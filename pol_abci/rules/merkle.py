"""The trees of the authenticated state, protocol section 12.

    app hash                    over the two stores "state" and "weights"
     + state                    over 65,536 buckets, by the first two bytes of SHA-256(key)
     |  + bucket                over its entries, sorted by key
     + weights                  over 64 KiB chunks of the model's bytes

All are RFC 6962 trees whose leaves are CometBFT's `simple:v` pairs, so that its own light client
verifies them. A block costs 18 hashes for each bucket that it changes, however many accounts
there are. What proves an entry is in `rules.merkle_proofs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HASH_BYTES = 32
BUCKETS = 65_536
CHUNK_BYTES = 65_536
STATE_STORE = b"state"
WEIGHTS_STORE = b"weights"

_PLAIN = b"\x01"
_LENGTHENED = b"\x02\x00"
_DIGEST_LENGTH = bytes((HASH_BYTES,))


def hash_leaf(leaf: bytes) -> bytes:
    """RFC 6962's hash of a leaf; the prefix keeps leaves and inner nodes apart."""
    return sha256(b"\x00" + leaf).digest()


def hash_inner(left: bytes, right: bytes) -> bytes:
    """RFC 6962's hash of an inner node from its children's hashes."""
    return sha256(b"\x01" + left + right).digest()


EMPTY_ROOT = sha256(b"").digest()
"""Root of a tree without leaves."""


def compute_levels(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """All hashes of a tree over leaves hashed already: the leaves first, the root last and alone.

    A level's last hash without a partner stands in the next one too, which is RFC 6962's shape.
    """
    level = list(hashes) or [EMPTY_ROOT]
    levels = [level]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        # hash_inner written out: a store's blocks spend much of their time here
        above = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        if len(level) % 2:
            above.append(level[-1])
        levels.append(above)
        level = above
    return levels


def replace_leaf(levels: list[list[bytes]], index: int, leaf_hash: bytes) -> None:
    """Make the levels of a tree those with another leaf `index`; the leaves stay as many."""
    levels[0][index] = leaf_hash
    for level, above in pairwise(levels):
        index >>= 1
        pair = level[2 * index : 2 * index + 2]
        above[index] = hash_inner(*pair) if len(pair) > 1 else pair[0]


def compute_root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """Root over leaves that are hashed already."""
    return compute_levels(hashes)[-1][0]


def compute_aunts(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Siblings on the way from leaf `index` up to the root, over leaves hashed already."""
    aunts = []
    for level in compute_levels(hashes):
        aunts.extend(level[index ^ 1 : (index ^ 1) + 1])
        index >>= 1
    return aunts


def compute_root(leaves: Sequence[bytes]) -> bytes:
    """Merkle tree hash of RFC 6962 over leaves as bytes; of none, SHA-256 of nothing."""
    return compute_root_of_hashes([hash_leaf(leaf) for leaf in leaves])


def encode_value(payload: bytes) -> bytes:
    """The form in which a payload is stored and hashed; never 32 bytes long.

    A value of 32 bytes could be taken for the root of a subtree that its writer made up.
    """
    return _get_prefix(len(payload)) + payload


def _get_prefix(payload_bytes: int) -> bytes:
    return _LENGTHENED if payload_bytes == HASH_BYTES - 1 else _PLAIN


def decode_value(stored: bytes) -> bytes:
    """The payload of a stored value.

    Raises
    ------
    ValueError
        For bytes that `encode_value` never makes.
    """
    prefix = _PLAIN if stored[:1] == _PLAIN else _LENGTHENED
    payload = stored[len(prefix) :]
    if encode_value(payload) != stored:
        raise ValueError("not a stored value: it has none of the two prefixes, or the wrong one")
    return payload


def encode_uvarint(number: int) -> bytes:
    """Little-endian base 128, the highest bit of a byte saying that another follows."""
    if number < 0x80:  # noqa: PLR2004  # what seven bits cannot hold
        return number.to_bytes(1, "big")
    encoded = bytearray()
    while number >= 0x80:  # noqa: PLR2004
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def compute_leaf(key: bytes, stored: bytes) -> bytes:
    """The bytes of a `simple:v` leaf: the key and SHA-256 of the stored value."""
    return _encode_leaf(key, sha256(stored).digest())


def hash_entry(key: bytes, payload: bytes | memoryview) -> bytes:
    """Hash of the leaf of a key and its payload, in a bucket or in the `weights` store."""
    stored = sha256(_get_prefix(len(payload)))
    stored.update(payload)  # not joined: a model's chunks would be copied for it
    return hash_leaf(_encode_leaf(key, stored.digest()))


def _encode_leaf(key: bytes, digest: bytes) -> bytes:
    return encode_uvarint(len(key)) + key + _DIGEST_LENGTH + digest


def bucket_of(key: bytes) -> int:
    """Which of the 65,536 buckets holds `key`."""
    return int.from_bytes(sha256(key).digest()[:2], "big")


def compute_bucket_leaves(entries: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Leaves of a bucket's keys and payloads, which come sorted by key.

    Raises
    ------
    ValueError
        For keys out of order or given twice, a bug of the caller.
    """
    leaves = []
    previous = b""  # no key is empty
    for key, payload in entries:
        if key <= previous:
            raise ValueError("the entries of a bucket must be sorted by key, each key once")
        previous = key
        leaves.append(compute_leaf(key, encode_value(payload)))
    return leaves


def compute_bucket_root(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Root of a bucket from its keys and payloads, sorted by key."""
    return compute_root(compute_bucket_leaves(entries))


def compute_chunk_hashes(weights: bytes) -> list[bytes]:
    """Hashes of the leaves of the `weights` store: 64 KiB chunks, the last one what is left."""
    chunks = split_chunks(weights)
    return [hash_entry(encode_chunk_key(index), chunk) for index, chunk in enumerate(chunks)]


def split_chunks(weights: bytes) -> list[memoryview]:
    """The chunks of a model's bytes, not copied."""
    view = memoryview(weights)
    return [view[start : start + CHUNK_BYTES] for start in range(0, len(view), CHUNK_BYTES)]


def encode_chunk_key(index: int) -> bytes:
    """Key of a chunk in the `weights` store."""
    return index.to_bytes(8, "big")


def compute_weights_root(weights: bytes) -> bytes:
    """root(W) of the canonical bytes of a model's weights."""
    return compute_root_of_hashes(compute_chunk_hashes(weights))


def hash_store(name: bytes, root: bytes) -> bytes:
    """Hash of a store's leaf beneath the app hash. The root is the value as it is."""
    return hash_leaf(compute_leaf(name, root))


def compute_app_hash(state_root: bytes, weights_root: bytes) -> bytes:
    """What a block header commits to."""
    return hash_inner(hash_store(STATE_STORE, state_root), hash_store(WEIGHTS_STORE, weights_root))


def _hash_bucket(root: bytes) -> bytes:
    """Hash of a bucket's leaf in the `state` store; its key is empty."""
    return hash_leaf(compute_leaf(b"", root))


def _compute_empty_nodes() -> tuple[bytes, ...]:
    """Nodes over empty buckets alone, by the number of bits of a node's own number."""
    node = _hash_bucket(EMPTY_ROOT)
    nodes = [node]
    while len(nodes) < BUCKETS.bit_length():
        node = hash_inner(node, node)
        nodes.append(node)
    return (b"", *reversed(nodes))


_EMPTY_NODES = _compute_empty_nodes()
_UNTOUCHED = bytes(HASH_BYTES)
"""Stands for the empty node of its place: memory that was never written takes none."""


@dataclass(frozen=True, slots=True)
class TreeChange:
    """The nodes that differ from a `BucketTree` whose root is `base_root`, and the new root."""

    base_root: bytes
    root: bytes
    nodes: dict[int, bytes]


class BucketTree:
    """The `state` store's tree over its 65,536 buckets, all nodes in memory (at most 4 MiB).

    Node 1 is the root, the children of node k are 2k and 2k + 1, bucket i is node 65,536 + i.
    """

    def __init__(self) -> None:
        """Start with all buckets empty."""
        self._nodes = bytearray(2 * BUCKETS * HASH_BYTES)

    @classmethod
    def from_roots(cls, roots: Mapping[int, bytes]) -> BucketTree:
        """The tree over the given bucket roots; buckets that are not named are empty."""
        tree = cls()
        tree.apply(tree.compute(roots))
        return tree

    @property
    def root(self) -> bytes:
        """Root of the `state` store."""
        return self._get_node(1)

    def compute(self, changed: Mapping[int, bytes]) -> TreeChange:
        """What new roots of some buckets would make of this tree, which stays as it is.

        Raises
        ------
        ValueError
            For a bucket that does not exist or a root that is not 32 bytes.
        """
        nodes: dict[int, bytes] = {}
        for index, root in changed.items():
            if not 0 <= index < BUCKETS or len(root) != HASH_BYTES:
                raise ValueError("a bucket's index is below 65,536 and its root 32 bytes long")
            nodes[BUCKETS + index] = _hash_bucket(root)
        level = sorted(nodes)
        while level and level[0] > 1:
            empty = _EMPTY_NODES[level[0].bit_length()]
            level = list(dict.fromkeys([node >> 1 for node in level]))
            for node in level:
                # hash_inner and _get_node written out: a block computes 8 nodes for each bucket
                middle = (2 * node + 1) * HASH_BYTES
                left: bytes | bytearray | None = nodes.get(2 * node)
                if left is None:
                    left = self._nodes[middle - HASH_BYTES : middle]
                    left = empty if left == _UNTOUCHED else left
                right: bytes | bytearray | None = nodes.get(2 * node + 1)
                if right is None:
                    right = self._nodes[middle : middle + HASH_BYTES]
                    right = empty if right == _UNTOUCHED else right
                nodes[node] = sha256(b"\x01" + left + right).digest()
        return TreeChange(base_root=self.root, root=nodes.get(1, self.root), nodes=nodes)

    def apply(self, change: TreeChange) -> TreeChange:
        """Make a computed change, and give the one that takes it back.

        Raises
        ------
        ValueError
            When the tree is no longer the one that the change was computed from.
        """
        if change.base_root != self.root:
            raise ValueError("this change was computed from another tree")
        before: dict[int, bytes] = {}
        for node, value in change.nodes.items():
            place = slice(node * HASH_BYTES, (node + 1) * HASH_BYTES)
            before[node] = bytes(self._nodes[place])
            self._nodes[place] = value
        return TreeChange(base_root=change.root, root=change.base_root, nodes=before)

    def prove(self, index: int, change: TreeChange | None = None) -> list[bytes]:
        """Aunts of bucket `index`, from the leaf up, in this tree or with a change made to it.

        With the change that `apply` gave back, these are the aunts in the previous version.

        Raises
        ------
        ValueError
            For a bucket that does not exist, or a change that was computed from another tree.
        """
        if not 0 <= index < BUCKETS:
            raise ValueError("a bucket's index is below 65,536")
        if change is not None and change.base_root != self.root:
            raise ValueError("this change was computed from another tree")
        nodes = change.nodes if change else {}
        aunts = []
        node = BUCKETS + index
        while node > 1:
            aunts.append(self._get_node(node ^ 1, nodes))
            node >>= 1
        return aunts

    def _get_node(self, node: int, nodes: Mapping[int, bytes] | None = None) -> bytes:
        """Hash of a node, from `nodes` where it is there."""
        value = nodes.get(node) if nodes else None
        if value is None:
            value = bytes(self._nodes[node * HASH_BYTES : (node + 1) * HASH_BYTES])
        return _EMPTY_NODES[node.bit_length()] if value == _UNTOUCHED else value
