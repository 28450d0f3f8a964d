"""One of three validators proposes hostile blocks; the chain of the others goes on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.keys import AccountKey, load_consensus_seed
from pol_abci.client.rpc import RpcClient
from pol_abci.node.home import get_consensus_key_file
from pol_abci.rules.address import compute_consensus_address
from tests.e2e.byzantine import ATTACKS, make_network, run_byzantine
from tests.e2e.quick_home import (
    read_chain,
    run_program,
    stop_program,
    strip_accuracy,
    wait_for_generation,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.node.home import Home

pytestmark = [pytest.mark.e2e, pytest.mark.network]

REFUSED = re.compile(
    r'event="a proposal is refused" height=\d+ proposer=(\w+) .*code=(\d+) reason='
)
SLOTS = (40, 40, 20)


def read_refused(home: Home) -> set[tuple[str, int]]:
    """Whose proposals a node's log says it has refused, and with which codes."""
    log = (home.path / "logs" / "app.log").read_text()
    return {(found[1], int(found[2])) for found in REFUSED.finditer(log)}


@pytest.mark.timeout(600)
async def test_honest_validators_refuse_hostile_blocks_say_why_and_go_on(tmp_path: Path) -> None:
    mining, honest, byzantine = make_network(tmp_path, SLOTS)
    seed = load_consensus_seed(get_consensus_key_file(byzantine.path))
    culprit = compute_consensus_address(AccountKey(seed).public_key).hex()
    expected = {(culprit, error.code) for error in ATTACKS.values()}
    async with (
        run_byzantine(byzantine),
        run_program("up", "--home", mining.path) as first,
        run_program("up", "--home", honest.path, "--no-mine") as second,
        RpcClient(mining.settings.rpc_url, timeout_s=2.0) as rpc,
    ):
        await wait_for_generation(rpc, 1)
        await wait_until(lambda: all(read_refused(home) >= expected for home in (mining, honest)))
        # A block that is too long ends its own proposer's CometBFT, and nobody else's.
        own_log = byzantine.path / "logs" / "cometbft.log"
        await wait_until(lambda: "transaction data size exceeds maximum" in own_log.read_text())
        reached = await wait_for_generation(rpc, 1)
        await wait_for_generation(rpc, reached + 2)
        await stop_program(second)
        await stop_program(first)
    assert read_refused(mining) == read_refused(honest) == expected
    first_chain, second_chain, byzantine_chain = (
        strip_accuracy(read_chain(home)[1]) for home in (mining, honest, byzantine)
    )
    shared = min(len(first_chain), len(second_chain))
    assert shared >= reached
    assert first_chain[:shared] == second_chain[:shared]
    # The byzantine one has what was decided before its CometBFT failed.
    assert byzantine_chain == first_chain[: len(byzantine_chain)]
