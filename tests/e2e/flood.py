"""Floods of transactions that are worth nothing, over a node's RPC."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pol_abci.client.chain import get_chain_status
from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.client.transactions import build_proof, build_transfer
from pol_abci.rules.errors import StaleProof
from pol_abci.rules.params import MAX_TX_BYTES, Address, Amount
from pol_abci.rules.proof import DIGEST_BYTES, WalkClaim
from tests.e2e.quick_home import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pol_abci.client.chain import ChainStatus
    from pol_abci.node.home import Home

SENDERS = 8
RPC_ERROR = -1
"""Counted where the node answered with no code: a body that it does not take, or a full mempool."""


@dataclass(slots=True)
class Flood:
    """What has been sent: `codes` counts CheckTx's answers."""

    make: Callable[[ChainStatus], bytes]
    codes: Counter[int] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        """Transactions that were answered."""
        return self.codes.total()

    async def wait_for_sent(self, count: int) -> None:
        """Wait until so many were answered."""
        await wait_until(lambda: self.sent >= count)

    async def run(self, url: str) -> None:
        """Send until cancelled."""
        async with RpcClient(url) as rpc:
            while True:
                try:
                    status = await get_chain_status(rpc)
                except (NodeUnreachable, RpcError):
                    continue  # too busy with the others
                for _ in range(20):
                    code = await self._send(rpc, self.make(status))
                    self.codes[code] += 1
                    if code == StaleProof.code:
                        break

    @staticmethod
    async def _send(rpc: RpcClient, raw: bytes) -> int:
        try:
            return (await rpc.broadcast_tx_sync(raw)).code
        except (NodeUnreachable, RpcError):
            return RPC_ERROR


@asynccontextmanager
async def flood(url: str, make: Callable[[ChainStatus], bytes]) -> AsyncIterator[Flood]:
    """Flood a node from several connections meanwhile."""
    running = Flood(make)
    tasks = [asyncio.create_task(running.run(url)) for _ in range(SENDERS)]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    faults = [each for each in done if not isinstance(each, asyncio.CancelledError)]
    assert not faults, faults


def make_bad_transactions(home: Home) -> Callable[[ChainStatus], bytes]:
    """Garbage, wrong signatures, unfunded senders, unaffordable amounts, and too long ones."""
    key = AccountKey.load(home.account_file)

    def pay(sender: AccountKey, amount: int, chain_id: str = home.settings.chain_id) -> bytes:
        return build_transfer(
            sender,
            chain_id,
            sequence=1,
            fee=Amount(1_000),
            recipient=Address(secrets.token_bytes(20)),
            amount=Amount(amount),
        )

    kinds: list[Callable[[], bytes]] = [
        lambda: secrets.token_bytes(secrets.randbelow(500)),
        lambda: pay(key, 5, "another-chain"),
        lambda: pay(AccountKey.generate(), 5),
        lambda: pay(key, 2**63 - 1),
    ] * 25
    kinds.append(lambda: secrets.token_bytes(MAX_TX_BYTES + 1))
    return lambda _: secrets.choice(kinds)()


def make_false_proofs(home: Home) -> Callable[[ChainStatus], bytes]:
    """Proofs of honest form, stamped for the head, of walks nobody made, each by a newcomer."""
    walk = home.genesis.params.walk

    def make(status: ChainStatus) -> bytes:
        key = AccountKey.generate()
        claim = WalkClaim(
            generation=status.generation,
            address=key.address,
            nonce=secrets.randbits(64),
            steps=walk.max_steps,
            step_digests=secrets.token_bytes(DIGEST_BYTES * walk.max_steps),
            weights_root=secrets.token_bytes(32),
        )
        return build_proof(
            key, home.settings.chain_id, claim, seed=status.seed, stamp_bits=walk.stamp_bits
        )

    return make
