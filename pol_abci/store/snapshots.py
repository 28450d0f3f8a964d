"""Snapshots on disk: a folder each, written from a copy of the store, served, and taken over.

    <folder>/<height>/metadata   as the format has it
    <folder>/<height>/<index>    a chunk

A snapshot's folder gets its name when all of it is on disk, so there are whole ones only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from itertools import groupby
from typing import TYPE_CHECKING

from pol_abci.rules.merkle import (
    CHUNK_BYTES,
    BucketTree,
    compute_app_hash,
    compute_root_of_hashes,
    encode_chunk_key,
    hash_entry,
)
from pol_abci.rules.seed import compute_first_seed
from pol_abci.store import layout, loading
from pol_abci.store.environment import Transaction, read_copy, sync_folder
from pol_abci.store.errors import WrongSnapshot
from pol_abci.store.snapshot_format import ContentReader, Metadata, cut_chunks, encode_content

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pol_abci.store.versions import Version

METADATA_FILE = "metadata"
UNFINISHED = ".new"
"""Ends the name of what is not whole, and what nobody needs after a crash."""


class SnapshotFolder:
    """The snapshots that a node has, by height. None of them changes once it is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_heights(self) -> list[int]:
        """Heights of the snapshots that are here, the newest first."""
        if not self.path.exists():
            return []
        names = (entry.name for entry in self.path.iterdir())
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def get_path(self, height: int) -> Path:
        """Where the snapshot of a height lies, or would."""
        return self.path / str(height)

    def get_copy_path(self, height: int) -> Path:
        """Where the copy lies that the snapshot of a height is made of."""
        return self.path / f"{height}.mdb{UNFINISHED}"

    def read_metadata(self, height: int) -> Metadata | None:
        """Metadata of a snapshot; None where there is none any more, or it is damaged."""
        try:
            return Metadata.decode((self.get_path(height) / METADATA_FILE).read_bytes())
        except (FileNotFoundError, WrongSnapshot):
            return None

    def read_chunk(self, height: int, index: int) -> bytes:
        """A chunk; empty where there is none any more, or it is damaged."""
        metadata = self.read_metadata(height)
        if metadata is None or not 0 <= index < len(metadata.chunk_hashes):
            return b""
        try:
            chunk = (self.get_path(height) / str(index)).read_bytes()
        except FileNotFoundError:
            return b""
        return chunk if hashlib.sha256(chunk).digest() == metadata.chunk_hashes[index] else b""

    def keep_newest(self, count: int) -> None:
        """Delete all but the newest snapshots."""
        for height in self.get_heights()[count:]:
            self._delete(height)

    def clean(self, newest_height: int) -> None:
        """Make the folder, and delete what a crash has left in it, or a rollback taken back."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        for entry in self.path.iterdir():
            if entry.name.endswith(UNFINISHED):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for height in self.get_heights():
            if height > newest_height:
                self._delete(height)

    def _delete(self, height: int) -> None:
        """Take a snapshot's name away before its files: half of one is none."""
        doomed = self.path / f"{height}.old{UNFINISHED}"
        self.get_path(height).rename(doomed)
        shutil.rmtree(doomed)


def write_snapshot(copy: Path, target: Path) -> Metadata:
    """Make the snapshot `target` of a copied store, whose content is checked on the way.

    Raises
    ------
    DamagedStore
        The copy does not lead to its app hash.
    OSError
        It cannot be written.
    """
    unfinished = target.with_name(f"{target.name}{UNFINISHED}")
    unfinished.mkdir(mode=0o700)
    hashes = []
    with read_copy(copy, layout.DATABASES) as transaction:
        for index, chunk in enumerate(_iterate_chunks(transaction, copy)):
            _write_file(unfinished / str(index), chunk)
            hashes.append(hashlib.sha256(chunk).digest())
        metadata = Metadata(_read_first_seed(transaction), tuple(hashes))
    _write_file(unfinished / METADATA_FILE, metadata.encode())
    sync_folder(unfinished)
    unfinished.rename(target)
    sync_folder(target.parent)
    return metadata


def _iterate_chunks(transaction: Transaction, copy: Path) -> Iterator[bytes]:
    newest = loading.load(transaction, copy).newest
    content = encode_content(
        loading.iterate_state(transaction, copy), _iterate_weights(transaction, newest)
    )
    return cut_chunks(content)


def _iterate_weights(transaction: Transaction, version: Version) -> Iterator[bytes]:
    for index, height in enumerate(version.chunk_heights):
        chunk = transaction.get(layout.CHUNKS, layout.encode_chunk_key(index, height))
        assert chunk is not None, "checked by loading"
        yield chunk


def _read_first_seed(transaction: Transaction) -> bytes:
    chain_id = transaction.get(layout.ABOUT, layout.CHAIN_KEY) or b""
    digest = transaction.get(layout.ABOUT, layout.GENESIS_KEY) or b""
    return compute_first_seed(chain_id.decode(), digest)


def restore(
    transaction: Transaction, height: int, app_hash: bytes, chunks: Iterable[bytes]
) -> None:
    """Put a snapshot's content in the place of all that was committed.

    Raises
    ------
    WrongSnapshot
        It is malformed, or leads to another app hash; the transaction must not be committed.
    """
    for database in layout.DATABASES:
        if database != layout.ABOUT:
            transaction.clear(database)
    content = ContentReader(chunks)
    state_root = _restore_state(transaction, content)
    weights_root = _restore_weights(transaction, content, height)
    found = compute_app_hash(state_root, weights_root)
    if found != app_hash:
        raise WrongSnapshot(
            f"a snapshot of height {height} leads to the app hash {found.hex()}, the chain has "
            f"{app_hash.hex()}"
        )
    commit = layout.Commit(height, app_hash)
    transaction.put(layout.ABOUT, layout.VERSION_KEY, commit.encode())


def _restore_state(transaction: Transaction, content: ContentReader) -> bytes:
    """Write the entries; the root of the `state` store that they lead to."""
    roots: dict[int, bytes] = {}
    by_bucket = groupby(content.read_entries(), lambda item: item[0][: layout.BUCKET_BYTES])
    for bucket, items in by_bucket:
        hashes = []
        for place, key, payload in items:
            entry = layout.encode_entry(key, payload)
            transaction.put(layout.STATE, place, entry)
            hashes.append(layout.get_leaf_hash(entry))
        root = compute_root_of_hashes(hashes)
        transaction.put(layout.BUCKET_ROOTS, bucket, root)
        roots[layout.decode_integer(bucket)] = root
    return BucketTree.from_roots(roots).root


def _restore_weights(transaction: Transaction, content: ContentReader, height: int) -> bytes:
    """Write the weights; the root of the `weights` store that they lead to."""
    hashes = []
    for index, chunk in enumerate(content.read_weights(CHUNK_BYTES)):
        transaction.put(layout.CHUNKS, layout.encode_chunk_key(index, height), chunk)
        transaction.put(
            layout.CHUNK_HEIGHTS, layout.encode_integer(index), layout.encode_integer(height)
        )
        hashes.append(hash_entry(encode_chunk_key(index), chunk))
    return compute_root_of_hashes(hashes)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
