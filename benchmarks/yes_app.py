"""An application that says yes to everything, on this package's own server: the floor of Python's.

    python benchmarks/yes_app.py unix://app.sock

Beside it, what CometBFT's kvstore is quicker by is the way through a socket to another process.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from pol_abci.abci.application import Application
from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.abci.server import serve
from pol_abci.rules.params import PROTOCOL_VERSION


class YesApplication(Application):
    """Has no state: each app hash is the empty one."""

    async def info(self, _request: abci.RequestInfo, /) -> abci.ResponseInfo:
        """Nothing is committed."""
        return abci.ResponseInfo(app_version=PROTOCOL_VERSION)

    async def query(self, _request: abci.RequestQuery, /) -> abci.ResponseQuery:
        """Nothing is there."""
        return abci.ResponseQuery()

    async def check_tx(self, _request: abci.RequestCheckTx, /) -> abci.ResponseCheckTx:
        """Take it."""
        return abci.ResponseCheckTx()

    async def init_chain(self, _request: abci.RequestInitChain, /) -> abci.ResponseInitChain:
        """Begin with the validators of CometBFT's genesis."""
        return abci.ResponseInitChain()

    async def prepare_proposal(
        self, request: abci.RequestPrepareProposal, /
    ) -> abci.ResponsePrepareProposal:
        """Propose all that there is."""
        return abci.ResponsePrepareProposal(txs=request.txs)

    async def process_proposal(
        self, _request: abci.RequestProcessProposal, /
    ) -> abci.ResponseProcessProposal:
        """Accept it."""
        return abci.ResponseProcessProposal(status=abci.ResponseProcessProposal.ACCEPT)

    async def finalize_block(
        self, request: abci.RequestFinalizeBlock, /
    ) -> abci.ResponseFinalizeBlock:
        """Execute nothing."""
        return abci.ResponseFinalizeBlock(tx_results=[abci.ExecTxResult() for _ in request.txs])

    async def commit(self, _request: abci.RequestCommit, /) -> abci.ResponseCommit:
        """Write nothing."""
        return abci.ResponseCommit()


async def main(address: str) -> None:
    """Serve until SIGTERM."""
    serving = asyncio.ensure_future(serve(YesApplication(), address))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    await asyncio.wait([serving])


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
