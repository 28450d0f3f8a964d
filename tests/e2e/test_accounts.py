"""Coins from the proof that earns them to a validator that they pay for, by commands alone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from nacl.signing import SigningKey

from pol_abci.client.keys import AccountKey, format_address, load_consensus_seed
from pol_abci.client.rpc import RpcClient
from pol_abci.node.binary import find_cometbft
from pol_abci.node.init import INITIAL_BALANCE
from pol_abci.node.layout import get_cometbft_folder, get_consensus_key_file
from pol_abci.rules.address import compute_consensus_address
from tests.e2e.quick_home import make_quick_home, run_program, stop_program, wait_for_generation

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.rules.params import Params

pytestmark = pytest.mark.e2e

COIN = 10**6


def let_rewards_mature_soon(params: Params) -> Params:
    return replace(params, ledger=replace(params.ledger, maturity_generations=2))


async def run(*arguments: str | Path) -> list[str]:
    async with run_program(*arguments) as program:
        assert await program.wait() == 0, "\n".join(program.lines)
    return program.lines


async def ask(*arguments: str | Path) -> Any:
    return json.loads((await run(*arguments, "--json"))[-1])


@pytest.mark.timeout(600)
async def test_a_reward_is_earned_sent_twice_and_pays_for_a_validator(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home", change=let_rewards_mature_soon)
    words, friend_file = tmp_path / "words", tmp_path / "friend.json"
    words.touch(mode=0o600)
    words.write_text("open sesame\n")
    await run("keys", "passphrase", home.account_file, "--new-passphrase-file", words)
    friend = AccountKey.generate()
    friend.save(friend_file)
    address = format_address(friend.address)
    at_home = ("--home", home.path)
    async with (
        run_program("up", *at_home, "--passphrase-file", words) as up,
        RpcClient(home.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        await wait_for_generation(rpc, 4)
        earned = await ask("balance", *at_home)
        assert int(earned["balance"]) > INITIAL_BALANCE
        assert earned["maturing"]

        transfer = ("transfer", "2", address, *at_home, "--passphrase-file", words, "--yes")
        first, second = await asyncio.gather(ask(*transfer), ask(*transfer))
        assert first["hash"] != second["hash"]
        received = await ask("balance", address, *at_home)
        assert received["soon"]["balance"] == str(4 * COIN)
        entries = await ask("history", address, *at_home)
        assert {entry["hash"] for entry in entries} == {first["hash"], second["hash"]}
        assert {entry["height"] for entry in entries} == {first["height"], second["height"]}
        assert "proof" in {entry["what"] for entry in await ask("history", *at_home)}

        other_home = tmp_path / "second"
        consensus_address = await make_consensus_key(other_home)
        node = ("--node", home.settings.rpc_url, "--key", friend_file)
        await run("validator", "register", "--home", other_home, *node, "--yes")
        standing = await ask("validator", "status", *node)
        assert standing["consensus_address"] == consensus_address
        assert (standing["slots"], standing["power"]) == (0, 0)
        own = await ask("validator", "status", *at_home)
        assert own["voting_power"] == own["total_power"] == own["slots"] == 100
        await stop_program(up)
    assert "open sesame" not in "\n".join(up.lines)


async def make_consensus_key(home: Path) -> str:
    """What a second node's CometBFT has after `cometbft init`; its consensus address."""
    program = await asyncio.create_subprocess_exec(
        find_cometbft(print),
        *("init", "--home", str(get_cometbft_folder(home))),
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await program.wait() == 0
    seed = load_consensus_seed(get_consensus_key_file(home))
    return compute_consensus_address(bytes(SigningKey(seed).verify_key)).hex().upper()
