"""A digits chain under the consensus driver: mines, submits, and asks one node at a time."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.client.transactions import build_register_validator, build_transfer, build_unjail
from pol_abci.rules.errors import CODE_OK, PendingProof
from pol_abci.rules.genesis import genesis_to_json
from pol_abci.rules.params import Amount
from tests.abci.blocks import compute_consensus_address
from tests.abci.digits_chain import (
    CHAIN_ID,
    Clock,
    DigitsNode,
    make_consensus_key,
    make_genesis,
    make_key,
    search_claim,
    sign_claim,
)
from tests.abci.driver import ACCEPT, ConsensusDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
    from pathlib import Path

    from pol_abci.app.application import PolApplication
    from pol_abci.rules.genesis import Genesis

FEE = 1_000
STARTED_HEIGHT = 2
"""Of the last block before the first that can hold a proof."""


@dataclass
class DigitsChain:
    """The driver, the nodes that it drives, and the clock that all nodes read."""

    driver: ConsensusDriver[PolApplication]
    nodes: list[DigitsNode]
    clock: Clock

    @property
    def app(self) -> PolApplication:
        return self.driver.app

    async def begin(self) -> None:
        """Make the blocks before the first that can hold a proof."""
        await self.driver.make_blocks(STARTED_HEIGHT)
        self.clock.now_ms = self.driver.next_time_ms

    # -- transactions

    def mine(self, number: int, index: int = 0) -> bytes:
        """A proof of account `number` that is good at once."""
        return sign_claim(
            make_key(number), search_claim(self.nodes[index], make_key(number).address)
        )

    async def submit(self, raw: bytes) -> None:
        """Have every node hear of a proof, verify it and take it into its mempool."""
        self.clock.now_ms = max(self.clock.now_ms, self.driver.next_time_ms)
        for index, node in enumerate(self.nodes):
            assert (await self.check(raw, index)).code == PendingProof.code
            node.verifier.walk_queued()
            reply = await self.driver.add_tx(raw, index=index, gossip=False)
            assert reply.code == CODE_OK, reply.log

    async def check(
        self, raw: bytes, index: int = 0, kind: pb.CheckTxType.ValueType = pb.NEW
    ) -> pb.ResponseCheckTx:
        """CheckTx of one node; no mempool takes notice."""
        app = self.driver.nodes[index].app
        return await app.check_tx(pb.RequestCheckTx(tx=raw, type=kind))

    # -- calls of the consensus connection that decide nothing

    def make_block_request(
        self,
        txs: Sequence[bytes] = (),
        *,
        time_ms: int | None = None,
        absent: Collection[bytes] = (),
        misbehaviour: Sequence[bytes] = (),
    ) -> pb.RequestFinalizeBlock:
        """The next height, with these transactions."""
        request = self.driver._make_request(time_ms, None, absent, misbehaviour)
        request.txs.extend(txs)
        return request

    async def prepare(
        self,
        txs: Sequence[bytes],
        *,
        index: int = 0,
        max_tx_bytes: int = 1_000_000,
        time_ms: int | None = None,
        misbehaviour: Sequence[bytes] = (),
    ) -> list[bytes]:
        """What a node proposes for the next height, of a mempool that holds `txs`."""
        request = make_prepare_request(
            self.make_block_request(txs, time_ms=time_ms, misbehaviour=misbehaviour), max_tx_bytes
        )
        return list((await self.driver.nodes[index].app.prepare_proposal(request)).txs)

    async def is_accepted(
        self,
        txs: Sequence[bytes],
        *,
        index: int = 0,
        time_ms: int | None = None,
        misbehaviour: Sequence[bytes] = (),
    ) -> bool:
        """Whether a node accepts such a block at the next height."""
        block = self.make_block_request(txs, time_ms=time_ms, misbehaviour=misbehaviour)
        app = self.driver.nodes[index].app
        return (await app.process_proposal(make_process_request(block))).status == ACCEPT

    async def finalize(
        self, txs: Sequence[bytes], *, index: int = 0, time_ms: int | None = None
    ) -> pb.ResponseFinalizeBlock:
        """What a node makes of such a block, which nobody commits."""
        request = self.make_block_request(txs, time_ms=time_ms)
        return await self.driver.nodes[index].app.finalize_block(request)


@asynccontextmanager
async def run_chain(
    path: Path,
    *,
    nodes: int = 1,
    genesis: Genesis | None = None,
    initial_height: int = 1,
    block_interval_ms: int = 1_000,
    snapshot_interval: int = 0,
) -> AsyncIterator[DigitsChain]:
    """A chain of nodes in folders beneath `path`, after InitChain."""
    genesis = genesis or make_genesis()
    clock = Clock()
    members = [
        DigitsNode(path / f"node{index}", genesis, clock, initial_height, snapshot_interval)
        for index in range(nodes)
    ]
    driver = ConsensusDriver(
        [make_factory(node) for node in members],
        app_state=encode_app_state(genesis),
        chain_id=CHAIN_ID,
        initial_height=initial_height,
        genesis_time_ms=clock.now_ms,
        block_interval_ms=block_interval_ms,
    )
    try:
        await driver.start()
        yield DigitsChain(driver, members, clock)
    finally:
        for node in members:
            node.close()


def encode_app_state(genesis: Genesis) -> bytes:
    return json.dumps(genesis_to_json(genesis)).encode()


def make_factory(node: DigitsNode) -> Callable[[], Awaitable[PolApplication]]:
    async def factory() -> PolApplication:
        return node.restart()

    return factory


def make_prepare_request(
    block: pb.RequestFinalizeBlock, max_tx_bytes: int
) -> pb.RequestPrepareProposal:
    return pb.RequestPrepareProposal(
        max_tx_bytes=max_tx_bytes,
        txs=block.txs,
        misbehavior=block.misbehavior,
        height=block.height,
        time=block.time,
        proposer_address=block.proposer_address,
    )


def make_process_request(block: pb.RequestFinalizeBlock) -> pb.RequestProcessProposal:
    return pb.RequestProcessProposal(
        txs=block.txs,
        proposed_last_commit=block.decided_last_commit,
        misbehavior=block.misbehavior,
        height=block.height,
        time=block.time,
        proposer_address=block.proposer_address,
    )


def get_consensus_address(number: int) -> bytes:
    """What CometBFT calls the validator of account `number`."""
    return compute_consensus_address(make_consensus_key(number).public_key)


def transfer(
    sender: int,
    sequence: int,
    *,
    recipient: int = 9,
    amount: int = 5_000,
    fee: int = FEE,
    chain_id: str = CHAIN_ID,
) -> bytes:
    return build_transfer(
        make_key(sender),
        chain_id,
        sequence=sequence,
        fee=Amount(fee),
        recipient=make_key(recipient).address,
        amount=Amount(amount),
    )


def register(sender: int, sequence: int, *, consensus: int | None = None) -> bytes:
    return build_register_validator(
        make_key(sender),
        CHAIN_ID,
        sequence=sequence,
        fee=Amount(FEE),
        consensus_seed=make_consensus_key(consensus or sender).seed,
    )


def unjail(sender: int, sequence: int) -> bytes:
    return build_unjail(make_key(sender), CHAIN_ID, sequence=sequence, fee=Amount(FEE))
