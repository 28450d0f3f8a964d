"""A node goes back by one block and executes it again."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.rpc import RpcClient
from pol_abci.node.binary import find_cometbft
from tests.e2e.quick_home import (
    make_quick_home,
    read_chain,
    run_program,
    stop_program,
    wait_for_generation,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


async def test_app_and_cometbft_go_back_by_one_block_and_forward_again(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home")
    async with run_program("up", "--home", home.path, "--generations", "2") as up:
        assert await up.wait() == 0, "\n".join(up.lines)
    app_hash, records = read_chain(home)

    async with run_program("rollback", "--home", home.path) as back:
        assert await back.wait() == 0, "\n".join(back.lines)
    async with run_program("rollback", "--home", home.path) as again:
        assert await again.wait() == 1
    assert "error: " in again.lines[0]
    subprocess.run(  # noqa: ASYNC221  (nothing else runs here)
        [find_cometbft(print), "rollback", "--home", home.cometbft_folder],
        check=True,
        capture_output=True,
    )

    async with (
        run_program("up", "--home", home.path, "--no-mine") as up,
        RpcClient(home.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        await wait_for_generation(rpc, len(records))
        await stop_program(up)
    assert read_chain(home)[0] == app_hash
