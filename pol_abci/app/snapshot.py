"""The snapshot connection: what this node serves, and how it joins by state sync.

Nothing that a peer sends is believed. A chunk is held against the hash that it was offered under,
and the whole against the app hash that CometBFT's light client has verified.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.rules.merkle import HASH_BYTES
from pol_abci.rules.seed import compute_first_seed
from pol_abci.store.errors import WrongSnapshot
from pol_abci.store.snapshot_format import SNAPSHOT_CHUNK_BYTES, SNAPSHOT_FORMAT, Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pol_abci.app.replica import Replica
    from pol_abci.store.snapshots import SnapshotFolder
    from pol_abci.store.store import Store

log = structlog.get_logger(__name__)

HEADERS_AFTER = 2
"""Blocks behind a snapshot's that a joining node asks for before it takes the snapshot."""
DISK_FACTOR = 3
"""Room that restoring takes, in snapshots: its chunks, the store's pages, what those replace."""


@dataclass(slots=True)
class _Accepted:
    """A snapshot that is being restored; `missing` are the chunks that have not come."""

    height: int
    app_hash: bytes
    metadata: Metadata
    missing: set[int]


def get_listed_heights(folder: SnapshotFolder, store: Store) -> list[int]:
    """Heights of the snapshots that can be verified already by who takes them, the newest first."""
    return [height for height in folder.get_heights() if height + HEADERS_AFTER <= store.height]


class Snapshot:
    """Serves snapshots to nodes that join, and takes one over when this node joins."""

    def __init__(self, replica: Replica, folder: SnapshotFolder) -> None:
        self._replica = replica
        self._folder = folder
        self._incoming = replica.store.directory / "incoming"
        digest = compute_genesis_digest(replica.genesis)
        self._first_seed = compute_first_seed(replica.chain.chain_id, digest)
        self._accepted: _Accepted | None = None

    # -- serving

    def list_snapshots(self) -> abci.ResponseListSnapshots:
        """List what is here, as `get_listed_heights` says."""
        reply = abci.ResponseListSnapshots()
        for height in get_listed_heights(self._folder, self._replica.store):
            metadata = self._folder.read_metadata(height)
            if metadata is not None:
                reply.snapshots.add(
                    height=height,
                    format=SNAPSHOT_FORMAT,
                    chunks=len(metadata.chunk_hashes),
                    hash=metadata.hash,
                    metadata=metadata.encode(),
                )
        return reply

    async def load_snapshot_chunk(
        self, request: abci.RequestLoadSnapshotChunk
    ) -> abci.ResponseLoadSnapshotChunk:
        """Read a chunk beside the event loop; an empty one where there is none (any more)."""
        if request.format != SNAPSHOT_FORMAT:
            return abci.ResponseLoadSnapshotChunk()
        chunk = await asyncio.to_thread(self._folder.read_chunk, request.height, request.chunk)
        return abci.ResponseLoadSnapshotChunk(chunk=chunk)

    # -- joining

    def offer_snapshot(self, request: abci.RequestOfferSnapshot) -> abci.ResponseOfferSnapshot:
        """Take what can be one of this chain; `request.app_hash` is verified by CometBFT."""
        self._forget()
        offered = request.snapshot
        if offered.format != SNAPSHOT_FORMAT:
            return abci.ResponseOfferSnapshot(result=abci.ResponseOfferSnapshot.REJECT_FORMAT)
        try:
            metadata = self._check_offer(offered, request.app_hash)
        except WrongSnapshot as error:
            log.warning("a snapshot is refused", height=offered.height, reason=str(error))
            return abci.ResponseOfferSnapshot(result=abci.ResponseOfferSnapshot.REJECT)
        count = len(metadata.chunk_hashes)
        self._incoming.mkdir(mode=0o700)
        self._accepted = _Accepted(
            offered.height, request.app_hash, metadata, missing=set(range(count))
        )
        log.info("a snapshot is being restored", height=offered.height, chunks=count)
        return abci.ResponseOfferSnapshot(result=abci.ResponseOfferSnapshot.ACCEPT)

    def _check_offer(self, offered: abci.Snapshot, app_hash: bytes) -> Metadata:
        metadata = Metadata.decode(offered.metadata)
        if offered.hash != metadata.hash or offered.chunks != len(metadata.chunk_hashes):
            raise WrongSnapshot("its hash or its number of chunks is not that of its metadata")
        if metadata.first_seed != self._first_seed:
            raise WrongSnapshot("it is of another chain, or of another genesis of this one")
        if not self._replica.initial_height <= offered.height < 2**63:
            raise WrongSnapshot("no block has its height")
        if len(app_hash) != HASH_BYTES:
            raise WrongSnapshot("its height has no app hash of this protocol")
        needed = DISK_FACTOR * SNAPSHOT_CHUNK_BYTES * offered.chunks
        free = shutil.disk_usage(self._replica.store.directory).free
        if needed > free:
            raise WrongSnapshot(
                f"it may take {needed // 2**20} MiB and the disk has {free // 2**20}: make room"
            )
        return metadata

    def apply_snapshot_chunk(
        self, request: abci.RequestApplySnapshotChunk
    ) -> abci.ResponseApplySnapshotChunk:
        """Keep a chunk that is what was offered; with the last one, stand where the snapshot is."""
        accepted = self._accepted
        assert accepted is not None, "ApplySnapshotChunk without an accepted offer"
        digest = hashlib.sha256(request.chunk).digest()
        if digest != accepted.metadata.chunk_hashes[request.index]:
            log.warning("a chunk is refused", index=request.index, sender=request.sender)
            return abci.ResponseApplySnapshotChunk(
                result=abci.ResponseApplySnapshotChunk.RETRY,
                refetch_chunks=[request.index],
                reject_senders=[request.sender],
            )
        try:
            self._keep_chunk(accepted, request)
        except WrongSnapshot as error:
            log.warning("a snapshot is false", reason=str(error))
            self._forget()
            return abci.ResponseApplySnapshotChunk(
                result=abci.ResponseApplySnapshotChunk.REJECT_SNAPSHOT
            )
        return abci.ResponseApplySnapshotChunk(result=abci.ResponseApplySnapshotChunk.ACCEPT)

    def _keep_chunk(self, accepted: _Accepted, request: abci.RequestApplySnapshotChunk) -> None:
        if len(request.chunk) > SNAPSHOT_CHUNK_BYTES:  # more than the disk was looked at for
            raise WrongSnapshot(f"chunk {request.index} has {len(request.chunk)} bytes")
        self._get_chunk_path(request.index).write_bytes(request.chunk)
        accepted.missing.discard(request.index)
        if not accepted.missing:
            self._replica.restore(accepted.height, accepted.app_hash, self._read_chunks)
            self._forget()
            log.info("the state is the snapshot's", height=accepted.height)

    def _read_chunks(self) -> Iterator[bytes]:
        assert self._accepted is not None
        for index in range(len(self._accepted.metadata.chunk_hashes)):
            yield self._get_chunk_path(index).read_bytes()

    def _get_chunk_path(self, index: int) -> Path:
        return self._incoming / str(index)

    def _forget(self) -> None:
        """Drop what was accepted before, also by a process that was killed."""
        self._accepted = None
        if self._incoming.exists():
            shutil.rmtree(self._incoming)
