"""Time of a block of 200 transfers over stores that hold a thousand to a million accounts.

A block is what the application does with a decided one: `process_block` on a fork, the new trees,
one synced commit. Signatures were checked when the transfers came in and are not part of it. The
stores take turns, a block each, and medians are compared with the store of a thousand accounts.
The last store has 10,000 accounts that somebody ground into one bucket, and every block pays one
of them.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from benchmarks.figures import Figure, main
from pol_abci.node.presets import load_preset
from pol_abci.rules import keys
from pol_abci.rules.block import BlockContext, ChainContext
from pol_abci.rules.codec import Account, Chain, SignedTx, Transfer
from pol_abci.rules.genesis import Genesis, process_genesis
from pol_abci.rules.ledger import get_account
from pol_abci.rules.merkle import bucket_of
from pol_abci.rules.params import Address, Amount
from pol_abci.rules.state import Overlay, RememberedState
from pol_abci.rules.transition import STARTED_STAGE, process_block
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (1_000, 10_000, 100_000, 1_000_000)
GROUND = 10_000
TRANSFERS = 200
BLOCKS = 25
"""Measured of each store, after one that warms it up."""
WEIGHTS_BYTES = 30_000
BALANCE = Amount(10**9)
CHAIN = ChainContext("benchmark", load_preset("digits").params)


def make_address(number: int) -> Address:
    """Nobody has the key of it."""
    return Address(hashlib.sha256(number.to_bytes(8, "big")).digest()[:20])


@dataclass
class Ledger:
    """A store with numbered accounts, and the blocks made on it."""

    store: Store
    accounts: int
    payee: Address | None = None
    choice: random.Random = field(default_factory=lambda: random.Random(1))
    times_ms: list[float] = field(default_factory=list)

    def make_block(self) -> None:
        """Process and commit a block of transfers between accounts chosen by chance."""
        senders = self.choice.sample(range(self.accounts), TRANSFERS)
        recipients = [make_address(self.choice.randrange(self.accounts)) for _ in senders]
        if self.payee is not None:
            recipients[0] = self.payee
        txs = [
            self.make_transfer(make_address(sender), recipient)
            for sender, recipient in zip(senders, recipients, strict=True)
        ]
        height = self.store.height + 1
        block = BlockContext(
            height=height, initial_height=1, time_ms=height, proposer=b"", votes=(), misbehaviour=()
        )
        begun = time.perf_counter()
        state = Overlay(RememberedState(self.store.state()))
        outcome = process_block(state, CHAIN, block, txs, {})
        self.store.commit(self.store.prepare(state.changes, None), height, None)
        self.times_ms.append((time.perf_counter() - begun) * 1_000)
        assert all(result.error is None for result in outcome.txs)

    def make_transfer(self, sender: Address, recipient: Address) -> SignedTx:
        """A transfer as it is once its form and signature were found right."""
        return SignedTx(
            body_bytes=b"",
            public_key=b"",
            signature=b"",
            address=sender,
            sequence=get_account(self.store.state(), sender).sequence + 1,
            fee=CHAIN.params.ledger.min_fee,
            message=Transfer(recipient, Amount(1)),
            hash=b"",
        )


def fill(folder: Path, accounts: int) -> Store:
    """Make a store with a chain's first state and so many accounts, in one commit."""
    store = Store.open(folder, chain_id=CHAIN.chain_id, genesis_digest=bytes(32))
    state = Overlay(store.state())
    genesis = Genesis(params=CHAIN.params, accounts=(), ring=(), weights_root=bytes(32))
    process_genesis(state, CHAIN.chain_id, genesis)
    state.set(keys.chain(), Chain(stage=STARTED_STAGE).encode())
    account = Account(balance=BALANCE).encode()
    changes = {keys.account(make_address(number)): account for number in range(accounts)}
    store.commit(store.prepare(state.changes | changes, bytes(WEIGHTS_BYTES)), 1, None)
    return store


def grind(store: Store) -> Address:
    """Add accounts to the bucket of one of the accounts that is there, and name that one.

    Finding addresses whose keys belong there takes 65,536 hashes each, so others are put in their
    place: a bucket that is read costs the same.
    """
    payee = make_address(0)
    bucket = bucket_of(keys.account(payee))
    account = Account(balance=BALANCE).encode()
    changes = {keys.account(make_address(10**9 + i)): account for i in range(GROUND)}
    with mock.patch("pol_abci.store.layout.bucket_of", return_value=bucket):
        store.commit(store.prepare(changes, None), store.height + 1, None)
    return payee


def measure() -> Iterator[Figure]:
    """Time the blocks of every store in turn."""
    with tempfile.TemporaryDirectory() as folder:
        ledgers = [Ledger(fill(Path(folder, str(size)), size), size) for size in SIZES]
        ground = Ledger(fill(Path(folder, "ground"), SIZES[0]), SIZES[0])
        ground.payee = grind(ground.store)
        ledgers.append(ground)
        for _ in range(1 + BLOCKS):
            for ledger in ledgers:
                ledger.make_block()
        times_ms = [statistics.median(ledger.times_ms[1:]) for ledger in ledgers]
        for ledger in ledgers:
            ledger.store.close()
    least = times_ms[0]
    names = [f"over {size:,} accounts" for size in SIZES[1:]]
    names.append(f"paying one of {GROUND:,} accounts ground into a bucket")
    for name, time_ms in zip(names, times_ms[1:], strict=True):
        yield Figure(
            name=f"block of {TRANSFERS} transfers {name}",
            value=f"{time_ms:.1f} ms",
            beside=f"{least:.1f} ms over {SIZES[0]:,} accounts",
            ratio=time_ms / least,
            goal="flat",
        )


if __name__ == "__main__":
    main(measure)
