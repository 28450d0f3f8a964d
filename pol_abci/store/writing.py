"""What a commit and a rollback write, within the one transaction that each of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.rules.merkle import EMPTY_ROOT, bucket_of
from pol_abci.store import buckets, layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pol_abci.store.environment import Transaction
    from pol_abci.store.versions import Pending, Undone


def delete_superseded_chunks(transaction: Transaction) -> None:
    """Drop the chunks that only the version before the last commit had."""
    for key, encoded in transaction.iterate_prefix(layout.UNDO, layout.UNDO_CHUNK):
        height = layout.decode_optional(encoded)
        if height is not None:
            transaction.discard(layout.CHUNKS, key[len(layout.UNDO_CHUNK) :] + height)


def write_state(transaction: Transaction, pending: Pending) -> Undone:
    """Write entries and bucket roots, and what they replace to the undo; gives the latter."""
    undone: dict[int, dict[bytes, bytes | None]] = {}
    for key, entry in pending.changes.items():
        place = layout.encode_state_key(key)
        old = _put_or_delete(transaction, layout.STATE, place, entry)
        transaction.put(layout.UNDO, layout.UNDO_STATE + place, layout.encode_optional(old))
        undone.setdefault(bucket_of(key), {})[key] = old
    for index, root in pending.bucket_roots.items():
        write_bucket_root(transaction, index, root)
    return undone


def write_chunks(
    transaction: Transaction, chunks: Mapping[int, memoryview | None], height: int
) -> None:
    """Write changed chunks beside those that they replace."""
    for number, chunk in chunks.items():
        index, at = layout.encode_integer(number), layout.encode_integer(height)
        if chunk is not None:
            transaction.put(layout.CHUNKS, index + at, chunk)
        old = _put_or_delete(
            transaction, layout.CHUNK_HEIGHTS, index, None if chunk is None else at
        )
        transaction.put(layout.UNDO, layout.UNDO_CHUNK + index, layout.encode_optional(old))


def restore(transaction: Transaction) -> None:
    """Write back all that the undo holds, and empty it."""
    changed: set[int] = set()
    for key, encoded in transaction.iterate_prefix(layout.UNDO, layout.UNDO_STATE):
        place = key[len(layout.UNDO_STATE) :]
        _put_or_delete(transaction, layout.STATE, place, layout.decode_optional(encoded))
        changed.add(layout.decode_integer(place[: layout.BUCKET_BYTES]))
    for index in sorted(changed):
        root = buckets.compute_root(buckets.read(transaction, index))
        write_bucket_root(transaction, index, root)
    for key, encoded in transaction.iterate_prefix(layout.UNDO, layout.UNDO_CHUNK):
        chunk = key[len(layout.UNDO_CHUNK) :]
        height = _put_or_delete(
            transaction, layout.CHUNK_HEIGHTS, chunk, layout.decode_optional(encoded)
        )
        if height is not None:
            transaction.discard(layout.CHUNKS, chunk + height)
    for key, encoded in transaction.iterate_prefix(layout.UNDO, layout.UNDO_RECORD):
        generation = key[len(layout.UNDO_RECORD) :]
        _put_or_delete(transaction, layout.RECORDS, generation, layout.decode_optional(encoded))
    version = transaction.get(layout.UNDO, layout.UNDO_VERSION)
    assert version is not None, "checked when the store was opened"
    transaction.put(layout.ABOUT, layout.VERSION_KEY, version)
    transaction.clear(layout.UNDO)


def write_bucket_root(transaction: Transaction, index: int, root: bytes) -> None:
    """Store the root of a bucket; that of an empty one is left out."""
    if root == EMPTY_ROOT:
        transaction.delete(layout.BUCKET_ROOTS, layout.encode_bucket(index))
    else:
        transaction.put(layout.BUCKET_ROOTS, layout.encode_bucket(index), root)


def _put_or_delete(
    transaction: Transaction, database: bytes, key: bytes, value: bytes | None
) -> bytes | None:
    """Put a value, or delete with None; gives what was there."""
    if value is None:
        return transaction.delete(database, key)
    return transaction.put(database, key, value)
