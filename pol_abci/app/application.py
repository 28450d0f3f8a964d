"""The ABCI application: each call goes to the module of its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.abci.application import Application
from pol_abci.app.consensus import Consensus
from pol_abci.app.info import Info
from pol_abci.app.mempool import Mempool
from pol_abci.app.metrics import Measures

if TYPE_CHECKING:
    from pol_abci.abci.generated.abci import types_pb2 as abci
    from pol_abci.app.replica import Replica


class PolApplication(Application):
    """Proof of Learning behind one CometBFT node; no snapshots, no vote extensions."""

    def __init__(self, replica: Replica) -> None:
        self.measures = Measures()
        self._info = Info(replica)
        self._mempool = Mempool(replica)
        self._consensus = Consensus(replica)

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
            return self._consensus.commit()
