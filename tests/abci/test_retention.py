"""What an operator who does not keep all blocks has CometBFT delete, and what has to stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.app.retention import Retention
from tests.abci.digits_driver import STARTED_HEIGHT, run_chain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.abci.digits_driver import DigitsChain

BLOCK_MS = 1_000
KEPT = 4


async def make_generation(chain: DigitsChain, *, idle_blocks: int = 0) -> None:
    """A block with a proof, then blocks without."""
    await chain.submit(chain.mine(1))
    await chain.driver.make_block()
    await chain.driver.make_blocks(idle_blocks)


async def test_the_newest_blocks_stay_and_older_ones_go_with_each_generation(
    tmp_path: Path,
) -> None:
    async with run_chain(tmp_path, block_interval_ms=BLOCK_MS) as chain:
        chain.nodes[0].replica.retention = Retention(keep_blocks=KEPT)
        await chain.begin()
        bases = []
        for _ in range(5):
            await make_generation(chain)
            bases.append(chain.driver.nodes[0].base)
        # at heights 3 to 7; as long as there are no more than four, all stay
        assert bases == [0, 0, 2, 3, 4]


async def test_blocks_in_which_evidence_may_be_found_stay_however_fast_blocks_come(
    tmp_path: Path,
) -> None:
    async with run_chain(tmp_path, block_interval_ms=BLOCK_MS) as chain:
        retention = Retention(keep_blocks=KEPT, evidence_age_ms=10 * BLOCK_MS)
        chain.nodes[0].replica.retention = retention
        await chain.begin()
        heights = {}
        for generation in range(1, 9):
            await make_generation(chain, idle_blocks=2)
            heights[generation] = STARTED_HEIGHT + 3 * generation - 2
        # Generation 8 is 12 s younger than the fourth, and 9 s younger than the fifth.
        assert chain.driver.nodes[0].base == heights[4]


async def test_the_heads_own_block_stays_when_no_proof_comes_for_long(tmp_path: Path) -> None:
    async with run_chain(tmp_path, block_interval_ms=BLOCK_MS) as chain:
        chain.nodes[0].replica.retention = Retention(keep_blocks=KEPT)
        await chain.begin()
        await make_generation(chain, idle_blocks=20)
        assert chain.driver.nodes[0].base == 0
        await make_generation(chain)
        assert chain.driver.nodes[0].base == STARTED_HEIGHT + 22 - KEPT + 1


async def test_without_the_setting_nothing_is_ever_deleted(tmp_path: Path) -> None:
    async with run_chain(tmp_path, block_interval_ms=BLOCK_MS) as chain:
        await chain.begin()
        for _ in range(3):
            await make_generation(chain, idle_blocks=3)
        assert chain.driver.nodes[0].base == 0


async def test_the_setting_may_come_when_the_chain_is_old(tmp_path: Path) -> None:
    async with run_chain(tmp_path, block_interval_ms=BLOCK_MS) as chain:
        await chain.begin()
        for _ in range(3):
            await make_generation(chain)
        chain.nodes[0].replica.retention = Retention(keep_blocks=KEPT)
        await make_generation(chain)
        assert chain.driver.nodes[0].base == STARTED_HEIGHT + 4 - KEPT + 1
