"""The real CometBFT over our socket: blocks, a transaction, a restart of the node."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pol_abci.abci.server import serve
from pol_abci.node.binary import locate_cometbft
from tests.abci.counting_app import CountingApp, Disk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pol_abci.abci.generated.abci import types_pb2 as pb

pytestmark = pytest.mark.e2e


def find_cometbft() -> str:
    passed_over: list[str] = []
    found = locate_cometbft(passed_over.append)
    if found is None:
        pytest.fail(f"no CometBFT here: `make cometbft` builds it. {' '.join(passed_over)}")
    return str(found)


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def write_home(cometbft: str, home: Path, rpc_port: int) -> None:
    """A validator of its own, with quick blocks and no peers."""
    made = await asyncio.create_subprocess_exec(
        cometbft, "init", "--home", str(home), stdout=asyncio.subprocess.DEVNULL
    )
    assert await made.wait() == 0
    path = home / "config" / "config.toml"
    config = path.read_text()
    for pattern, value in [
        (r"^proxy_app = .*$", f'proxy_app = "unix://{home}/app.sock"'),
        (r'^laddr = "tcp://127.0.0.1:26657"$', f'laddr = "tcp://127.0.0.1:{rpc_port}"'),
        (r'^laddr = "tcp://0.0.0.0:26656"$', 'laddr = "tcp://127.0.0.1:0"'),
        (r"^timeout_commit = .*$", 'timeout_commit = "50ms"'),
        (r"^pprof_laddr = .*$", 'pprof_laddr = ""'),
    ]:
        config, count = re.subn(pattern, value, config, flags=re.MULTILINE)
        assert count == 1, pattern
    path.write_text(config)


class ObservedApp(CountingApp):
    """Says after each Commit how high it is."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.heights: asyncio.Queue[int] = asyncio.Queue()

    async def commit(self, request: pb.RequestCommit, /) -> pb.ResponseCommit:
        reply = await super().commit(request)
        self.heights.put_nowait(self.disk.height)
        return reply

    async def wait_for_height(self, height: int) -> None:
        async with asyncio.timeout(60):
            while await self.heights.get() < height:
                pass


@asynccontextmanager
async def running_node(cometbft: str, home: Path, disk: Disk) -> AsyncIterator[ObservedApp]:
    """CometBFT and the application; both are stopped on the way out."""
    app = ObservedApp(disk)
    listening = asyncio.Event()
    application = asyncio.create_task(
        serve(
            app,
            f"unix://{home}/app.sock",
            on_listening=lambda _address: listening.set(),
        )
    )
    await listening.wait()
    with (home / "cometbft.log").open("ab") as log:
        node = await asyncio.create_subprocess_exec(
            cometbft, "start", "--home", str(home), stdout=log, stderr=log
        )
        try:
            yield app
            assert not application.done(), application
        finally:
            if node.returncode is None:
                node.terminate()
            await node.wait()
            application.cancel()
            await asyncio.gather(application, return_exceptions=True)


async def call(rpc: httpx.AsyncClient, method: str, **params: str) -> dict[str, Any]:
    reply: dict[str, Any] = (await rpc.get(method, params=params)).raise_for_status().json()
    result: dict[str, Any] = reply["result"]
    return result


async def test_cometbft_makes_blocks_takes_a_transaction_and_restarts(tmp_path: Path) -> None:
    cometbft = find_cometbft()
    port = find_free_port()
    await write_home(cometbft, tmp_path, port)
    disk = Disk()
    async with (
        running_node(cometbft, tmp_path, disk) as app,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as rpc,
    ):
        await app.wait_for_height(3)
        accepted = await call(rpc, "broadcast_tx_sync", tx='"42"')
        assert accepted["code"] == 0
        refused = await call(rpc, "broadcast_tx_sync", tx='"not a number"')
        assert refused["code"] == 1
        await app.wait_for_height(disk.height + 2)
        found = await call(rpc, "abci_query", data='"sum"')
        assert base64.b64decode(found["response"]["value"]) == b"42"
    stopped_at = disk.height
    async with running_node(cometbft, tmp_path, disk) as app:
        await app.wait_for_height(stopped_at + 3)
    assert disk.total == 42


async def test_a_node_replays_its_blocks_into_an_application_that_lost_them(tmp_path: Path) -> None:
    cometbft = find_cometbft()
    await write_home(cometbft, tmp_path, find_free_port())
    disk = Disk()
    async with running_node(cometbft, tmp_path, disk) as app:
        await app.wait_for_height(3)
    stopped_at, empty = disk.height, Disk()
    async with running_node(cometbft, tmp_path, empty) as app:
        await app.wait_for_height(stopped_at + 1)
    assert empty.app_hash == disk.app_hash
