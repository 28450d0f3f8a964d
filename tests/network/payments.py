"""Payments that go on whatever happens to a network, and what became of each."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pol_abci.client.keys import KeyFile
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.client.transactions import build_transfer
from pol_abci.client.tx_index import find_tx
from pol_abci.rules.errors import CODE_OK
from pol_abci.rules.params import Amount

if TYPE_CHECKING:
    from tests.network.network import Network, Node

LOOKS, LOOK_S = 8, 0.25
"""At one node for a payment, before it is offered to the next one."""


@dataclass(slots=True)
class Payments:
    """Transfers of one unit from node 1's account to node 0's, one after the other.

    Each is offered to one node after the other until a node says that a block has it:
    `committed` is that height by hash. A mempool may lose it in a fault, a block may not.
    """

    network: Network
    committed: dict[bytes, int] = field(default_factory=dict)

    async def go_on(self) -> None:
        """Pay until cancelled."""
        recipient, payer = self.network.nodes[:2]
        key = KeyFile.read(payer.home.account_file).unlock()
        for sequence in itertools.count(1):
            raw = build_transfer(
                key,
                payer.home.settings.chain_id,
                sequence=sequence,
                fee=payer.home.genesis.params.ledger.min_fee,
                recipient=recipient.address,
                amount=Amount(1),
            )
            tx_hash = hashlib.sha256(raw).digest()
            self.committed[tx_hash] = await self._see_through(raw, tx_hash)

    def assert_all_there(self) -> None:
        """Find each where a node said that it is; to be called when all heights were checked."""
        for tx_hash, height in self.committed.items():
            if height <= self.network.checked:
                assert self.network.tx_heights.get(tx_hash) == height, tx_hash.hex()

    async def _see_through(self, raw: bytes, tx_hash: bytes) -> int:
        for node in itertools.cycle(self.network.nodes):
            height = await _offer(node, raw, tx_hash)
            if height is not None:
                return height
        raise AssertionError("a network without nodes")


async def _offer(node: Node, raw: bytes, tx_hash: bytes) -> int | None:
    """Offer a transaction to a node, and look there for a while for the block that has it."""
    for look in range(LOOKS):
        try:
            if look == 0:
                await node.rpc.broadcast_tx_sync(raw)
            found = await find_tx(node.rpc, tx_hash)
        except NodeUnreachable:
            await asyncio.sleep(LOOK_S)
            return None
        except RpcError:  # it has these bytes, or is just starting
            found = None
        if found is not None:
            assert found.code == CODE_OK, f"a payment failed in block {found.height}"
            return found.height
        await asyncio.sleep(LOOK_S)
    return None
