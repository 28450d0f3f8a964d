"""The ABCI application: each call goes to the module of its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.abci.application import Application
from pol_abci.app.consensus import Consensus
from pol_abci.app.info import Info
from pol_abci.app.mempool import Mempool
from pol_abci.app.metrics import Measures
from pol_abci.app.snapshot import Snapshot
from pol_abci.app.snapshot_taker import SnapshotTaker

if TYPE_CHECKING:
    from pol_abci.abci.generated.abci import types_pb2 as abci
    from pol_abci.app.replica import Replica


class PolApplication(Application):
    """Proof of Learning behind one CometBFT node; no vote extensions.

    Snapshots are taken every `snapshot_interval` heights, while `snapshot_taker` runs.
    """

    def __init__(self, replica: Replica, snapshot_interval: int = 0) -> None:
        self.measures = Measures()
        self.snapshot_taker = SnapshotTaker(replica.store, snapshot_interval)
        self._info = Info(replica, self.snapshot_taker.folder)
        self._mempool = Mempool(replica)
        self._consensus = Consensus(replica)
        self._snapshot = Snapshot(replica, self.snapshot_taker.folder)

    async def info(self, _request: abci.RequestInfo, /) -> abci.ResponseInfo:
        """See `Info.info`."""
        return self._info.info()

    async def query(self, request: abci.RequestQuery, /) -> abci.ResponseQuery:
        """See `Info.query`."""
        return self._info.query(request)

    async def check_tx(self, request: abci.RequestCheckTx, /) -> abci.ResponseCheckTx:
        """See `Mempool.check_tx`."""
        reply = self._mempool.check_tx(request)
        self.measures.check_tx_codes[reply.code] += 1
        return reply

    async def init_chain(self, request: abci.RequestInitChain, /) -> abci.ResponseInitChain:
        """See `Consensus.init_chain`."""
        return await self._consensus.init_chain(request)

    async def prepare_proposal(
        self, request: abci.RequestPrepareProposal, /
    ) -> abci.ResponsePrepareProposal:
        """See `Consensus.prepare_proposal`."""
        return self._consensus.prepare_proposal(request)

    async def process_proposal(
        self, request: abci.RequestProcessProposal, /
    ) -> abci.ResponseProcessProposal:
        """See `Consensus.process_proposal`."""
        return await self._consensus.process_proposal(request)

    async def finalize_block(
        self, request: abci.RequestFinalizeBlock, /
    ) -> abci.ResponseFinalizeBlock:
        """See `Consensus.finalize_block`."""
        with self.measures.finalize_block_seconds.time():
            return await self._consensus.finalize_block(request)

    async def commit(self, _request: abci.RequestCommit, /) -> abci.ResponseCommit:
        """See `Consensus.commit`."""
        with self.measures.commit_seconds.time():
            reply = self._consensus.commit()
            self.snapshot_taker.begin_when_due()
            # Who takes a snapshot goes on with the blocks that follow it, from the same peers.
            if reply.retain_height and (heights := self.snapshot_taker.folder.get_heights()):
                reply.retain_height = min(reply.retain_height, heights[-1])
            return reply

    async def list_snapshots(
        self, _request: abci.RequestListSnapshots, /
    ) -> abci.ResponseListSnapshots:
        """See `Snapshot.list_snapshots`."""
        return self._snapshot.list_snapshots()

    async def load_snapshot_chunk(
        self, request: abci.RequestLoadSnapshotChunk, /
    ) -> abci.ResponseLoadSnapshotChunk:
        """See `Snapshot.load_snapshot_chunk`."""
        return await self._snapshot.load_snapshot_chunk(request)

    async def offer_snapshot(
        self, request: abci.RequestOfferSnapshot, /
    ) -> abci.ResponseOfferSnapshot:
        """See `Snapshot.offer_snapshot`."""
        return self._snapshot.offer_snapshot(request)

    async def apply_snapshot_chunk(
        self, request: abci.RequestApplySnapshotChunk, /
    ) -> abci.ResponseApplySnapshotChunk:
        """See `Snapshot.apply_snapshot_chunk`."""
        return self._snapshot.apply_snapshot_chunk(request)
