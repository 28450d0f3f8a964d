"""What a commit and a rollback write, within the one transaction that each of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.rules.merkle import EMPTY_ROOT
from pol_abci.store import buckets, layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pol_abci.store.environment import Transaction
    from pol_abci.store.versions import Pending


def delete_superseded_chunks(transaction: Transaction) -> None:
    """Drop the chunks that only the version before the last commit had."""
    for key, encoded in transaction.iterate_prefix(layout.UNDO, layout.UNDO_CHUNK):
        height = layout.decode_optional(encoded)
        if height is not None:
            transaction.discard(layout.CHUNKS, key[len(layout.UNDO_CHUNK) :] + height)


def write_state(transaction: Transaction, pending: Pending) -> None:
    """Write entries and bucket roots, and what they replace to the undo."""
    undone = [
        (layout.UNDO_STATE + layout.encode_bucket(index) + key, layout.encode_optional(old))
        for index, entries in pending.undone.items()
        for key, old in entries.items()
    ]
    transaction.put_all(layout.UNDO, undone)
    _put_or_delete_all(transaction, layout.STATE, pending.changes)
    _write_bucket_roots(transaction, pending.bucket_roots)


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
    roots = {
        index: buckets.compute_root(buckets.read(transaction, index)) for index in sorted(changed)
    }
    _write_bucket_roots(transaction, roots)
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


def _write_bucket_roots(transaction: Transaction, roots: Mapping[int, bytes]) -> None:
    """Store roots of buckets; that of an empty one is left out."""
    values = {
        layout.encode_bucket(index): None if root == EMPTY_ROOT else root
        for index, root in roots.items()
    }
    _put_or_delete_all(transaction, layout.BUCKET_ROOTS, values)


def _put_or_delete_all(
    transaction: Transaction, database: bytes, values: Mapping[bytes, bytes | None]
) -> None:
    """Put values, and delete where there is None."""
    transaction.put_all(
        database, [(key, value) for key, value in values.items() if value is not None]
    )
    for key, value in values.items():
        if value is None:
            transaction.discard(database, key)


def _put_or_delete(
    transaction: Transaction, database: bytes, key: bytes, value: bytes | None
) -> bytes | None:
    """Put a value, or delete with None; gives what was there."""
    if value is None:
        return transaction.delete(database, key)
    return transaction.put(database, key, value)
