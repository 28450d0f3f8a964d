"""The search: one thread that walks from the head, and keeps the best ticket it comes by.

How it walks is the chain's scheme's. Nonces count up from a random start, so that machines with
one key do not walk the same walks.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from typing import TYPE_CHECKING

from pol_abci.learning.scheme import get_scheme
from pol_abci.miner.ticket import Ticket, is_better
from pol_abci.rules.difficulty import compute_good_time_ms
from pol_abci.rules.progress import compute_ticket_time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pol_abci.learning.prover import Found
    from pol_abci.learning.task import Task
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


class _HeadGone(Exception):
    """The head that was walked from is no longer wanted."""


class Search:
    """Walks from one head after another in a thread of its own.

    `steps` counts all steps so far. `on_ticket` is called in that thread with each ticket that is
    better than those before it. `training` is held while it walks: a task has room for one walk,
    so whoever else trains on it pauses the search and takes the lock, which is then given back at
    the next step.
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
        self._nonces = _count_nonces(
            secrets.randbelow(_NONCES) if first_nonce is None else first_nonce
        )
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
                with self.training, contextlib.suppress(_HeadGone):
                    self._mine(job)

    def _mine(self, job: _Job) -> None:
        """Look for ever better tickets, as far as the head stays."""

        def between_steps() -> None:
            if self._job is not job:
                raise _HeadGone
            self.steps += 1

        open_prover = get_scheme(self._task.params).open_prover
        prover = open_prover(self._task, job.head.model, self._address, self._nonces)
        while True:
            found = prover.find(lambda score: self._is_within_reach(job, score), between_steps)
            self._process_found(job, found)

    def _is_within_reach(self, job: _Job, score: int) -> bool:
        """Whether a score may beat the best ticket, and in time to matter."""
        params, head = self._task.params.difficulty, job.head
        good_ms = compute_good_time_ms(params, head.difficulty, head.time_ms, score)
        if job.best:
            return is_better(good_ms, score, job.best)
        return good_ms <= self._clock.now_ms() + REACH_INTERVALS * params.target_interval_ms

    def _process_found(self, job: _Job, found: Found) -> None:
        """Keep a ticket if it is the best; only then is it made into a claim."""
        head, score = job.head, found.verdict.score
        good_time_ms = compute_ticket_time_ms(self._task.params, head, found.verdict)
        if good_time_ms is None or not is_better(good_time_ms, score, job.best):
            return
        job.best = Ticket(
            claim=found.make_claim(),
            seed=head.model.seed,
            score=score,
            good_time_ms=good_time_ms,
        )
        self._on_ticket(job.best)


def _count_nonces(first: int) -> Iterator[int]:
    """64-bit numbers from the first on, around and around."""
    nonce = first
    while True:
        yield nonce
        nonce = (nonce + 1) % _NONCES
