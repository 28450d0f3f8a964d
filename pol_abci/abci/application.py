"""What CometBFT asks of an application: one coroutine a request of ABCI 2.0.

Requests and replies are the generated messages of `proto/tendermint/abci`; when each is called is
the specification's matter (CometBFT v0.38, spec/abci). Echo and Flush belong to the server.

Calls of one connection never overlap. Calls of different connections do: CheckTx (mempool), the
consensus calls, Info and Query (info) and the snapshot calls each come on their own connection.
An exception out of any call stops the process: invalid input is answered, never raised.
"""

from __future__ import annotations

from typing import Protocol

from pol_abci.abci.generated.abci.types_pb2 import (
    RequestApplySnapshotChunk,
    RequestCheckTx,
    RequestCommit,
    RequestExtendVote,
    RequestFinalizeBlock,
    RequestInfo,
    RequestInitChain,
    RequestListSnapshots,
    RequestLoadSnapshotChunk,
    RequestOfferSnapshot,
    RequestPrepareProposal,
    RequestProcessProposal,
    RequestQuery,
    RequestVerifyVoteExtension,
    ResponseApplySnapshotChunk,
    ResponseCheckTx,
    ResponseCommit,
    ResponseExtendVote,
    ResponseFinalizeBlock,
    ResponseInfo,
    ResponseInitChain,
    ResponseListSnapshots,
    ResponseLoadSnapshotChunk,
    ResponseOfferSnapshot,
    ResponsePrepareProposal,
    ResponseProcessProposal,
    ResponseQuery,
    ResponseVerifyVoteExtension,
)


class Application(Protocol):
    """The replicated state machine behind one CometBFT.

    A class that names this as its base inherits the answers of an application without snapshots
    and without vote extensions; every other call is its own.
    """

    # info connection

    async def info(self, request: RequestInfo, /) -> ResponseInfo:
        """Say what was committed last, so that CometBFT replays what is missing."""
        ...

    async def query(self, request: RequestQuery, /) -> ResponseQuery:
        """Read committed state; a failure is a code in the reply."""
        ...

    # mempool connection

    async def check_tx(self, request: RequestCheckTx, /) -> ResponseCheckTx:
        """Whether a transaction may enter, or stay in, the mempool. Commit waits for it."""
        ...

    # consensus connection

    async def init_chain(self, request: RequestInitChain, /) -> ResponseInitChain:
        """Make the first state from genesis. Asked again when nothing was committed since."""
        ...

    async def prepare_proposal(self, request: RequestPrepareProposal, /) -> ResponsePrepareProposal:
        """Choose the block's transactions, within `max_tx_bytes`. Changes no state."""
        ...

    async def process_proposal(self, request: RequestProcessProposal, /) -> ResponseProcessProposal:
        """Accept or reject a proposed block, as every node would. Changes no state."""
        ...

    async def finalize_block(self, request: RequestFinalizeBlock, /) -> ResponseFinalizeBlock:
        """Execute a decided block. Nothing is durable before Commit."""
        ...

    async def commit(self, request: RequestCommit, /) -> ResponseCommit:
        """Make the executed block durable before replying."""
        ...

    async def extend_vote(self, _request: RequestExtendVote, /) -> ResponseExtendVote:
        """Add nothing to this node's vote."""
        return ResponseExtendVote()

    async def verify_vote_extension(
        self, request: RequestVerifyVoteExtension, /
    ) -> ResponseVerifyVoteExtension:
        """Accept votes to which nothing was added."""
        if request.vote_extension:
            return ResponseVerifyVoteExtension(status=ResponseVerifyVoteExtension.REJECT)
        return ResponseVerifyVoteExtension(status=ResponseVerifyVoteExtension.ACCEPT)

    # snapshot connection

    async def list_snapshots(self, _request: RequestListSnapshots, /) -> ResponseListSnapshots:
        """List none."""
        return ResponseListSnapshots()

    async def offer_snapshot(self, _request: RequestOfferSnapshot, /) -> ResponseOfferSnapshot:
        """Refuse state sync."""
        return ResponseOfferSnapshot(result=ResponseOfferSnapshot.ABORT)

    async def load_snapshot_chunk(
        self, _request: RequestLoadSnapshotChunk, /
    ) -> ResponseLoadSnapshotChunk:
        """Have none: an empty chunk."""
        return ResponseLoadSnapshotChunk()

    async def apply_snapshot_chunk(
        self, _request: RequestApplySnapshotChunk, /
    ) -> ResponseApplySnapshotChunk:
        """Refuse state sync."""
        return ResponseApplySnapshotChunk(result=ResponseApplySnapshotChunk.ABORT)
