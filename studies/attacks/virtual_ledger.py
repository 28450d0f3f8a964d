"""A chain's state in memory, moved by the package's own `process_block`, in virtual time.

Walks are not redone here: what each is worth comes in as a verdict, as it does in a node.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.client.keys import AccountKey
from pol_abci.client.transactions import build_proof
from pol_abci.rules.address import compute_consensus_address
from pol_abci.rules.block import BlockContext, ChainContext
from pol_abci.rules.errors import InvalidTx
from pol_abci.rules.genesis import Genesis, GenesisAccount, process_genesis
from pol_abci.rules.params import Amount
from pol_abci.rules.proof import DIGEST_BYTES, Claim, WalkClaim
from pol_abci.rules.signing import authenticate
from pol_abci.rules.state import DictState, Overlay
from pol_abci.rules.transition import get_head, process_block

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pol_abci.rules.block import BlockOutcome
    from pol_abci.rules.codec import Head, SignedTx
    from pol_abci.rules.params import Params
    from pol_abci.rules.proof import WalkVerdict

START_MS = 1_000_000
ROOT = bytes(32)
CONSENSUS_KEY = bytes(range(32))


def make_key(number: int) -> AccountKey:
    """An account key that is the same in every run."""
    return AccountKey(bytes([number]) * 32)


class VirtualLedger:
    """A chain that has started, with the first key's account as its only validator."""

    def __init__(self, params: Params, chain_id: str) -> None:
        self.params = replace(params, scheme=replace(params.walk, stamp_bits=0))
        self.chain_id = chain_id
        self.time_ms = START_MS
        self._state = Overlay(DictState())
        self._height = 0
        owner = make_key(1).address
        account = GenesisAccount(address=owner, balance=Amount(10**9), consensus_key=CONSENSUS_KEY)
        genesis = Genesis(
            params=self.params, accounts=(account,), ring=((owner, 1),), weights_root=ROOT
        )
        process_genesis(self._state, chain_id, genesis)
        for _ in range(2):
            self.run_block(START_MS)

    @property
    def head(self) -> Head:
        """As the state has it."""
        return get_head(self._state)

    def make_claim(self, key: AccountKey, nonce: int) -> WalkClaim:
        """A claim of a shortest walk from the head, whose digests nobody looks at here."""
        steps = self.params.walk.min_steps
        return WalkClaim(
            generation=self.head.generation,
            address=key.address,
            nonce=nonce,
            steps=steps,
            step_digests=bytes(DIGEST_BYTES * steps),
            weights_root=ROOT,
        )

    def sign(self, key: AccountKey, claim: WalkClaim) -> bytes:
        """The transaction that submits a claim."""
        return build_proof(key, self.chain_id, claim, seed=self.head.seed, stamp_bits=0)

    def run_block(
        self,
        time_ms: int,
        txs: Sequence[bytes] = (),
        verdicts: Mapping[Claim, WalkVerdict] | None = None,
    ) -> BlockOutcome:
        """Apply the next block, which has this time."""
        self._height, self.time_ms = self._height + 1, time_ms
        block = BlockContext(
            height=self._height,
            initial_height=1,
            time_ms=time_ms,
            proposer=compute_consensus_address(CONSENSUS_KEY),
        )
        chain = ChainContext(self.chain_id, self.params)
        read = [self._read(raw) for raw in txs]
        return process_block(self._state, chain, block, read, verdicts or {})

    def _read(self, raw: bytes) -> SignedTx | InvalidTx:
        try:
            return authenticate(self.chain_id, raw)
        except InvalidTx as error:
            return error
