"""Validators of a real network: asleep and back, rewards that mature, and one that signs twice."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.holdings import get_holdings
from pol_abci.client.keys import KeyFile
from pol_abci.client.transactions import build_unjail
from pol_abci.node.init import INITIAL_BALANCE
from pol_abci.rules.errors import BarredValidator
from pol_abci.rules.ledger import compute_reward
from tests.e2e.quick_home import run_program, wait_for
from tests.network.network import make_twin, run_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pol_abci.client.holdings import Standing
    from pol_abci.rules.codec import Account
    from pol_abci.rules.params import Params
    from tests.network.network import Node

pytestmark = pytest.mark.e2e

MATURITY = 4
SLOTS_EACH = 50
"""So many that one miner does not take those of the sleeper while the test runs."""
STAND_STILL_S = 1.0
ASK_S = 0.5
"""Each answer takes a read for every slot."""


def shorten(params: Params) -> Params:
    """Jail after four missed proofs of six, rewards that mature after four generations."""
    return replace(
        params,
        ledger=replace(params.ledger, maturity_generations=MATURITY),
        shares=replace(params.shares, slots=4 * SLOTS_EACH, liveness_window=6),
    )


async def wait_for_account(asked: Node, whose: Node, is_so: Callable[[Account], bool]) -> None:
    async def ask() -> bool | None:
        return is_so(await asked.get_account(whose.address)) or None

    await wait_for(ask)


async def wait_for_total_power(asked: Node, whose: Node, power: int) -> Standing:
    """How a validator stands once CometBFT counts so much power in all."""

    async def ask() -> Standing | None:
        await asyncio.sleep(ASK_S)
        standing = await asked.get_standing(whose.address)
        return standing if standing.total_power == power else None

    return await wait_for(ask)


@pytest.mark.timeout(600)
async def test_a_sleeper_is_jailed_and_comes_back_and_a_double_signer_is_barred_for_ever(
    tmp_path: Path,
) -> None:
    async with run_network(
        tmp_path / "testnet", validators=4, miners=(0,), change=shorten
    ) as network:
        miner, witness, _, sleeper = network.nodes
        await network.wait_for_generation(1)
        for node in network.nodes:
            standing = await witness.get_standing(node.address)
            assert standing.power == standing.voting_power == standing.slots == SLOTS_EACH

        # One that sleeps is jailed: three quarters of the power go on without it.
        await sleeper.stop()
        twin = make_twin(sleeper, tmp_path / "twin")
        await wait_for_account(witness, sleeper, lambda account: account.jailed)
        away = await wait_for_total_power(witness, sleeper, 3 * SLOTS_EACH)
        assert away.power == away.voting_power == 0
        assert away.slots == SLOTS_EACH, "jail takes no slots"

        await network.wait_for_generation(MATURITY + 1)
        miner.signal("miner", signal.SIGSTOP)  # so that all reads are of one generation
        await assert_rewards_mature_in_time(witness, miner)

        # It comes back: nobody mines meanwhile, or it could be jailed again before it votes.
        await sleeper.start()
        await sleeper.wait_caught_up()
        async with run_program(
            "validator", "unjail", "--home", sleeper.home.path, "--yes"
        ) as unjail:
            assert await unjail.wait() == 0, "\n".join(unjail.lines)
        back = await wait_for_total_power(witness, sleeper, 4 * SLOTS_EACH)
        assert back.power == back.voting_power == SLOTS_EACH
        miner.signal("miner", signal.SIGCONT)

        # Two nodes sign with one key. CometBFT finds the evidence, the application bars the key.
        try:
            await twin.start()
            await wait_for(lambda: hear_both(witness, sleeper))
        finally:
            await twin.stop()
            await twin.rpc.close()
        barred = await wait_for_total_power(witness, sleeper, 3 * SLOTS_EACH)
        assert barred.slots == barred.power == barred.voting_power == 0
        await assert_no_way_back(witness, sleeper)

        (status, *_) = await network.wait_for_status(lambda _: True)
        await network.wait_for_generation(status.generation + 2)


async def hear_both(witness: Node, guilty: Node) -> bool | None:
    """Let a node hear two votes of one validator at once; whether that is barred.

    CometBFT tells its peers at once whose votes it has, and they send no second one. A node that
    stands still for a moment tells nothing, and finds both when it goes on.
    """
    witness.signal("cometbft", signal.SIGSTOP)
    await asyncio.sleep(STAND_STILL_S)
    witness.signal("cometbft", signal.SIGCONT)
    await asyncio.sleep(STAND_STILL_S)
    return (await witness.get_account(guilty.address)).barred or None


async def assert_rewards_mature_in_time(witness: Node, miner: Node) -> None:
    """The miner's coins are those of its generations that are MATURITY old, and no others."""
    params = witness.home.genesis.params

    async def read_at_one_generation() -> tuple[int, int, list[int]] | None:
        before = await witness.get_status()
        holdings = await get_holdings(witness.rpc, miner.address)
        balance = (await witness.get_account(miner.address)).balance
        after = await witness.get_status()
        if before is None or after is None or before.generation != after.generation:
            return None
        return after.generation, balance, [reward.generation for reward in holdings.rewards]

    generation, balance, maturing = await wait_for(read_at_one_generation)
    paid = sum(compute_reward(params.ledger, head) for head in range(generation - MATURITY))
    assert balance == INITIAL_BALANCE + paid
    assert maturing == list(range(generation + 1, generation + MATURITY + 1))


async def assert_no_way_back(witness: Node, barred: Node) -> None:
    """Neither the command nor a transaction of one's own making ends it."""
    async with run_program("validator", "unjail", "--home", barred.home.path, "--yes") as unjail:
        assert await unjail.wait() == 1
    assert "barred for ever" in "\n".join(unjail.lines)
    account = await witness.get_account(barred.address)
    raw = build_unjail(
        KeyFile.read(barred.home.account_file).unlock(lambda: ""),
        witness.home.settings.chain_id,
        sequence=account.sequence + 1,
        fee=witness.home.genesis.params.ledger.min_fee,
    )
    assert (await witness.rpc.broadcast_tx_sync(raw)).code == BarredValidator.code
