"""The stock `cometbft light` believes what the application proves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.node.binary import find_cometbft
from pol_abci.rules import keys
from pol_abci.rules.codec import Account, Head
from pol_abci.rules.merkle import decode_value
from tests.e2e.quick_home import (
    get_free_port,
    make_quick_home,
    run_program,
    wait_for,
    wait_for_generation,
    wait_for_status,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.client.answers import QueryAnswer

pytestmark = pytest.mark.e2e

STATE_PATH = "/store/state/key"


async def test_cometbft_light_verifies_state_through_its_proxy(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home")
    address = AccountKey.load(home.account_file).address
    node, port = home.settings.rpc_url, get_free_port()
    async with (
        run_program("up", "--home", home.path),
        RpcClient(node) as rpc,
        RpcClient(f"http://127.0.0.1:{port}") as light,
    ):
        await wait_for_generation(rpc, 1)
        await wait_for_status(rpc, lambda status: status.height > 4)
        trusted = await rpc.block(2)
        proxy = await asyncio.create_subprocess_exec(
            find_cometbft(print),
            "light",
            home.settings.chain_id,
            *("--primary", node, "--witnesses", node),
            *("--height", "2", "--hash", trusted.hash.hex()),
            *("--laddr", f"tcp://127.0.0.1:{port}", "--home-dir", str(tmp_path / "light")),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            head = Head.decode(decode_value((await ask(light, keys.head())).value))
            assert head.generation >= 1
            data = (await ask(light, keys.account(address))).value
            assert Account.decode(decode_value(data)).consensus_key
        finally:
            proxy.kill()
            await proxy.wait()


async def ask(light: RpcClient, key: bytes) -> QueryAnswer:
    """Ask the proxy, which answers only what it could verify; it may still be starting."""

    async def ask_once() -> QueryAnswer | None:
        try:
            return await light.abci_query(STATE_PATH, key, prove=True)
        except NodeUnreachable:
            return None
        except RpcError as error:
            if "height" not in str(error):
                raise
            return None  # the header that proves a height follows it, and is not there yet

    return await wait_for(ask_once)
