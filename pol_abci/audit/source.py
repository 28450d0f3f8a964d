"""Where an audit's blocks come from: a node's RPC, asked ahead of need."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anyio.from_thread import start_blocking_portal

from pol_abci.audit.folder import ChainGenesis
from pol_abci.client.blocks import get_commit, get_full_block, get_last_height
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import RpcError
from pol_abci.rules.genesis import parse_genesis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager

    from anyio.from_thread import BlockingPortal

    from pol_abci.client.blocks import Commit, FullBlock

BLOCKS_IN_FLIGHT = 16
"""Asked for and not yet executed: hides the way to the node, and bounds memory."""


class BlockSource:
    """A node's blocks, for a thread that computes while they come in on another one."""

    def __init__(self, portal: BlockingPortal, rpc: RpcClient) -> None:
        self._portal, self._rpc = portal, rpc

    def get_chain_id(self) -> str:
        """Ask a running node which chain it is of."""
        return self._portal.call(self._rpc.status).chain_id

    def get_genesis(self) -> ChainGenesis:
        """Ask the node what its chain begins with."""
        document = self._portal.call(self._rpc.genesis)
        return ChainGenesis(
            document.chain_id, document.initial_height, parse_genesis(document.app_state)
        )

    def get_last_height(self) -> int:
        """Height of the node's newest block."""
        return self._portal.call(get_last_height, self._rpc)

    def get_block(self, height: int) -> FullBlock:
        """Fetch one block."""
        return self._portal.call(get_full_block, self._rpc, height)

    def get_commit(self, height: int) -> Commit:
        """Fetch the votes that decided a block."""
        return self._portal.call(get_commit, self._rpc, height)

    def find_app_hash(self, height: int) -> bytes | None:
        """App hash after a height as the node's application says it, if it is at that height."""
        try:
            info = self._portal.call(self._rpc.abci_info)
        except RpcError:  # blocks without an application, as `cometbft inspect` serves them
            return None
        return info.app_hash if info.height == height else None

    def iterate_blocks(self, first: int, last: int) -> Iterator[FullBlock]:
        """Fetch the blocks of these heights, both included, in order."""
        coming: deque[Future[FullBlock]] = deque()
        try:
            for height in range(first, last + 1):
                coming.append(self._portal.start_task_soon(get_full_block, self._rpc, height))
                if len(coming) == BLOCKS_IN_FLIGHT:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


@contextmanager
def serve_in_thread(server: AbstractAsyncContextManager[str]) -> Iterator[str]:
    """Keep an asynchronous context, which gives a URL, alive beside a thread that computes."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server) as url:
        yield url


@contextmanager
def open_source(url: str) -> Iterator[BlockSource]:
    """Connect to a node's RPC, or to that of `cometbft inspect`."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(RpcClient(url)) as rpc,
    ):
        yield BlockSource(portal, rpc)
