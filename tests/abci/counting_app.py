"""A small correct application for the tests of the server and of the driver: it adds numbers.

A transaction is a decimal number; the state is the sum so far and the number of blocks. What is
committed lives in a `Disk`, which outlives the application object, as a disk outlives a process.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pol_abci.abci.application import Application
from pol_abci.abci.generated.abci import types_pb2 as pb


@dataclass
class Disk:
    height: int = 0
    total: int = 0
    app_hash: bytes = b""


class CountingApp(Application):
    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.genesis = self.pending = Disk()

    async def info(self, _request: pb.RequestInfo, /) -> pb.ResponseInfo:
        return pb.ResponseInfo(
            app_version=1,
            last_block_height=self.disk.height,
            last_block_app_hash=self.disk.app_hash,
        )

    async def query(self, _request: pb.RequestQuery, /) -> pb.ResponseQuery:
        return pb.ResponseQuery(value=b"%d" % self.disk.total, height=self.disk.height)

    async def check_tx(self, request: pb.RequestCheckTx, /) -> pb.ResponseCheckTx:
        return pb.ResponseCheckTx(code=0 if request.tx.isdigit() else 1)

    async def init_chain(self, request: pb.RequestInitChain, /) -> pb.ResponseInitChain:
        start = int(request.app_state_bytes.strip(b'"{}') or b"0")
        self.genesis = Disk(0, start, compute_hash(start))
        return pb.ResponseInitChain(app_hash=self.genesis.app_hash)

    async def prepare_proposal(
        self, request: pb.RequestPrepareProposal, /
    ) -> pb.ResponsePrepareProposal:
        txs, size = [], 0
        for tx in request.txs:
            size += len(tx) + 10
            if tx.isdigit() and size <= request.max_tx_bytes:
                txs.append(tx)
        return pb.ResponsePrepareProposal(txs=txs)

    async def process_proposal(
        self, request: pb.RequestProcessProposal, /
    ) -> pb.ResponseProcessProposal:
        good = all(tx.isdigit() for tx in request.txs)
        status = pb.ResponseProcessProposal.ACCEPT if good else pb.ResponseProcessProposal.REJECT
        return pb.ResponseProcessProposal(status=status)

    async def finalize_block(self, request: pb.RequestFinalizeBlock, /) -> pb.ResponseFinalizeBlock:
        start = self.disk if self.disk.height else self.genesis
        total = start.total + sum(int(tx) for tx in request.txs if tx.isdigit())
        self.pending = Disk(request.height, total, compute_hash(total))
        results = [pb.ExecTxResult(code=0 if tx.isdigit() else 1) for tx in request.txs]
        return pb.ResponseFinalizeBlock(tx_results=results, app_hash=self.pending.app_hash)

    async def commit(self, _request: pb.RequestCommit, /) -> pb.ResponseCommit:
        vars(self.disk).update(vars(self.pending))
        return pb.ResponseCommit()


def compute_hash(total: int) -> bytes:
    return hashlib.sha256(b"%d" % total).digest()
