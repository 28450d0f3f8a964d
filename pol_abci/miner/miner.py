"""The miner as a whole: follow, search, submit, tell.

Four tasks on one event loop, and the search in its thread. What can pass, passes in words: a node
that is away, hangs, refuses, or whose chain has not begun. What cannot, ends the miner with an
error in words: another chain behind the same address, a task that this machine cannot run.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from pol_abci.client.answers import BlockHeader
from pol_abci.client.events import Connected, Disconnected, follow_blocks
from pol_abci.client.keys import format_amount
from pol_abci.client.light import LightClient
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError
from pol_abci.learning.exact.machine import open_device
from pol_abci.learning.golden import check_golden_walk
from pol_abci.learning.scheme import get_scheme
from pol_abci.learning.task import load_task
from pol_abci.miner.follow import Follower, HeadMoves
from pol_abci.miner.metrics import MinerMetrics
from pol_abci.miner.search import Search
from pol_abci.miner.status import MinerStatus, StepRate, compute_odds
from pol_abci.miner.submit import Reception, Submitter
from pol_abci.miner.ticket import ChainClock
from pol_abci.monitor import run_monitor
from pol_abci.rules.difficulty import compute_difficulty
from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import compute_genesis_digest, parse_genesis
from pol_abci.rules.ledger import compute_reward
from pol_abci.rules.merkle_proofs import InvalidProof
from pol_abci.rules.params import SCORE_UNIT, Amount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pol_abci.client.keys import AccountKey
    from pol_abci.learning.task import Task
    from pol_abci.miner.follow import CatchUp
    from pol_abci.miner.ticket import Ticket
    from pol_abci.rules.genesis import Genesis

_REPORT_S = 0.5
_RETRY_S = 1.0
_LOOK_S = 5.0
"""Looks at the node come at least this often, should events be lost."""

_PASSING = (NodeUnreachable, RpcError, InvalidProof, HeadMoves)
"""What may be over at the next attempt."""


class WrongChain(PolError):
    """Another chain answers where this miner's was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinerSettings:
    """What a miner is started with.

    `data_dir` is where datasets lie that come with no package; `device` is torch's name of it;
    `threads` is how many torch uses: small models are quickest with one; `metrics` is
    "host:port" to serve metrics and health at, or None.
    """

    node_url: str
    key: AccountKey
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1
    metrics: str | None = None


async def run_miner(settings: MinerSettings, report: Callable[[MinerStatus], None]) -> None:
    """Mine until cancelled, telling `report` twice a second how it goes.

    Raises
    ------
    WrongChain
        The node's chain is not the one that the miner began with.
    WalksDisagree
        The node finds other weights than this machine.
    GenesisError, DatasetMissing, DatasetMismatch, DeviceMissing, InexactMachine
        This machine cannot train what the chain trains.
    InvalidNodeUrl
        The address is none.
    """
    open_device(settings.device)  # a mistyped name is told before a node is waited for
    metrics = MinerMetrics()

    def tell(status: MinerStatus) -> None:
        metrics.status = status
        report(status)

    async with (
        run_monitor(settings.metrics, metrics.registry, metrics.find_fault),
        RpcClient(settings.node_url) as rpc,
    ):
        board = _Board(tell)
        chain_id, genesis = await _get_genesis(rpc, board)
        board.say(f"loading the task of {chain_id}")
        torch.set_num_threads(settings.threads)
        await asyncio.to_thread(check_golden_walk, settings.device)
        task = await asyncio.to_thread(
            load_task,
            genesis.params,
            genesis.weights_root,
            chain_id,
            settings.data_dir,
            settings.device,
        )
        miner = _Miner(settings, rpc, chain_id=chain_id, genesis=genesis, task=task, board=board)
        try:
            await miner.run()
        except BaseExceptionGroup as group:
            # One task failed and the others were cancelled for it: tell the one.
            raise _get_first(group) from group


async def _get_genesis(rpc: RpcClient, board: _Board) -> tuple[str, Genesis]:
    """Ask for the genesis until the node gives it."""
    while True:
        try:
            document = await rpc.genesis()
        except (NodeUnreachable, RpcError) as error:
            board.connection = f"{error}; trying again"
            board.show()
            await asyncio.sleep(_RETRY_S)
            continue
        return document.chain_id, parse_genesis(document.app_state)


def _get_first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _get_first(first) if isinstance(first, BaseExceptionGroup) else first


class _Board:
    """What is known for a status before there is a miner to ask."""

    def __init__(self, report: Callable[[MinerStatus], None]) -> None:
        self.report = report
        self.is_connected = False
        self.connection = "connecting"
        self.note = ""

    def say(self, note: str) -> None:
        """Replace the sentence that is shown, and show it at once."""
        self.note = note
        self.show()

    def show(self) -> None:
        """Report without a miner's figures."""
        self.report(
            MinerStatus(
                is_connected=self.is_connected,
                connection=self.connection,
                note=self.note,
                coins_won=Amount(0),
            )
        )


class _Miner:
    """The parts, wired. Everything but the search runs on the event loop."""

    def __init__(
        self,
        settings: MinerSettings,
        rpc: RpcClient,
        *,
        chain_id: str,
        genesis: Genesis,
        task: Task,
        board: _Board,
    ) -> None:
        self._rpc, self._chain_id, self._board = rpc, chain_id, board
        self._params = genesis.params
        self._digest = compute_genesis_digest(genesis)
        self._address = settings.key.address
        self._clock = ChainClock()
        self._light = LightClient(rpc, chain_id)
        self._search = Search(task, self._address, self._clock, self._pass_on)
        self._follower = Follower(rpc, self._light, task, self._search.training, self._search.pause)
        self._submitter = Submitter(
            rpc,
            settings.key,
            chain_id=chain_id,
            params=self._params,
            clock=self._clock,
            note=self._say,
            on_reception=self._react,
        )
        self._look = asyncio.Event()
        self._is_chain_known = True
        self._loop = asyncio.get_running_loop()
        self._rate = StepRate()
        self._disconnects = 0
        self._blocks_won = 0
        self._coins_won = Amount(0)
        self._balance: Amount | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_events())
            tasks.create_task(self._follow_head())
            tasks.create_task(self._search.run())
            tasks.create_task(self._submitter.run())
            tasks.create_task(self._report())

    async def _follow_events(self) -> None:
        async with aclosing(follow_blocks(self._rpc.url)) as events:
            async for event in events:
                match event:
                    case Connected():
                        self._board.is_connected = True
                        self._board.connection = f"connected to {self._rpc.url}"
                        self._is_chain_known = False
                        self._submitter.reconnect()
                    case Disconnected(reason):
                        self._disconnects += self._board.is_connected
                        self._board.is_connected = False
                        self._board.connection = f"{reason}; trying again"
                        continue
                    case BlockHeader():
                        self._check_chain_id(event.chain_id)
                        self._clock.observe(event.time_ms)
                self._look.set()

    async def _follow_head(self) -> None:
        """Look at the node after each block, and whenever something went wrong."""
        is_failing = False
        while True:
            self._look.clear()
            pause_s = _LOOK_S
            try:
                if not self._is_chain_known:
                    await self._check_genesis()
                    self._is_chain_known = True
                update = await self._follower.catch_up()
                await self._process_update(update)
                if is_failing:
                    self._say(
                        f"following the chain again, at generation {update.status.generation}"
                    )
                is_failing = False
                if not update.is_current:
                    pause_s = _RETRY_S
            except _PASSING as error:
                # A node that is away is said by `connection` already.
                if self._board.is_connected or not isinstance(error, NodeUnreachable):
                    self._say(str(error))
                is_failing = True
                pause_s = _RETRY_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _check_genesis(self) -> None:
        """Refuse a node that came back with another chain."""
        document = await self._rpc.genesis()
        self._check_chain_id(document.chain_id)
        if compute_genesis_digest(parse_genesis(document.app_state)) != self._digest:
            raise WrongChain(
                f"{self._rpc.url} now has another genesis under the name {self._chain_id}: "
                f"start the miner again to mine there"
            )

    def _check_chain_id(self, chain_id: str) -> None:
        if chain_id != self._chain_id:
            raise WrongChain(
                f"{self._rpc.url} is now a node of {chain_id}, not of {self._chain_id}: "
                f"start the miner again to mine there"
            )

    async def _process_update(self, update: CatchUp) -> None:
        self._clock.observe(update.status.time_ms)
        speed = update.status.verifier.steps_per_second
        self._submitter.outbox.steps_per_second = speed or 0.0
        head = self._follower.head
        assert head is not None
        if update.is_new_head or self._search.is_paused:
            self._submitter.drop()
            self._search.mine(head)
        if update.note:
            self._say(update.note)
        for record in update.records:
            if record.miner == self._address:
                reward = compute_reward(self._params.ledger, record.generation - 1)
                self._blocks_won += 1
                self._coins_won = Amount(self._coins_won + reward)
                self._say(
                    f"won generation {record.generation}: {format_amount(Amount(reward))} coins"
                )
        if update.is_new_head:
            account = await self._light.get_account(self._address)
            self._balance = Amount(account.balance if account else 0)

    def _pass_on(self, ticket: Ticket) -> None:
        """Bring a ticket from the search's thread to the event loop."""
        self._loop.call_soon_threadsafe(self._offer, ticket)

    def _offer(self, ticket: Ticket) -> None:
        head = self._follower.head
        if head and ticket.claim.generation == head.generation:
            self._submitter.offer(ticket)

    def _react(self, reception: Reception) -> None:
        if reception is Reception.FALSE:
            self._follower.distrust()
        if reception in {Reception.FALSE, Reception.STALE}:
            self._look.set()

    def _say(self, note: str) -> None:
        self._board.note = note

    async def _report(self) -> None:
        while True:
            self._board.report(self._compute_status())
            await asyncio.sleep(_REPORT_S)

    def _compute_status(self) -> MinerStatus:
        head, best, now_ms = self._follower.head, self._search.best, self._clock.now_ms()
        rate = self._rate.compute(time.monotonic(), self._search.steps)
        status = MinerStatus(
            is_connected=self._board.is_connected,
            connection=self._board.connection,
            note=self._board.note,
            chain_id=self._chain_id,
            steps=self._search.steps,
            steps_per_second=rate,
            proofs_sent=self._submitter.sent,
            disconnects=self._disconnects,
            best_score_bits=best.score / SCORE_UNIT if best else None,
            best_good_in_s=max(0, best.good_time_ms - now_ms) / 1_000 if best else None,
            blocks_won=self._blocks_won,
            coins_won=self._coins_won,
            balance=self._balance,
        )
        if head is None:
            return status
        params, scheme = self._params.difficulty, get_scheme(self._params)
        difficulty = compute_difficulty(params, head.difficulty, head.time_ms, now_ms)
        return replace(
            status,
            generation=head.generation,
            difficulty_bits=difficulty / SCORE_UNIT,
            odds=compute_odds(
                params,
                ticket_share=scheme.get_ticket_share(self._params),
                equilibrium_bits=scheme.EQUILIBRIUM_BITS,
                head_difficulty=head.difficulty,
                difficulty_now=difficulty,
                steps_per_second=rate,
            ),
        )
