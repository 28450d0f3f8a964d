"""Reading a store from disk, holding it against the roots that it was committed with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pol_abci.rules.merkle import (
    EMPTY_ROOT,
    BucketTree,
    bucket_of,
    compute_app_hash,
    encode_chunk_key,
    hash_entry,
)
from pol_abci.store import buckets, layout
from pol_abci.store.environment import Transaction, damaged
from pol_abci.store.errors import ForeignStore, OtherChain, UnknownStoreFormat
from pol_abci.store.versions import Previous, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """The chain that a store belongs to."""

    chain_id: str
    genesis_digest: bytes

    def write(self, transaction: Transaction) -> None:
        """Fill a new store: this chain's, with nothing committed."""
        about = {
            layout.FORMAT_KEY: layout.encode_integer(layout.FORMAT),
            layout.CHAIN_KEY: self.chain_id.encode(),
            layout.GENESIS_KEY: self.genesis_digest,
            layout.VERSION_KEY: layout.Commit(0, b"").encode(),
        }
        for key, value in about.items():
            transaction.put(layout.ABOUT, key, value)

    def check(self, transaction: Transaction, directory: Path) -> None:
        """Refuse a store of another program, another format or another chain.

        Raises
        ------
        StoreError
            ForeignStore, UnknownStoreFormat or OtherChain.
        """
        encoded = transaction.get(layout.ABOUT, layout.FORMAT_KEY)
        if encoded is None:
            raise ForeignStore(
                f"the LMDB file in {directory} was not made by this program. Give another folder"
            )
        if encoded != layout.encode_integer(layout.FORMAT):
            raise UnknownStoreFormat(
                f"the store in {directory} has format {layout.decode_integer(encoded)}; this "
                f"program knows format {layout.FORMAT}. Run the version that made it, or delete "
                "the folder and replay the chain"
            )
        chain_id = (transaction.get(layout.ABOUT, layout.CHAIN_KEY) or b"").decode(
            "utf-8", "replace"
        )
        if chain_id != self.chain_id:
            raise OtherChain(
                f"the store in {directory} belongs to chain {chain_id!r}, not {self.chain_id!r}. "
                "Give each chain a folder of its own"
            )
        if transaction.get(layout.ABOUT, layout.GENESIS_KEY) != self.genesis_digest:
            raise OtherChain(
                f"the store in {directory} was started from another genesis of chain "
                f"{chain_id!r}. Put that genesis back, or delete the folder and start anew"
            )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A store's content as far as it is kept in memory."""

    tree: BucketTree
    newest: Version
    previous: Previous | None


def load(transaction: Transaction, directory: Path) -> Loaded:
    """Read both versions and check each against its app hash.

    Raises
    ------
    DamagedStore
        When what is there is not what was committed.
    """
    commit = _decode_commit(transaction.get(layout.ABOUT, layout.VERSION_KEY), directory)
    tree = BucketTree.from_roots(_read_bucket_roots(transaction, directory))
    heights = _read_chunk_heights(transaction)
    newest = _load_version(transaction, directory, commit, tree.root, heights)
    encoded = transaction.get(layout.UNDO, layout.UNDO_VERSION)
    if encoded is None:
        return Loaded(tree, newest, None)

    undone: dict[int, dict[bytes, bytes | None]] = {}
    for undo_key, old in transaction.iterate_prefix(layout.UNDO, layout.UNDO_STATE):
        key = undo_key[len(layout.UNDO_STATE) + layout.BUCKET_BYTES :]
        entry = layout.decode_optional(old)
        if entry is not None:
            buckets.read_payload(directory, key, entry)
        undone.setdefault(bucket_of(key), {})[key] = entry
    roots: dict[int, bytes] = {}
    for index, changed in undone.items():
        entries = buckets.read(transaction, index)
        levels = buckets.check(transaction, directory, index, entries)
        roots[index] = buckets.compute_changed_root(entries, levels, changed)
    tree_undo = tree.compute(roots)
    for key, old in transaction.iterate_prefix(layout.UNDO, layout.UNDO_CHUNK):
        index = layout.decode_integer(key[len(layout.UNDO_CHUNK) :])
        height = layout.decode_optional(old)
        if height is None:
            heights.pop(index, None)
        else:
            heights[index] = layout.decode_integer(height)
    before = _decode_commit(encoded, directory)
    version = _load_version(transaction, directory, before, tree_undo.root, heights, newer=newest)
    return Loaded(tree, newest, Previous(version, undone, tree_undo))


def iterate_state(transaction: Transaction, directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and payloads of the whole state, by bucket and then by key, all of them checked.

    Raises
    ------
    DamagedStore
        For the first bucket whose entries do not lead to its stored root.
    """
    seen = 0
    by_bucket = groupby(
        transaction.iterate(layout.STATE), lambda item: item[0][: layout.BUCKET_BYTES]
    )
    for bucket, items in by_bucket:
        index = layout.decode_integer(bucket)
        entries = [(place[layout.BUCKET_BYTES :], entry) for place, entry in items]
        buckets.check(transaction, directory, index, entries)
        for key, entry in entries:
            if bucket_of(key) != index:
                raise damaged(directory, f"bucket {index} holds a key of another bucket")
            yield key, buckets.read_payload(directory, key, entry)
        seen += 1
    if seen != sum(1 for _ in transaction.iterate(layout.BUCKET_ROOTS)):
        raise damaged(directory, "all entries of a bucket are gone")


def _decode_commit(encoded: bytes | None, directory: Path) -> layout.Commit:
    commit = layout.Commit.decode(encoded or b"")
    if commit is None:
        raise damaged(directory, "the height and app hash of a version cannot be read")
    return commit


def _read_bucket_roots(transaction: Transaction, directory: Path) -> dict[int, bytes]:
    roots = {}
    for bucket, root in transaction.iterate(layout.BUCKET_ROOTS):
        if len(bucket) != layout.BUCKET_BYTES or len(root) != len(EMPTY_ROOT):
            raise damaged(directory, "the root of a bucket has the wrong length")
        roots[layout.decode_integer(bucket)] = root
    return roots


def _read_chunk_heights(transaction: Transaction) -> dict[int, int]:
    return {
        layout.decode_integer(index): layout.decode_integer(height)
        for index, height in transaction.iterate(layout.CHUNK_HEIGHTS)
    }


def _load_version(
    transaction: Transaction,
    directory: Path,
    commit: layout.Commit,
    state_root: bytes,
    heights: Mapping[int, int],
    *,
    newer: Version | None = None,
) -> Version:
    """A version with the hashes of its chunks, checked against its app hash.

    Chunks that `newer` has too are not hashed again.
    """
    hashes: list[bytes] = []
    for index in range(len(heights)):
        height = heights.get(index)
        chunk = None
        if height is not None:
            if newer is not None and newer.chunk_heights[index : index + 1] == (height,):
                hashes.append(newer.chunk_hashes[index])
                continue
            chunk = transaction.get(layout.CHUNKS, layout.encode_chunk_key(index, height))
        if chunk is None:
            raise damaged(directory, f"chunk {index} of the weights is missing")
        hashes.append(hash_entry(encode_chunk_key(index), chunk))
    ordered = tuple(heights[index] for index in range(len(heights)))
    version = Version(commit, state_root, tuple(hashes), ordered)
    expected = b""
    if commit.height:
        expected = compute_app_hash(state_root, version.weights_root)
    if commit.app_hash != expected:
        raise damaged(
            directory, f"state and weights do not lead to the app hash of height {commit.height}"
        )
    return version
