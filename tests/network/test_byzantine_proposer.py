"""One of four validators proposes hostile blocks; the chain of the others goes on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.keys import AccountKey, load_consensus_seed
from pol_abci.node.layout import get_consensus_key_file
from pol_abci.rules.address import compute_consensus_address
from tests.e2e.quick_home import read_chain, strip_accuracy, wait_until
from tests.network import byzantine
from tests.network.byzantine import ATTACKS, EXCEED
from tests.network.network import run_network

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.node.home import Home

pytestmark = pytest.mark.e2e

REFUSED = re.compile(
    r'event="a proposal is refused" height=\d+ proposer=(\w+) .*code=(\d+) reason='
)
VALIDATORS, BYZANTINE = 4, 3


def read_refused(home: Home) -> set[tuple[str, int]]:
    """Whose proposals a node's log says it has refused, and with which codes."""
    log = (home.path / "logs" / "app.log").read_text()
    return {(found[1], int(found[2])) for found in REFUSED.finditer(log)}


@pytest.mark.timeout(600)
async def test_honest_validators_refuse_hostile_blocks_say_why_and_go_on(tmp_path: Path) -> None:
    async with run_network(
        tmp_path / "testnet", validators=VALIDATORS, programs={BYZANTINE: byzantine.__name__}
    ) as network:
        *honest, culprit = network.nodes
        seed = load_consensus_seed(get_consensus_key_file(culprit.home.path))
        address = compute_consensus_address(AccountKey(seed).public_key).hex()
        expected = {(address, error.code) for error in ATTACKS.values()}
        await wait_until(lambda: all(read_refused(node.home) >= expected for node in honest))

        # A block that is too long ends its own proposer's CometBFT, and nobody else's.
        (culprit.home.path / EXCEED).touch()
        log = culprit.home.path / "logs" / "cometbft.log"
        await wait_until(lambda: "transaction data size exceeds maximum" in log.read_text())
        await culprit.stop()
        reached = max(status.generation for status in await network.wait_for_status(lambda _: True))
        await network.wait_for_generation(reached + 2)
    assert all(read_refused(node.home) == expected for node in honest)
    chains = [strip_accuracy(read_chain(node.home)[1]) for node in network.nodes]
    shared = min(map(len, chains[:BYZANTINE]))
    assert shared > reached
    assert all(chain[:shared] == chains[0][:shared] for chain in chains[:BYZANTINE])
    # The byzantine one has what was decided before its CometBFT failed.
    assert chains[BYZANTINE] == chains[0][: len(chains[BYZANTINE])]
