"""One chain's life with everything that can happen to it, the same in every run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.rules.params import ShareParams
from tests.abci.digits_chain import make_genesis, make_test_params
from tests.abci.digits_driver import get_consensus_address, register, transfer, unjail

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pol_abci.rules.genesis import Genesis
    from tests.abci.digits_driver import DigitsChain

STORY_PROOFS = 7
STORY_INTERVAL_MS = 2_000


def make_story_genesis() -> Genesis:
    """Three validators on ten slots, jail after three missed blocks, account 4 with funds."""
    params = make_test_params()
    shares = ShareParams(slots=10, max_validators=4, liveness_window=4)
    return make_genesis(
        replace(params, shares=shares), validators=((1, 4), (2, 3), (3, 3)), funded=(4,)
    )


async def tell_story(chain: DigitsChain) -> None:
    """Eleven blocks with `STORY_PROOFS` proofs, the last by a validator that registered."""

    async def make_block(
        *txs: bytes,
        miner: int | None = None,
        absent: Collection[bytes] = (),
        misbehaviour: Sequence[bytes] = (),
        failed_rounds: int = 0,
    ) -> None:
        if miner is not None:
            await chain.submit(chain.mine(miner))
        for tx in txs:
            assert (await chain.driver.add_tx(tx)).code == 0
        block = await chain.driver.make_block(
            absent=absent,
            misbehaviour=misbehaviour,
            failed_rounds=failed_rounds,
            proposing_node=len(chain.driver.blocks) % len(chain.nodes),
        )
        assert len(block.txs) == len(txs) + (miner is not None)
        assert set(block.codes) <= {0}

    two, three = get_consensus_address(2), get_consensus_address(3)
    await chain.begin()
    await make_block(transfer(1, 1, recipient=5), miner=4)
    await make_block(register(4, 1), transfer(1, 2), transfer(1, 3), failed_rounds=2)
    await make_block(miner=4, absent=[three])
    await make_block(miner=5, absent=[three], failed_rounds=1)
    await make_block(transfer(4, 2, recipient=1), miner=1, absent=[three])  # 3 is jailed
    await make_block(miner=2)
    await make_block(unjail(3, 1), miner=4)
    await make_block(transfer(2, 1), misbehaviour=[two])  # 2 is barred
    await make_block(miner=4)
