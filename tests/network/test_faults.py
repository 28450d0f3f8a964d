"""Faults on four validators: whatever happens to one, or between them, nothing is lost."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.network.faults import besiege

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

FAULT_S = 4.0
"""How long nodes stand still or are parted: several blocks and target intervals."""


@pytest.mark.timeout(900)
async def test_a_network_outlives_kills_stops_partitions_and_a_damaged_store(
    tmp_path: Path,
) -> None:
    async with besiege(tmp_path / "testnet", random.Random(6), miners=(0,)) as siege:
        first, second, third, fourth = siege.network.nodes
        await siege.damage_store(fourth)  # first, while there is little to replay
        await siege.part((2, 3), FAULT_S, is_cut=False)
        await siege.part((3,), FAULT_S, is_cut=True)
        await siege.slow_network(FAULT_S)

        await siege.kill(first, "miner")
        await siege.kill(second, "cometbft")
        await siege.kill(third, "app")
        await siege.kill_mid_walk(second)

        await siege.stop_node(third, FAULT_S)
        await siege.stop_verifier(fourth, FAULT_S)
        await siege.refuse_writes(second)
        await siege.restart(third)
        assert siege.payments.committed, "no payment went through all that"
