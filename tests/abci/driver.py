"""CometBFT's part of ABCI 2.0, in this process: it drives one application or several in lock step.

It calls what the specification's grammar allows (CometBFT v0.38, spec/abci, "CometBFT's expected
behavior"), keeps what CometBFT would keep (decided blocks, validator sets, mempools), and raises
`SpecificationBroken` where an application's answer would stop CometBFT or fork the chain. Vote
extensions are left out: this chain does not switch them on. State sync is in `state_sync.py`.

    driver = ConsensusDriver([open_app], app_state=genesis)
    await driver.start()
    await driver.add_tx(tx)
    block = await driver.make_block()
    await driver.make_block(crash=CrashPoint.AFTER_FINALIZE)

Applications are told apart by their index in `factories`. A factory gives an application over that
node's disk; after a crash the old object is handed to `abandon` and the factory is called again.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.abci.generated.types import params_pb2, validator_pb2
from tests.abci.blocks import (
    Block,
    MessageT,
    SpecificationBroken,
    change_set,
    compute_consensus_address,
    compute_size_in_block,
    copy,
    get_hashed,
    to_ms,
    to_timestamp,
    to_update,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from google.protobuf.message import Message

    from pol_abci.abci.application import Application

AppT = TypeVar("AppT", bound="Application")

ACCEPT = pb.ResponseProcessProposal.ACCEPT
REJECT = pb.ResponseProcessProposal.REJECT


class ProposalRejected(Exception):
    """ProcessProposal refused transactions that the test gave."""


class AlreadyInMempool(Exception):
    """CometBFT does not ask the application about a transaction that it holds."""


class CrashPoint(enum.Enum):
    """Where a node dies within a height. From DECIDED on, the block is in CometBFT's store."""

    BEFORE_PREPARE = enum.auto()
    AFTER_PREPARE = enum.auto()
    AFTER_PROCESS = enum.auto()
    DECIDED = enum.auto()
    AFTER_FINALIZE = enum.auto()
    AFTER_COMMIT = enum.auto()


@dataclass
class Node(Generic[AppT]):
    """One application with its CometBFT's mempool; `app` is None while it is down.

    `base` is the lowest height that CometBFT was told to keep, 0 when it was told nothing.
    """

    factory: Callable[[], Awaitable[AppT]]
    running: AppT | None = None
    mempool: dict[bytes, None] = field(default_factory=dict)
    base: int = 0

    @property
    def app(self) -> AppT:
        assert self.running is not None, "start() first"
        return self.running


class ConsensusDriver(Generic[AppT]):
    """One chain, and the applications that execute it.

    Parameters
    ----------
    factories
        One a node; each opens the application over what that node has committed.
    app_state
        Genesis' `app_state`, as JSON bytes.
    validators
        (ed25519 public key, power) of genesis.json; InitChain's answer replaces them.
    genesis_time_ms, block_interval_ms
        Header time of the first block, and what each later one adds unless told otherwise.
    max_tx_bytes
        What PrepareProposal may fill.
    abandon
        Takes an application that "crashed": closes what one process cannot open twice, and nothing
        else.
    """

    def __init__(
        self,
        factories: Sequence[Callable[[], Awaitable[AppT]]],
        *,
        app_state: bytes = b"{}",
        chain_id: str = "driven",
        validators: Sequence[tuple[bytes, int]] = (),
        initial_height: int = 1,
        app_version: int = 1,
        genesis_time_ms: int = 1_700_000_000_000,
        block_interval_ms: int = 1_000,
        max_tx_bytes: int = 1_000_000,
        abandon: Callable[[AppT], Awaitable[None]] | None = None,
    ) -> None:
        self.nodes = [Node(factory) for factory in factories]
        self.chain_id = chain_id
        self.initial_height = initial_height
        self.max_tx_bytes = max_tx_bytes
        self.genesis_time_ms = genesis_time_ms
        self.block_interval_ms = block_interval_ms
        self.blocks: list[Block] = []
        self.app_hash: bytes | None = None  # None before InitChain
        self._abandon = abandon
        self._init_chain = pb.RequestInitChain(
            time=to_timestamp(genesis_time_ms),
            chain_id=chain_id,
            consensus_params=params_pb2.ConsensusParams(
                block=params_pb2.BlockParams(max_bytes=max_tx_bytes + 10_000, max_gas=-1),
                validator=params_pb2.ValidatorParams(pub_key_types=["ed25519"]),
                version=params_pb2.VersionParams(app=app_version),
            ),
            validators=[to_update(key, power) for key, power in validators],
            app_state_bytes=app_state,
            initial_height=initial_height,
        )
        self._init_chain_reply: pb.ResponseInitChain | None = None
        # sets[0] signs the height to come, sets[1] the one after it; last_set signed the last one
        self._sets: list[dict[bytes, int]] = []
        self._last_set: dict[bytes, int] = {}

    # ---- what a test reads ----

    @property
    def app(self) -> AppT:
        """The first node's application."""
        return self.nodes[0].app

    @property
    def height(self) -> int:
        """Of the last decided block; below the initial height when there is none."""
        return self.initial_height - 1 + len(self.blocks)

    @property
    def next_time_ms(self) -> int:
        """The header time that the next block has by default."""
        if not self.blocks:
            return self.genesis_time_ms
        return to_ms(self.blocks[-1].request.time) + self.block_interval_ms

    @property
    def validators(self) -> dict[bytes, int]:
        """Consensus key to power, of the set that signs the next block."""
        return dict(self._sets[0])

    def get_app_hash(self, height: int) -> bytes:
        """The app hash that the chain came to at a height."""
        return self.blocks[height - self.initial_height].reply.app_hash

    # ---- starting, crashing ----

    async def start(self) -> None:
        """Bring every node up that is down: handshake and replay."""
        for node in self.nodes:
            if node.running is None:
                await self._start_node(node)

    async def crash(self, index: int = 0) -> None:
        """Kill a node between blocks, and start it again."""
        await self._crash_node(self.nodes[index])
        await self._start_node(self.nodes[index])

    async def stop(self) -> None:
        """Abandon every application: the test is over."""
        for node in self.nodes:
            await self._crash_node(node)

    async def _crash_node(self, node: Node[AppT]) -> None:
        app, node.running = node.running, None
        node.mempool.clear()  # CometBFT stops with its application and keeps no mempool
        if app is not None and self._abandon is not None:
            await self._abandon(app)

    async def _start_node(self, node: Node[AppT]) -> None:
        """CometBFT's handshake: Info, InitChain at height 0, then the blocks that are missing."""
        node.running = await node.factory()
        info = await node.app.info(pb.RequestInfo(version="0.38.25", abci_version="2.0.0"))
        height = info.last_block_height
        if height > self.height:
            raise SpecificationBroken(f"the application is at {height}, the chain at {self.height}")
        if height == 0:
            await self._init_node(node)
        else:
            self._expect(info.last_block_app_hash, self.get_app_hash(height), "Info's app hash")
        await self.replay(node, max(height + 1, self.initial_height))

    async def replay(self, node: Node[AppT], first: int) -> None:
        """Have a node execute the chain's blocks from height `first` on."""
        for block in self.blocks[first - self.initial_height :]:
            reply = await self._finalize(node, block.request)
            self._expect(get_hashed(reply), get_hashed(block.reply), f"replay of {block.height}")
            await self._commit(node, block.request.height)

    async def _init_node(self, node: Node[AppT]) -> None:
        reply = copy(await node.app.init_chain(copy(self._init_chain)))
        if self._init_chain_reply is not None:
            self._expect(reply, self._init_chain_reply, "InitChain's answer")
            return
        self._init_chain_reply = reply
        self.app_hash = reply.app_hash
        first_set = change_set({}, reply.validators or self._init_chain.validators)
        if not first_set:
            raise SpecificationBroken("no validators in genesis, nor in InitChain's answer")
        self._sets = [first_set, dict(first_set)]

    # ---- the mempool ----

    async def add_tx(self, tx: bytes, *, index: int = 0, gossip: bool = True) -> pb.ResponseCheckTx:
        """Submit to one node; what it accepts is offered to all others.

        Returns
        -------
        The first node's answer.

        Raises
        ------
        AlreadyInMempool
            That node holds it.
        """
        if tx in self.nodes[index].mempool:
            raise AlreadyInMempool
        reply = await self._check_tx(self.nodes[index], tx, pb.NEW)
        if reply.code == 0 and gossip:
            for node in self.nodes:
                if node.running is not None and tx not in node.mempool:
                    await self._check_tx(node, tx, pb.NEW)
        return reply

    async def _check_tx(
        self, node: Node[AppT], tx: bytes, kind: pb.CheckTxType.ValueType
    ) -> pb.ResponseCheckTx:
        reply = copy(await node.app.check_tx(pb.RequestCheckTx(tx=tx, type=kind)))
        if reply.code == 0:
            node.mempool[tx] = None
        else:
            node.mempool.pop(tx, None)
        return reply

    # ---- one height ----

    async def make_block(
        self,
        txs: Sequence[bytes] | None = None,
        *,
        time_ms: int | None = None,
        proposer: bytes | None = None,
        proposing_node: int = 0,
        absent: Collection[bytes] = (),
        misbehaviour: Sequence[bytes] = (),
        failed_rounds: int = 0,
        is_catching_up: bool = False,
        crash: CrashPoint | None = None,
        crashing_node: int = 0,
    ) -> Block:
        """Decide, execute and commit one block, then recheck the mempools.

        Parameters
        ----------
        txs
            The proposal of a proposer outside this process; by default `proposing_node` prepares.
        time_ms
            The header time.
        proposer, absent, misbehaviour
            Consensus addresses: who proposes (by default in turn), who did not sign the previous
            block, whose double vote is reported.
        failed_rounds
            Rounds that propose and process, and decide nothing.
        is_catching_up
            The height has no round here: blocks come decided, ProcessProposal is not called.
        crash, crashing_node
            That node dies there and is started again; an undecided height then has another round.

        Raises
        ------
        ProposalRejected
            Of `txs`; nothing was decided.
        """
        node = self.nodes[crashing_node]
        request = self._make_request(time_ms, proposer, absent, misbehaviour)
        for _ in range(failed_rounds):
            await self._propose(self.nodes[proposing_node], request, txs)
            await self._process_everywhere(request, given=txs is not None)
        if crash is CrashPoint.BEFORE_PREPARE:
            await self.crash(crashing_node)
        await self._propose(self.nodes[proposing_node], request, txs)
        if crash is CrashPoint.AFTER_PREPARE:
            await self.crash(crashing_node)
            await self._propose(self.nodes[proposing_node], request, txs)
        if not is_catching_up:
            await self._process_everywhere(request, given=txs is not None)
        if crash is CrashPoint.AFTER_PROCESS:
            await self.crash(crashing_node)
            await self._propose(self.nodes[proposing_node], request, txs)
            await self._process_everywhere(request, given=txs is not None)
        if crash is CrashPoint.DECIDED:
            await self._crash_node(node)
        await self._execute(request, node, crash)
        await self.start()
        await self._update_mempools(self.blocks[-1])
        return self.blocks[-1]

    async def make_blocks(self, count: int) -> list[Block]:
        """So many blocks of whatever the mempools hold."""
        return [await self.make_block() for _ in range(count)]

    async def _execute(
        self, request: pb.RequestFinalizeBlock, crashing: Node[AppT], crash: CrashPoint | None
    ) -> None:
        """FinalizeBlock and Commit on all nodes that are up, with one answer for the chain."""
        replies = [
            (node, await self._finalize(node, request)) for node in self.nodes if node.running
        ]
        if not replies:  # the only node is down: it executes the block when it replays
            replies = [(crashing, await self._finalize_after_crash(crashing, request))]
            crash = None
        first = replies[0][1]
        for _, reply in replies[1:]:
            self._expect(get_hashed(reply), get_hashed(first), f"block {request.height}")
        if crash is CrashPoint.AFTER_FINALIZE:
            await self._crash_node(crashing)
        self._record(Block(request, first))
        for node, _ in replies:
            if node.running is not None:
                await self._commit(node, request.height)
        if crash is CrashPoint.AFTER_COMMIT:
            await self._crash_node(crashing)

    async def _finalize_after_crash(
        self, node: Node[AppT], request: pb.RequestFinalizeBlock
    ) -> pb.ResponseFinalizeBlock:
        await self._start_node(node)
        return await self._finalize(node, request)

    async def _propose(
        self,
        node: Node[AppT],
        block: pb.RequestFinalizeBlock,
        txs: Sequence[bytes] | None,
    ) -> None:
        """Fill the block, by the proposer's PrepareProposal unless transactions are given."""
        if txs is None:
            txs = await self._prepare(node, block)
        del block.txs[:]
        block.txs.extend(txs)
        block.hash = b""
        block.hash = hashlib.sha256(block.SerializeToString(deterministic=True)).digest()

    async def _prepare(self, node: Node[AppT], block: pb.RequestFinalizeBlock) -> Sequence[bytes]:
        commit = pb.ExtendedCommitInfo(
            votes=[
                pb.ExtendedVoteInfo(validator=vote.validator, block_id_flag=vote.block_id_flag)
                for vote in block.decided_last_commit.votes
            ]
        )
        reaped, size = [], 0
        for tx in node.mempool:
            size += compute_size_in_block(tx)
            if size > self.max_tx_bytes:
                break
            reaped.append(tx)
        request = pb.RequestPrepareProposal(
            max_tx_bytes=self.max_tx_bytes,
            txs=reaped,
            local_last_commit=commit,
            misbehavior=block.misbehavior,
            height=block.height,
            time=block.time,
            next_validators_hash=block.next_validators_hash,
            proposer_address=block.proposer_address,
        )
        reply = await self._keeps_state(node, node.app.prepare_proposal, request)
        if sum(map(compute_size_in_block, reply.txs)) > self.max_tx_bytes:
            raise SpecificationBroken("PrepareProposal filled more than max_tx_bytes")
        return tuple(reply.txs)

    async def _process_everywhere(self, block: pb.RequestFinalizeBlock, *, given: bool) -> None:
        request = pb.RequestProcessProposal(
            txs=block.txs,
            proposed_last_commit=block.decided_last_commit,
            misbehavior=block.misbehavior,
            hash=block.hash,
            height=block.height,
            time=block.time,
            next_validators_hash=block.next_validators_hash,
            proposer_address=block.proposer_address,
        )
        verdicts = [
            (await self._keeps_state(node, node.app.process_proposal, request)).status
            for node in self.nodes
        ]
        if any(verdict not in {ACCEPT, REJECT} for verdict in verdicts):
            raise SpecificationBroken("ProcessProposal neither accepted nor rejected")
        if len(set(verdicts)) > 1:
            raise SpecificationBroken(f"ProcessProposal: nodes do not agree at {block.height}")
        if verdicts[0] == REJECT:
            if given:
                raise ProposalRejected
            raise SpecificationBroken("a prepared proposal was rejected: no block could be made")

    async def _keeps_state(
        self,
        node: Node[AppT],
        call: Callable[[Message], Awaitable[MessageT]] | Callable[..., Awaitable[MessageT]],
        request: Message,
    ) -> MessageT:
        """Make a call that may not change what is committed."""
        before = await node.app.info(pb.RequestInfo())
        reply = copy(await call(copy(request)))
        self._expect(await node.app.info(pb.RequestInfo()), before, "Info after a proposal")
        return reply

    async def _finalize(
        self, node: Node[AppT], request: pb.RequestFinalizeBlock
    ) -> pb.ResponseFinalizeBlock:
        reply = await self._keeps_state(node, node.app.finalize_block, request)
        if len(reply.tx_results) != len(request.txs):
            raise SpecificationBroken(
                f"{len(reply.tx_results)} results for {len(request.txs)} transactions"
            )
        return reply

    async def _commit(self, node: Node[AppT], height: int) -> None:
        reply = copy(await node.app.commit(pb.RequestCommit()))
        if not 0 <= reply.retain_height <= height:
            raise SpecificationBroken(f"retain_height {reply.retain_height} at height {height}")
        node.base = max(node.base, reply.retain_height)
        info = await node.app.info(pb.RequestInfo())
        self._expect(info.last_block_height, height, "Info's height after Commit")
        self._expect(info.last_block_app_hash, self.get_app_hash(height), "Info after Commit")

    def _record(self, block: Block) -> None:
        """What CometBFT stores of an executed block; validator updates wait one height."""
        following = change_set(self._sets[1], block.reply.validator_updates)
        if not following:
            raise SpecificationBroken("the validator set would be empty")
        self._last_set = self._sets[0]
        self._sets = [self._sets[1], following]
        self.app_hash = block.reply.app_hash
        self.blocks.append(block)

    async def _update_mempools(self, block: Block) -> None:
        """Drop what the block holds, recheck the rest."""
        for node in self.nodes:
            for tx in block.txs:
                node.mempool.pop(tx, None)
            for tx in list(node.mempool):
                await self._check_tx(node, tx, pb.RECHECK)

    def _make_request(
        self,
        time_ms: int | None,
        proposer: bytes | None,
        absent: Collection[bytes],
        misbehaviour: Sequence[bytes],
    ) -> pb.RequestFinalizeBlock:
        """The next height's header, as far as ABCI shows it, without transactions."""
        height = self.height + 1
        time_ms = self.next_time_ms if time_ms is None else time_ms
        if self.blocks and time_ms <= to_ms(self.blocks[-1].request.time):
            raise ValueError("header times rise from block to block")
        if proposer is None:
            addresses = sorted(map(compute_consensus_address, self._sets[0]))
            proposer = addresses[height % len(addresses)]
        powers = {compute_consensus_address(key): power for key, power in self._last_set.items()}
        votes = [
            pb.VoteInfo(
                validator=pb.Validator(address=address, power=powers[address]),
                block_id_flag=validator_pb2.BLOCK_ID_FLAG_ABSENT
                if address in absent
                else validator_pb2.BLOCK_ID_FLAG_COMMIT,
            )
            for address in sorted(powers, key=lambda address: (-powers[address], address))
        ]
        return pb.RequestFinalizeBlock(
            decided_last_commit=pb.CommitInfo(votes=votes),
            misbehavior=[
                pb.Misbehavior(
                    type=pb.DUPLICATE_VOTE,
                    validator=pb.Validator(address=address, power=powers.get(address, 0)),
                    height=height - 1,
                    time=to_timestamp(time_ms - 1),
                    total_voting_power=sum(powers.values()),
                )
                for address in misbehaviour
            ],
            height=height,
            time=to_timestamp(time_ms),
            next_validators_hash=hashlib.sha256(
                repr(sorted(self._sets[1].items())).encode()
            ).digest(),
            proposer_address=proposer,
        )

    @staticmethod
    def _expect(got: object, expected: object, what: str) -> None:
        if got != expected:
            raise SpecificationBroken(f"{what} is {got!r}, the chain has {expected!r}")
