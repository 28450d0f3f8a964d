"""`pol-abci testnet up`: several nodes in one terminal, all with the same chain in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.quick_home import read_chain, run_program, strip_accuracy
from tests.network.network import make_network_homes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(600)
async def test_two_nodes_in_one_terminal_make_one_chain_and_stop_together(tmp_path: Path) -> None:
    # So difficult that each generation stays for seconds, and is told before the next one comes.
    homes = make_network_homes(tmp_path / "testnet", 2, difficulty_bits=11.0)
    words = tmp_path / "words"
    words.touch(mode=0o600)
    words.write_text("open sesame")
    sealing = ("keys", "passphrase", homes[0].account_file, "--new-passphrase-file", words)
    async with run_program(*sealing) as seal:
        assert await seal.wait() == 0, "\n".join(seal.lines)

    command = ("testnet", "up", "--home", tmp_path / "testnet", "--miners", "1")
    async with run_program(*command) as refused:
        assert await refused.wait() == 1
    assert "give --passphrase-file FILE" in "\n".join(refused.lines)

    async with run_program(*command, "--generations", "2", "--passphrase-file", words) as up:
        assert await up.wait() == 0, "\n".join(up.lines)
    text = "\n".join(up.lines)
    assert "node0 miner: running" in text
    assert "node1 miner" not in text
    assert "generation 2: heights node0 " in text
    assert "app hashes" not in text, "a fork"
    one, other = (strip_accuracy(read_chain(home)[1]) for home in homes)
    assert len(one) >= 2
    shared = min(len(one), len(other))
    assert one[:shared] == other[:shared]
