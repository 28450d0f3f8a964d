"""The committed state of a node: one transaction a block, the last two versions provable.

The newest version is on disk as it is; the one before it is the newest one with the undo of the
last commit applied. That undo answers queries for the previous height, which light clients need,
and lets the app follow `cometbft rollback` by one block.

A store belongs to one process and one thread. Readers take no lock and hold no transaction, so
they stop neither a commit nor the growth of the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING

from pol_abci.rules.merkle import (
    bucket_of,
    compute_app_hash,
    compute_chunk_hashes,
    compute_root_of_hashes,
    split_chunks,
)
from pol_abci.rules.merkle_proofs import ProofOp, prove_state_entry, prove_weights_chunk
from pol_abci.store import buckets, layout, loading, snapshots, writing
from pol_abci.store.environment import FIRST_MAP_BYTES, Copy, Environment, Transaction
from pol_abci.store.errors import HeightUnavailable, NoPreviousVersion
from pol_abci.store.reading import StateOfVersion
from pol_abci.store.versions import Pending, Previous, Undone, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pol_abci.rules.state import StateReader


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version holds under the key asked for, with the proof of it.

    `payload` is None where there is nothing. That a state entry is absent is proved as well;
    `ops` is empty only for a chunk behind the last one.
    """

    payload: bytes | None
    ops: tuple[ProofOp, ...]
    height: int


class Store:
    """State, weights and history of one chain, on disk."""

    def __init__(self, environment: Environment, directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self._load()

    def _load(self) -> None:
        with self._environment.read() as transaction:
            loaded = loading.load(transaction, self._directory)
        self._tree = loaded.tree
        self._newest = loaded.newest
        self._previous = loaded.previous

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        chain_id: str,
        genesis_digest: bytes,
        map_bytes: int = FIRST_MAP_BYTES,
    ) -> Store:
        """Open the store in the folder `path`, or make an empty one where there is none.

        The file's structure, the weights against their root, the tree above the buckets and both
        versions' app hashes are checked; entries of the state that the last commit left alone
        are `verify`'s matter. `map_bytes` is how far the file may grow before it is mapped anew.

        Raises
        ------
        StoreError
            One of its subclasses, except HeightUnavailable and NoPreviousVersion.
        """
        owner = loading.Owner(chain_id, genesis_digest)
        environment = Environment.open(path, layout.DATABASES, owner.write, map_bytes)
        try:
            with environment.read() as transaction:
                owner.check(transaction, path)
            return cls(environment, path)
        except BaseException:
            environment.close()
            raise

    @property
    def directory(self) -> Path:
        """The folder that it lies in."""
        return self._directory

    @property
    def height(self) -> int:
        """Height of the newest commit, 0 before the first."""
        return self._newest.commit.height

    @property
    def app_hash(self) -> bytes:
        """App hash of the newest commit, empty before the first."""
        return self._newest.commit.app_hash

    def state(self) -> StateReader:
        """The newest version's state.

        It goes on showing that version after the next commit; after one more, or after a rollback
        behind it, reading from it is a bug and raises RuntimeError.
        """
        return self._get_state(self._newest)

    def weights(self) -> bytes:
        """The head's weights, empty before the first commit that had any."""
        heights = self._newest.chunk_heights
        with self._environment.read() as transaction:
            return b"".join(
                self._read_chunk(transaction, index, height) for index, height in enumerate(heights)
            )

    def prepare(self, changes: Mapping[bytes, bytes | None], weights: bytes | None) -> Pending:
        """Compute the version that `changes` make of the newest one; nothing is written.

        A key maps to its new payload, or to None where it is deleted. `weights` are the whole
        new weights in their canonical bytes, or None where they stay as they are.

        Raises
        ------
        DamagedStore
            When a bucket that changes is not what was committed.
        ValueError
            For a key that the store cannot hold.
        """
        located = {layout.encode_state_key(key): key for key in changes}
        real: dict[bytes, bytes | None] = {}
        undone: dict[int, dict[bytes, bytes | None]] = {}
        roots: dict[int, bytes] = {}
        with self._environment.read() as transaction:
            for bucket, places in groupby(
                sorted(located), lambda place: place[: layout.BUCKET_BYTES]
            ):
                index = layout.decode_integer(bucket)
                entries = buckets.read(transaction, index)
                levels = buckets.check(transaction, self._directory, index, entries)
                old, new = dict(entries), {}
                for key in (located[place] for place in places):
                    entry = _encode_entry(key, changes[key])
                    if entry != old.get(key):
                        new[key] = entry
                        if key in old:  # it goes into the undo
                            buckets.read_payload(self._directory, key, old[key])
                if new:
                    real |= {bucket + key: entry for key, entry in new.items()}
                    undone[index] = {key: old.get(key) for key in new}
                    roots[index] = buckets.compute_changed_root(entries, levels, new)
        tree_change = self._tree.compute(roots)
        hashes = self._newest.chunk_hashes
        chunks: dict[int, memoryview | None] = {}
        if weights is not None:
            hashes, chunks = _compare_chunks(hashes, weights)
        weights_root = compute_root_of_hashes(hashes)
        return Pending(
            app_hash=compute_app_hash(tree_change.root, weights_root),
            weights_root=weights_root,
            base=self._newest,
            changes=real,
            undone=undone,
            bucket_roots=roots,
            tree_change=tree_change,
            chunk_hashes=hashes,
            changed_chunks=chunks,
        )

    def commit(self, pending: Pending, height: int, record: tuple[int, bytes] | None) -> None:
        """Write a prepared version to disk, with the record of its generation if it made one.

        When this returns all of it has been synced; when it raises the store is as it was.

        Raises
        ------
        StoreFull
            When it does not fit on the disk.
        ValueError
            For a height that does not follow, or a version not prepared from the newest one.
        """
        before = self._newest
        if pending.base is not before:
            raise ValueError("prepared from another version than the newest one")
        if height <= 0 or (before.commit.height and height != before.commit.height + 1):
            raise ValueError(f"height {height} does not follow {before.commit.height}")
        commit = layout.Commit(height, pending.app_hash)

        def write(transaction: Transaction) -> None:
            writing.delete_superseded_chunks(transaction)
            transaction.clear(layout.UNDO)
            transaction.put(layout.UNDO, layout.UNDO_VERSION, before.commit.encode())
            writing.write_state(transaction, pending)
            writing.write_chunks(transaction, pending.changed_chunks, height)
            if record is not None:
                generation = layout.encode_integer(record[0])
                entry = layout.encode_entry(generation, record[1])
                old = transaction.put(layout.RECORDS, generation, entry)
                undo_key = layout.UNDO_RECORD + generation
                transaction.put(layout.UNDO, undo_key, layout.encode_optional(old))
            transaction.put(layout.ABOUT, layout.VERSION_KEY, commit.encode())

        self._environment.write(write)
        tree_undo = self._tree.apply(pending.tree_change)
        heights = list(before.chunk_heights[: len(pending.chunk_hashes)])
        for index in sorted(pending.changed_chunks):
            if index < len(heights):
                heights[index] = height
            elif index < len(pending.chunk_hashes):
                heights.append(height)
        self._newest = Version(commit, self._tree.root, pending.chunk_hashes, tuple(heights))
        self._previous = Previous(before, pending.undone, tree_undo)

    def query_state(self, key: bytes, height: int) -> Answer:
        """Payload and proof of a state entry, or proof of its absence.

        Raises
        ------
        HeightUnavailable
            For a height that is neither the newest nor the one before it.
        """
        version = self._get_version(height)
        index = bucket_of(key)
        entries = self._get_state(version).bucket(index)
        change = None if version is self._newest else self._get_previous().tree_undo
        aunts = self._tree.prove(index, change)
        ops = prove_state_entry(key, entries, aunts, version.weights_root)
        return Answer(dict(entries).get(key), tuple(ops), height)

    def query_chunk(self, index: int, height: int) -> Answer:
        """Payload and proof of a 64 KiB chunk of the weights.

        Raises
        ------
        HeightUnavailable
            For a height that is neither the newest nor the one before it.
        """
        version = self._get_version(height)
        if not 0 <= index < len(version.chunk_hashes):
            return Answer(None, (), height)
        with self._environment.read() as transaction:
            chunk = self._read_chunk(transaction, index, version.chunk_heights[index])
        ops = prove_weights_chunk(index, version.chunk_hashes, version.state_root)
        return Answer(chunk, tuple(ops), height)

    def put_record(self, generation: int, record: bytes) -> None:
        """Write the record of a generation, new or in the place of an older one.

        Raises
        ------
        StoreFull
            When it does not fit on the disk.
        """
        key = layout.encode_integer(generation)
        entry = layout.encode_entry(key, record)
        self._environment.write(lambda transaction: transaction.put(layout.RECORDS, key, entry))

    def get_record(self, generation: int) -> bytes | None:
        """Record of a generation, or None.

        Raises
        ------
        DamagedStore
            When it is not the one that was written.
        """
        found = self.records(generation, limit=1)
        return found[0][1] if found and found[0][0] == generation else None

    def records(self, first: int, limit: int) -> list[tuple[int, bytes]]:
        """At most `limit` generations with their records, in order, from generation `first` on.

        Raises
        ------
        DamagedStore
            When one of them is not the one that was written.
        """
        with self._environment.read() as transaction:
            entries = islice(
                transaction.iterate(layout.RECORDS, layout.encode_integer(first)), limit
            )
            return [
                (layout.decode_integer(key), buckets.read_payload(self._directory, key, entry))
                for key, entry in entries
            ]

    def rollback(self) -> int:
        """Go back to the version before the newest one, and give its height.

        What the last commit wrote, its record included, is as if it had never been.

        Raises
        ------
        NoPreviousVersion
            Before the first commit, and after a rollback: only one version is kept.
        """
        previous = self._get_previous()
        self._environment.write(writing.restore)
        self._tree.apply(previous.tree_undo)
        self._newest = previous.version
        self._previous = None
        return self.height

    def begin_copy(self) -> Copy:
        """Hold on to the newest version, for a copy that another thread writes meanwhile."""
        return self._environment.begin_copy()

    def restore(
        self, height: int, app_hash: bytes, read_chunks: Callable[[], Iterable[bytes]]
    ) -> None:
        """Stand at a snapshot's height: all of it, in the place of all that was here, or nothing.

        The history and the version before are not in a snapshot. `read_chunks` gives the chunks
        in order; it is called again when the map had to grow.

        Raises
        ------
        WrongSnapshot
            The content is malformed, or does not lead to `app_hash`: the store is as it was.
        StoreFull
            When it does not fit on the disk.
        """
        self._environment.write(
            lambda transaction: snapshots.restore(transaction, height, app_hash, read_chunks())
        )
        self._load()

    def verify(self) -> None:
        """Hold every entry of the state against the root of its bucket.

        Raises
        ------
        DamagedStore
            For the first bucket that is not what was committed.
        """
        with self._environment.read() as transaction:
            for _ in loading.iterate_state(transaction, self._directory):
                pass

    def close(self) -> None:
        """Give the store back; nothing is lost without it."""
        self._environment.close()

    def _get_state(self, version: Version) -> StateOfVersion:
        return StateOfVersion(self._environment, self._directory, lambda: self._get_undone(version))

    def _get_undone(self, version: Version) -> Undone:
        """What the newest state must be overlaid with to be that of `version`."""
        if version is self._newest:
            return {}
        if self._previous is not None and version is self._previous.version:
            return self._previous.undone
        raise RuntimeError("this state is older than the previous version; take a new one")

    def _get_version(self, height: int) -> Version:
        known = [self._newest] if self._previous is None else [self._newest, self._previous.version]
        for version in known:
            if version.commit.height == height > 0:
                return version
        heights = " and ".join(str(v.commit.height) for v in known if v.commit.height) or "none"
        raise HeightUnavailable(
            f"height {height} cannot be queried; this node answers for: {heights}"
        )

    def _get_previous(self) -> Previous:
        if self.height == 0:
            raise NoPreviousVersion(f"nothing is committed to the store in {self._directory} yet")
        if self._previous is None:
            raise NoPreviousVersion(
                f"the store in {self._directory} has no version before height {self.height}: it "
                "keeps one, and that was used or has never been. Commit a block first, or delete "
                "the folder and replay the chain"
            )
        return self._previous

    def _read_chunk(self, transaction: Transaction, index: int, height: int) -> bytes:
        chunk = transaction.get(layout.CHUNKS, layout.encode_chunk_key(index, height))
        assert chunk is not None, "checked when the store was opened"
        return chunk


def _encode_entry(key: bytes, payload: bytes | None) -> bytes | None:
    return None if payload is None else layout.encode_entry(key, payload)


def _compare_chunks(
    hashes: tuple[bytes, ...], weights: bytes
) -> tuple[tuple[bytes, ...], dict[int, memoryview | None]]:
    """Hashes of the new chunks, and those that differ from the old ones (None: not there)."""
    new = tuple(compute_chunk_hashes(weights))
    chunks: dict[int, memoryview | None] = {
        index: chunk
        for index, chunk in enumerate(split_chunks(weights))
        if index >= len(hashes) or hashes[index] != new[index]
    }
    chunks.update(dict.fromkeys(range(len(new), len(hashes))))
    return new, chunks
