"""A node whose proposals are hostile.

    python -m tests.network.byzantine start --home HOME

does what `pol-abci start` does, but for its proposals: once the chain has a generation, each time
that its validator's turn comes, it proposes the next of `ATTACKS`, over and over; and once the home
has a file `EXCEED`, a block that its own CometBFT does not take.
"""

from __future__ import annotations

import itertools
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.app.application import PolApplication
from pol_abci.cli import main
from pol_abci.client.keys import AccountKey
from pol_abci.client.transactions import build_proof, build_transfer
from pol_abci.node.init import INITIAL_BALANCE
from pol_abci.node.layout import get_account_file
from pol_abci.rules.errors import (
    FalseProof,
    InsufficientFunds,
    InvalidSignature,
    MalformedTx,
    SecondProof,
    StaleProof,
)
from pol_abci.rules.params import MAX_TX_BYTES, Amount
from pol_abci.rules.proof import DIGEST_BYTES, WalkClaim

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.app.replica import Replica
    from pol_abci.rules.errors import InvalidTx


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
        return [self._pay(2 * INITIAL_BALANCE, self._replica.chain.chain_id)]

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
EXCEED = "exceed"


class ByzantineApplication(PolApplication):
    """The application, but for its proposals."""

    def __init__(self, replica: Replica, snapshot_interval: int) -> None:
        super().__init__(replica, snapshot_interval)
        # `start` has made the home its working directory.
        self._replica = replica
        self._attacker = Attacker(replica, AccountKey.load(get_account_file(Path())))
        self._attacks = itertools.cycle(ATTACKS)

    async def prepare_proposal(
        self, request: abci.RequestPrepareProposal, /
    ) -> abci.ResponsePrepareProposal:
        """Propose the next attack."""
        if self._replica.get_head().generation == 0:
            return await super().prepare_proposal(request)
        has_been_told = Path(EXCEED).exists()  # noqa: ASYNC240 (a local file's name, in tests)
        attack = Attacker.exceed_block if has_been_told else next(self._attacks)
        return abci.ResponsePrepareProposal(txs=attack(self._attacker))


if __name__ == "__main__":
    with mock.patch("pol_abci.app.run.PolApplication", ByzantineApplication):
        main()
