"""A node whose proposals are hostile, and a network for it to be in.

    python -m tests.e2e.byzantine HOME

runs the application of a home as `pol-abci start` does, but for its proposals: once the chain has a
generation, each time that its validator's turn comes, it proposes the next of `ATTACKS`, and after
`PASSES` of them a block that its own CometBFT does not take.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.app.application import PolApplication
from pol_abci.cli import main
from pol_abci.client.keys import AccountKey, load_consensus_seed
from pol_abci.client.transactions import build_proof, build_transfer
from pol_abci.node.binary import find_cometbft
from pol_abci.node.home import (
    Home,
    compute_node_id,
    get_account_file,
    get_consensus_key_file,
    load_home,
    write_settings,
)
from pol_abci.rules.errors import (
    FalseProof,
    InsufficientFunds,
    InvalidSignature,
    MalformedTx,
    SecondProof,
    StaleProof,
)
from pol_abci.rules.genesis import GenesisAccount, compute_genesis_digest, genesis_to_json
from pol_abci.rules.params import MAX_TX_BYTES, Amount
from pol_abci.rules.proof import DIGEST_BYTES, WalkClaim
from tests.e2e.quick_home import change_config, get_p2p_port, make_quick_home

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from pol_abci.app.replica import Replica
    from pol_abci.rules.errors import InvalidTx

REPOSITORY = Path(__file__).parents[2]
BALANCE = Amount(10**9)


class Attacker:
    """Composes hostile blocks for the head that its node has."""

    def __init__(self, replica: Replica, key: AccountKey) -> None:
        self._replica = replica
        self._key = key

    def walk_falsely(self) -> list[bytes]:
        """A proof of honest form, rightly stamped, of a walk that nobody made."""
        return [self._prove(0)]

    def prove_twice(self) -> list[bytes]:
        """Two proofs in a block."""
        return [self._prove(0), self._prove(0)]

    def prove_late(self) -> list[bytes]:
        """A proof that extends a generation from before the head."""
        return [self._prove(1)]

    def spend_too_much(self) -> list[bytes]:
        """A transfer of more than there is."""
        return [self._pay(2 * BALANCE, self._replica.chain.chain_id)]

    def sign_for_another_chain(self) -> list[bytes]:
        """A transfer whose signature is not for this chain."""
        return [self._pay(1, "another")]

    def send_garbage(self) -> list[bytes]:
        """Bytes that are no transaction."""
        return [secrets.token_bytes(300)]

    def exceed_block(self) -> list[bytes]:
        """More bytes than any block may have, each transaction short enough by itself."""
        return [secrets.token_bytes(MAX_TX_BYTES)] * 1_000

    def _prove(self, generations_late: int) -> bytes:
        chain, head, key = self._replica.chain, self._replica.get_head(), AccountKey.generate()
        walk = chain.params.walk
        claim = WalkClaim(
            generation=max(0, head.generation - generations_late),
            address=key.address,
            nonce=secrets.randbits(64),
            steps=walk.max_steps,
            step_digests=secrets.token_bytes(DIGEST_BYTES * walk.max_steps),
            weights_root=secrets.token_bytes(32),
        )
        return build_proof(key, chain.chain_id, claim, seed=head.seed, stamp_bits=walk.stamp_bits)

    def _pay(self, amount: int, chain_id: str) -> bytes:
        return build_transfer(
            self._key,
            chain_id,
            sequence=1,
            fee=Amount(1_000),
            recipient=AccountKey.generate().address,
            amount=Amount(amount),
        )


ATTACKS: dict[Callable[[Attacker], list[bytes]], type[InvalidTx]] = {
    Attacker.walk_falsely: FalseProof,
    Attacker.prove_twice: SecondProof,
    Attacker.prove_late: StaleProof,
    Attacker.spend_too_much: InsufficientFunds,
    Attacker.sign_for_another_chain: InvalidSignature,
    Attacker.send_garbage: MalformedTx,
}
"""What is proposed, and as what it is refused."""
PASSES = 2


class ByzantineApplication(PolApplication):
    """The application, but for its proposals."""

    def __init__(self, replica: Replica, snapshot_interval: int) -> None:
        super().__init__(replica, snapshot_interval)
        # `start` has made the home its working directory.
        self._replica = replica
        self._attacker = Attacker(replica, AccountKey.load(get_account_file(Path())))
        self._attacks = itertools.chain(*[ATTACKS] * PASSES)

    async def prepare_proposal(
        self, request: abci.RequestPrepareProposal, /
    ) -> abci.ResponsePrepareProposal:
        """Propose the next attack."""
        if self._replica.get_head().generation == 0:
            return await super().prepare_proposal(request)
        attack = next(self._attacks, Attacker.exceed_block)
        return abci.ResponsePrepareProposal(txs=attack(self._attacker))


def make_network(path: Path, slots: Sequence[int]) -> list[Home]:
    """Homes of a new chain's validators on this machine, which own so many slots of the ring."""
    homes = [make_quick_home(path / f"node{number}") for number in range(len(slots))]
    first = homes[0]
    validators = [json.loads(get_consensus_key_file(home.path).read_text()) for home in homes]
    accounts = tuple(
        GenesisAccount(
            address=AccountKey.load(home.account_file).address,
            balance=BALANCE,
            consensus_key=_read_public_key(home),
        )
        for home in homes
    )
    ring = tuple((account.address, count) for account, count in zip(accounts, slots, strict=True))
    genesis = replace(first.genesis, accounts=accounts, ring=ring)
    document = json.loads(first.genesis_file.read_text())
    document["app_state"] = genesis_to_json(genesis)
    document["validators"] = [
        {"address": key["address"], "pub_key": key["pub_key"], "power": str(count), "name": ""}
        for key, count in zip(validators, slots, strict=True)
    ]
    peers = {
        home.path: f"{compute_node_id(home.path)}@127.0.0.1:{get_p2p_port(home)}" for home in homes
    }
    for home in homes:
        home.genesis_file.write_text(json.dumps(document))
        write_settings(
            home.path, replace(home.settings, genesis_digest=compute_genesis_digest(genesis))
        )
        others = ",".join(peer for path, peer in peers.items() if path != home.path)
        on_one_machine = {"addr_book_strict": False, "allow_duplicate_ip": True}
        change_config(home, {"p2p": {"persistent_peers": others, **on_one_machine}})
    return [load_home(home.path) for home in homes]


def _read_public_key(home: Home) -> bytes:
    seed = load_consensus_seed(get_consensus_key_file(home.path))
    return AccountKey(seed).public_key


@asynccontextmanager
async def run_byzantine(home: Home) -> AsyncIterator[None]:
    """Run a home's byzantine application and its stock CometBFT; both log into its logs."""
    (home.path / "logs").mkdir()
    cometbft = (find_cometbft(print), "node", "--home", "cometbft")
    app = (sys.executable, "-m", "tests.e2e.byzantine", home.path)
    processes = []
    try:
        for name, command, folder in (
            ("app", app, REPOSITORY),
            ("cometbft", cometbft, home.path),
        ):
            with (home.path / "logs" / f"{name}.log").open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    *map(str, command), cwd=folder, stdout=log, stderr=subprocess.STDOUT
                )
            processes.append(process)
        yield
    finally:
        for process in reversed(processes):
            if process.returncode is None:
                process.terminate()
            await process.wait()


if __name__ == "__main__":
    with mock.patch("pol_abci.app.run.PolApplication", ByzantineApplication):
        main(["start", "--home", sys.argv[1]])
