"""The application's side of the verifier: one process, its jobs, its verdicts.

Urgent walks (of a proposal or a block) are sent at once and overtake what is under way; queued
ones (of CheckTx) go one at a time. A process that dies is started again and given everything
that it had not answered. Nothing here trains, and nothing here blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import structlog

from pol_abci.app.tasks import run_until_first_ends
from pol_abci.app.verifier_messages import (
    LENGTH,
    ComputeInitialWeights,
    ComputeWeights,
    Configure,
    Done,
    FromVerifier,
    Job,
    MeasureAccuracy,
    Ready,
    Refused,
    SetHead,
    ToVerifier,
    VerifyWalk,
    decode_message,
    encode_message,
)
from pol_abci.app.walk_queue import QUEUE_BYTES, Standing, WalkQueue
from pol_abci.rules.errors import PolError
from pol_abci.rules.proof import FalseWalk, TrueWalk
from pol_abci.rules.scheme import get_scheme

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.rules.proof import Claim, WalkVerdict

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 3
"""A job that ends the process this often is not given to it again."""
RESTART_DELAY_S = 0.5
VERDICT_LIMIT = 4_096
"""Verdicts kept of one generation."""
ACCURACY_BYTES = 64 * 2**20
"""Weights that wait for their accuracy to be measured."""


class VerifierError(PolError):
    """The verifier cannot do what consensus needs of it."""


class HeadMoved(Exception):
    """The head from which a walk was to be redone is no more: nobody waits for its verdict."""


class OtherWeights(VerifierError):
    """A walk that was found true has not come to the weights that it claims."""

    def __init__(self) -> None:
        super().__init__(
            "the verifier found a walk true and then came to other weights: this machine does not "
            "compute the same twice; look at its memory"
        )


@dataclass(slots=True)
class VerifierStatus:
    """What the verifier does, for people."""

    alive: bool = False
    starts: int = 0
    walked: int = 0
    false: int = 0
    steps: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Outstanding:
    message: Job
    future: asyncio.Future[WalkVerdict | bytes | int | None]
    attempts: int = 0


class Verifier:
    """Verdicts on walks from the head, and the weights that true ones make."""

    def __init__(self, configure: Configure) -> None:
        self.on_true_walk: Callable[[Claim, bytes, TrueWalk], None] = lambda *_: None
        self.status = VerifierStatus()
        self.size_all = 0
        self.verdicts: dict[Claim, WalkVerdict] = {}
        self._configure = configure
        max_tx_bytes = get_scheme(configure.params).max_tx_bytes
        self._queue = WalkQueue(max(1, QUEUE_BYTES // max_tx_bytes))
        self._walking: Claim | None = None
        self._accuracy: deque[tuple[int, bytes, Callable[[int, int, int], None]]] = deque()
        self._has_walk = asyncio.Event()
        self._has_accuracy = asyncio.Event()
        self._head: SetHead | None = None
        self._jobs: dict[int, _Outstanding] = {}
        self._next_job = 0
        self._process: asyncio.subprocess.Process | None = None

    # -- the process

    async def run(self) -> None:
        """Keep the process alive and fed until cancelled; what is asked before waits for it.

        Raises
        ------
        VerifierError
            The process refuses the task: its reason says what to do.
        """
        await run_until_first_ends(self._keep_alive(), self._feed(), self._measure())

    async def _keep_alive(self) -> None:
        failed_starts = 0
        while failed_starts < MAX_ATTEMPTS:
            is_ready = await self._run_once()
            failed_starts = 0 if is_ready else failed_starts + 1
            log.warning("the verifier has ended; starting it again")
            await asyncio.sleep(RESTART_DELAY_S)
        raise VerifierError(
            f"the verifier process ended {MAX_ATTEMPTS} times before it was ready: what it said "
            "stands above in this log"
        )

    async def _run_once(self) -> bool:
        """Run one process to its end; whether it was ready for work at some time."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pol_abci.app.verifier_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._process = process
        self.status.starts += 1
        try:
            self._send(self._configure)
            while (message := await self._receive(process)) is not None:
                self._take(message)
            return self.status.alive
        finally:
            self.status.alive = False
            self._process = None
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()

    def _take(self, message: FromVerifier) -> None:
        match message:
            case Refused():
                raise VerifierError(message.reason)
            case Ready():
                log.info("the verifier is ready")
                self.size_all = message.size_all
                self.status.alive = True
                self._resume()
            case Done():
                if message.steps:  # what walks nothing says nothing of the speed
                    self.status.steps += message.steps
                    self.status.seconds += message.seconds
                outstanding = self._jobs.pop(message.job)
                if not outstanding.future.done():
                    outstanding.future.set_result(message.result)

    def _resume(self) -> None:
        """Give a new process the head and every job that the last one left."""
        if self._head is not None:
            self._send(self._head)
        for number in sorted(self._jobs):
            outstanding = self._jobs[number]
            if outstanding.attempts < MAX_ATTEMPTS:
                self._send_job(outstanding)
                continue
            del self._jobs[number]
            if not outstanding.future.done():
                outstanding.future.set_exception(
                    VerifierError(
                        f"the verifier process ended {MAX_ATTEMPTS} times on one walk: its "
                        "messages stand above in this log; is the machine out of memory?"
                    )
                )

    @staticmethod
    async def _receive(process: asyncio.subprocess.Process) -> FromVerifier | None:
        assert process.stdout is not None
        try:
            (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            message = decode_message(await process.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        assert isinstance(message, (Ready, Refused, Done))
        return message

    def _send(self, message: ToVerifier) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            # A process that has just died is told everything again once it is back.
            with contextlib.suppress(ConnectionError, RuntimeError):
                self._process.stdin.write(encode_message(message))

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    # -- jobs

    async def _ask(self, message: Job) -> WalkVerdict | bytes | int | None:
        """Have a job done at once; None when its head is gone."""
        future: asyncio.Future[WalkVerdict | bytes | int | None] = (
            asyncio.get_running_loop().create_future()
        )
        message = replace(message, job=self._next_job)
        self._next_job += 1
        outstanding = _Outstanding(message, future)
        self._jobs[message.job] = outstanding
        if self.status.alive:
            self._send_job(outstanding)
        return await future

    def _send_job(self, outstanding: _Outstanding) -> None:
        outstanding.attempts += 1
        self._send(outstanding.message)

    async def verify(self, claim: Claim, *, is_decided: bool = False) -> WalkVerdict:
        """Return the verdict on a walk from the present head, before anything that waits.

        A walk that others have decided on (`is_decided`) and this node has found false is redone:
        before it parts from two thirds of the power, it looks twice.

        Raises
        ------
        VerifierError
            The process cannot be kept alive over this walk.
        HeadMoved
            A block was committed meanwhile, which a CometBFT that has come back had ready.
        """
        known = self.verdicts.get(claim)
        if known is None or (is_decided and isinstance(known, FalseWalk)):
            result = await self._ask(VerifyWalk(0, claim))
            if result is None:
                raise HeadMoved
            assert isinstance(result, (TrueWalk, FalseWalk))
            known = self._remember(claim, result)
        return known

    def _remember(self, claim: Claim, verdict: WalkVerdict) -> WalkVerdict:
        self.status.walked += 1
        if isinstance(verdict, FalseWalk):
            self.status.false += 1
        if len(self.verdicts) >= VERDICT_LIMIT:
            del self.verdicts[next(iter(self.verdicts))]
        self.verdicts[claim.key] = verdict
        return verdict

    async def compute_weights(self, claim: Claim) -> bytes:
        """Return the weights that a true walk makes; who hashes them holds them to its root.

        Raises
        ------
        OtherWeights
            The walk is false this time.
        """
        weights = await self._ask(ComputeWeights(0, claim))
        if not isinstance(weights, bytes):
            raise OtherWeights
        return weights

    async def compute_initial_weights(self) -> bytes:
        """Return W_0."""
        return cast("bytes", await self._ask(ComputeInitialWeights(0)))

    def set_head(self, generation: int, seed: bytes, weights: bytes) -> None:
        """Go over to a new head; everything known of walks from the old one is dropped."""
        self._head = SetHead(generation, seed, weights)
        self.verdicts.clear()
        self._queue.clear()
        if self.status.alive:
            self._send(self._head)

    def measure_accuracy(
        self, generation: int, weights: bytes, then: Callable[[int, int, int], None]
    ) -> None:
        """When nothing else is to do, count what `weights` gets right of all of E.

        Walks that come meanwhile go first, at once. The result goes to
        `then(generation, correct, size)`. When too many wait, the oldest are dropped.
        """
        self._accuracy.append((generation, weights, then))
        while len(self._accuracy) > 1 and len(self._accuracy) * len(weights) > ACCURACY_BYTES:
            self._accuracy.popleft()
        self._has_accuracy.set()

    # -- the queue

    @property
    def queued(self) -> int:
        """Number of walks that wait."""
        return len(self._queue)

    @property
    def is_walking(self) -> bool:
        """Whether a walk is under way: of a queued proof, of a block, or for its weights."""
        return any(
            isinstance(each.message, (VerifyWalk, ComputeWeights)) for each in self._jobs.values()
        )

    def enqueue(self, claim: Claim, raw: bytes, standing: Standing) -> None:
        """Have a walk verified in its turn; `on_true_walk` hears of it if it is true.

        Raises
        ------
        ProofRefused
            See `WalkQueue.add`.
        """
        if claim != self._walking:
            self._queue.add(claim, raw, standing)
            self._has_walk.set()

    async def _feed(self) -> None:
        """Give the process queued walks, one at a time."""
        while True:
            await self._has_walk.wait()
            if (entry := self._queue.pop()) is not None:
                await self._verify_queued(*entry)
            else:
                self._has_walk.clear()

    async def _measure(self) -> None:
        """Have the process measure accuracies; it puts them off for anything else."""
        while True:
            await self._has_accuracy.wait()
            if not self._accuracy:
                self._has_accuracy.clear()
                continue
            generation, weights, then = self._accuracy.popleft()
            try:
                correct = await self._ask(MeasureAccuracy(0, weights))
            except VerifierError as error:
                log.warning("an accuracy could not be measured", reason=str(error))
                continue
            assert isinstance(correct, int)
            then(generation, correct, self.size_all)

    async def _verify_queued(self, claim: Claim, raw: bytes) -> None:
        verdict = self.verdicts.get(claim)
        if verdict is None:
            self._walking = claim
            try:
                result = await self._ask(VerifyWalk(0, claim))
            except VerifierError as error:
                log.warning("a walk could not be verified", reason=str(error))
                self._queue.refuse(claim.address)
                return
            finally:
                self._walking = None
            if result is None or self._head is None or claim.generation != self._head.generation:
                return  # its head is gone
            assert isinstance(result, (TrueWalk, FalseWalk))
            verdict = self._remember(claim, result)
        if isinstance(verdict, TrueWalk):
            self.on_true_walk(claim, raw, verdict)
        else:
            # Strangers send them by the hundred a second; the count is in the status.
            log.debug("a walk is false", miner=claim.address.hex(), reason=verdict.reason)
            self._queue.refuse(claim.address)
