"""The search: one thread that walks from the head, and keeps the best ticket it comes by.

Nonces count up from a random start, so that machines with one key do not walk the same walks.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from typing import TYPE_CHECKING

from pol_abci.learning.arithmetic import InvalidStep
from pol_abci.learning.evaluate import count_correct, draw_evaluation_sample
from pol_abci.learning.walk import Walk
from pol_abci.miner.ticket import Ticket
from pol_abci.rules.difficulty import compute_good_time_ms
from pol_abci.rules.progress import compute_ticket_time_ms
from pol_abci.rules.proof import TrueWalk, WalkClaim

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.learning.walk import Step, Task
    from pol_abci.miner.ticket import ChainClock, MiningHead
    from pol_abci.rules.params import Address

REACH_INTERVALS = 2
"""Tickets that are good later than this many target intervals from now are let go: counting what
their models get right costs more than the chance that nobody is sooner."""

_NONCES = 2**64


class _Job:
    """A head to walk from, and what has been found so far."""

    def __init__(self, head: MiningHead) -> None:
        self.head = head
        self.best: Ticket | None = None
        self.sample: list[int] = []
        self.correct_head = 0


class Search:
    """Walks from one head after another in a thread of its own.

    `steps` counts all steps so far. `on_ticket` is called in that thread with each ticket that is
    better than those before it. `training` is held for each step: a task has room for one walk,
    so whoever else trains on it pauses the search and takes the lock.
    """

    def __init__(
        self,
        task: Task,
        address: Address,
        clock: ChainClock,
        on_ticket: Callable[[Ticket], None],
        first_nonce: int | None = None,
    ) -> None:
        self.steps = 0
        self.training = threading.Lock()
        self._task, self._address, self._clock = task, address, clock
        self._on_ticket = on_ticket
        self._nonce = secrets.randbelow(_NONCES) if first_nonce is None else first_nonce
        self._job: _Job | None = None
        self._is_stopped = False
        self._changed = threading.Condition()

    @property
    def best(self) -> Ticket | None:
        """The best ticket of the head that is walked from."""
        job = self._job
        return job.best if job else None

    @property
    def is_paused(self) -> bool:
        """Whether it waits for a head."""
        return self._job is None

    def mine(self, head: MiningHead) -> None:
        """Walk from this head from now on; the walk under way is left at its next step."""
        self._set_job(_Job(head))

    def pause(self) -> None:
        """Stop walking until the next head."""
        self._set_job(None)

    async def run(self) -> None:
        """Search until cancelled. An error in the thread is raised here."""
        try:
            await asyncio.to_thread(self._search)
        finally:
            self._is_stopped = True
            self._set_job(None)

    def _set_job(self, job: _Job | None) -> None:
        with self._changed:
            self._job = job
            self._changed.notify_all()

    def _search(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._job or self._is_stopped)
                job = self._job
            if self._is_stopped:
                return
            if job:
                self._walk(job)

    def _walk(self, job: _Job) -> None:
        """Algorithm 1 of the paper with one nonce, as far as the head stays."""
        nonce, self._nonce = self._nonce, (self._nonce + 1) % _NONCES
        walk: Walk | None = None
        for _ in range(self._task.params.walk.max_steps):
            with self.training:
                if self._job is not job:
                    return
                walk = walk or Walk(self._task, job.head.model, self._address, nonce)
                try:
                    step = walk.step()
                except InvalidStep:
                    return
                self.steps += 1
                if step.score is not None and self._is_within_reach(job, step.score):
                    self._weigh(job, walk, step, step.score, nonce)

    def _is_within_reach(self, job: _Job, score: int) -> bool:
        """Whether a score may beat the best ticket, and in time to matter."""
        params, head = self._task.params.difficulty, job.head
        good_ms = compute_good_time_ms(params, head.difficulty, head.time_ms, score)
        if job.best:
            return (good_ms, -score) < (job.best.good_time_ms, -job.best.score)
        return good_ms <= self._clock.now_ms() + REACH_INTERVALS * params.target_interval_ms

    def _weigh(self, job: _Job, walk: Walk, step: Step, score: int, nonce: int) -> None:
        """Count what the ticket's model gets right, and keep it if it is the best."""
        task, head = self._task, job.head
        if not job.sample:
            job.sample = draw_evaluation_sample(task, head.model.seed)
            job.correct_head = count_correct(task, head.model.weights, job.sample)
        correct = count_correct(task, step.weights, job.sample)
        verdict = TrueWalk(score, job.correct_head, correct)
        good_time_ms = compute_ticket_time_ms(task.params, head, verdict)
        if good_time_ms is None:
            return
        claim = WalkClaim(
            generation=head.generation,
            address=self._address,
            nonce=nonce,
            steps=step.t,
            step_digests=walk.digests,
            weights_root=walk.root(),
        )
        ticket = Ticket(claim=claim, seed=head.model.seed, score=score, good_time_ms=good_time_ms)
        if ticket.is_better_than(job.best):
            job.best = ticket
            self._on_ticket(ticket)
