"""A validator is lost, and comes back from an old backup without signing anything twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pol_abci.client.rpc import RpcClient
from pol_abci.node.cometbft_setup import change_config
from pol_abci.node.home import load_home
from pol_abci.node.layout import compute_node_id
from tests.e2e.faults import read_generations
from tests.e2e.quick_home import (
    get_p2p_port,
    make_quick_home,
    move_ports,
    read_chain,
    run_program,
    stop_program,
    strip_accuracy,
    wait_for_generation,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.node.home import Home

pytestmark = pytest.mark.e2e


def move_beside(home: Home, peer: Home) -> Home:
    """Give a home ports of its own, and a peer on this machine."""
    address = f"{compute_node_id(peer.path)}@127.0.0.1:{get_p2p_port(peer)}"
    change_config(home.path, {"p2p": {"persistent_peers": address}})
    return move_ports(home)


async def restore(backup: Path, path: Path, *options: str) -> Home:
    """A home out of a backup, by the command."""
    async with run_program("restore", backup, "--home", path, *options) as program:
        assert await program.wait() == 0, "\n".join(program.lines)
    return load_home(path)


@pytest.mark.timeout(600)
async def test_a_validator_from_an_old_backup_signs_nothing_twice_and_the_chain_goes_on(
    tmp_path: Path,
) -> None:
    lost, backup = make_quick_home(tmp_path / "lost"), tmp_path / "backup.tar.zst"
    async with run_program("up", "--home", lost.path, "--generations", "2") as up:
        await up.wait_for_line("generation 1:")
        async with run_program("backup", "--home", lost.path, "--out", backup) as refused:
            assert await refused.wait() == 1
        assert "is in use: another `pol-abci up` runs on it" in "\n".join(refused.lines)
        assert await up.wait() == 0, "\n".join(up.lines)
    async with run_program("backup", "--home", lost.path, "--out", backup) as made:
        assert await made.wait() == 0, "\n".join(made.lines)
    old = read_chain(lost)[1]

    follower = move_beside(await restore(backup, tmp_path / "follower", "--new-keys"), lost)
    async with (
        run_program("up", "--home", follower.path, "--no-mine") as following,
        RpcClient(follower.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        async with run_program("up", "--home", lost.path) as up:
            await wait_for_generation(rpc, len(old) + 3)
            await stop_program(up)
        # The machine is lost. Its backup has never heard of the last three generations.
        known = await read_generations(rpc)
        signs_after = str((await rpc.status()).latest_height)
        back = await restore(backup, tmp_path / "back", "--signs-after", signs_after)
        async with run_program("up", "--home", back.path) as up:
            await wait_for_generation(rpc, len(known) + 2)
            await stop_program(up)
        await stop_program(following)
    assert "height regression" in (back.path / "logs" / "cometbft.log").read_text()
    followed, restored = (strip_accuracy(read_chain(home)[1]) for home in (follower, back))
    assert followed[: len(known)] == restored[: len(known)] == known
    shared = min(len(followed), len(restored))
    assert followed[:shared] == restored[:shared]
