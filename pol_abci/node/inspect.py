"""The blocks of a node that is stopped: its own CometBFT serves them, and nothing else runs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from pol_abci.client.blocks import get_last_height
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable
from pol_abci.node.supervisor import ChildCommand, Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pol_abci.node.home import Home

_POLL_S = 0.1


@asynccontextmanager
async def serve_blocks(home: Home, cometbft: Path) -> AsyncIterator[str]:
    """Serve a stopped home's block store by RPC on a port of this machine; the URL.

    The home is locked meanwhile, so that its node does not start.

    Raises
    ------
    HomeInUse
        When the node runs.
    ChildFailed
        When CometBFT can't read its store; the message has its words.
    """
    port = _find_port()
    command = ChildCommand(
        name="inspect",
        arguments=(
            str(cometbft),
            "inspect",
            "--home",
            str(home.cometbft_folder.relative_to(home.path)),
            "--rpc.laddr",
            f"tcp://127.0.0.1:{port}",
        ),
    )
    async with Supervisor(home.path, [command]) as supervisor:
        url = f"http://127.0.0.1:{port}"
        failed = asyncio.create_task(supervisor.wait_failed())
        try:
            await _await_answer(url, failed)
            yield url
        finally:
            failed.cancel()
            with suppress(asyncio.CancelledError):
                await failed


async def _await_answer(url: str, failed: asyncio.Task[None]) -> None:
    async with RpcClient(url) as rpc:
        while True:
            if failed.done():
                failed.result()
            try:
                await get_last_height(rpc)
            except NodeUnreachable:
                await asyncio.sleep(_POLL_S)
            else:
                return


def _find_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
