"""Buckets of the state as they lie in the file: entries sorted by key, each with its leaf's hash.

A block costs a hash for each inner node of the buckets that it touches, not for each entry: the
hashes that entries carry are held against the bucket's root, and an entry that is read or replaced
against its own hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.rules.merkle import (
    EMPTY_ROOT,
    compute_levels,
    compute_root_of_hashes,
    replace_leaf,
)
from pol_abci.store import layout
from pol_abci.store.environment import Transaction, damaged

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Entries = list[tuple[bytes, bytes]]
"""Keys and entries, sorted by key."""


def read(transaction: Transaction, index: int) -> Entries:
    """The entries of a bucket, not checked."""
    return transaction.read_prefix(layout.STATE, layout.encode_bucket(index))


def read_payload(directory: Path, key: bytes, entry: bytes) -> bytes:
    """The payload of an entry: one of the state, or a record.

    Raises
    ------
    DamagedStore
        When it is not what was written under `key`.
    """
    payload = layout.get_payload(entry)
    if layout.encode_entry(key, payload) != entry:
        raise damaged(directory, f"what lies under the key {key!r} is not what was written")
    return payload


def check(
    transaction: Transaction, directory: Path, index: int, entries: Entries
) -> list[list[bytes]]:
    """Hold a bucket against its stored root; the levels of the tree over its entries.

    Raises
    ------
    DamagedStore
        When their hashes do not lead there.
    """
    root = transaction.get(layout.BUCKET_ROOTS, layout.encode_bucket(index)) or EMPTY_ROOT
    levels = compute_levels(_get_hashes(entries))
    if levels[-1][0] != root:
        raise damaged(directory, f"the entries of bucket {index} do not lead to its root")
    return levels


def change(entries: Entries, changes: Mapping[bytes, bytes | None]) -> Entries:
    """Entries with some of them replaced or added, or with None taken out."""
    changed: dict[bytes, bytes | None] = dict(entries)
    changed.update(changes)
    return [(key, entry) for key, entry in sorted(changed.items()) if entry is not None]


def compute_changed_root(
    entries: Entries, levels: list[list[bytes]], changes: Mapping[bytes, bytes | None]
) -> bytes:
    """Root of a bucket after `change`; `levels` are those before and are used up."""
    keys = [key for key, _ in entries]
    replaced = {key: entry for key, entry in changes.items() if entry is not None}
    if len(replaced) < len(changes) or not replaced.keys() <= set(keys):
        return compute_root(change(entries, changes))
    for key, entry in replaced.items():
        replace_leaf(levels, keys.index(key), layout.get_leaf_hash(entry))
    return levels[-1][0]


def compute_root(entries: Entries) -> bytes:
    """Root of a bucket, going by the hashes that its entries carry."""
    return compute_root_of_hashes(_get_hashes(entries))


def _get_hashes(entries: Entries) -> list[bytes]:
    return [layout.get_leaf_hash(entry) for _, entry in entries]
