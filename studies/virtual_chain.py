"""A chain in virtual time: real walks, rules and evaluations, without the search.

The search is what costs, and what a study of learning need not do: requirements are met like fair
coins, whichever step it is. So every step of a virtual miner draws a score from those coins, and
only walks whose ticket may win are walked, with the package's own code, up to that ticket's step.
Times pass as on a chain whose blocks come at once, or once a verifier has redone the walk: a step
takes its share of a target interval.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.learning.evaluate import count_correct, draw_evaluation_sample
from pol_abci.learning.walk import Head, Walk, load_task
from pol_abci.rules.difficulty import compute_good_time_ms, compute_next_difficulty
from pol_abci.rules.params import SCORE_UNIT, Address
from pol_abci.rules.progress import compute_ticket_time_ms
from pol_abci.rules.proof import TrueWalk
from pol_abci.rules.seed import compute_first_seed, compute_next_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pol_abci.learning.datasets import Dataset
    from pol_abci.rules.params import Params

FIRST_DIFFICULTY_BITS = 2.9
"""As `pol-abci init` has it: bits of the first difficulty above log2 of an interval's steps."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generation of the virtual chain was.

    `weighed` tickets were walked for it, `failed` of them were short of progress when their score
    was good. `correct_gate` and `correct_held` are counts on the two halves of E, -1 where they
    were not counted.
    """

    number: int
    steps: int
    interval_ms: int
    difficulty: int
    weighed: int
    failed: int
    correct_gate: int = -1
    correct_held: int = -1


@dataclass(frozen=True, slots=True)
class _Winner:
    time_ms: int
    seed: bytes
    steps: int
    weights: Tensor


@dataclass(slots=True)
class _Count:
    weighed: int = 0
    failed: int = 0


def halve(test: Dataset) -> tuple[Dataset, Dataset]:
    """E's images at even places, which gate, and those at odd places, which gate nothing."""
    gate, held = (
        replace(test, images=test.images[start::2], labels=test.labels[start::2])
        for start in (0, 1)
    )
    return gate, held


class VirtualChain:
    """One chain with one virtual miner, which does `interval_steps` steps a target interval.

    `verifier_speed` is the verifier's, in the miner's; it begins when a ticket is found.
    `first_bits` of difficulty are those above log2 of an interval's steps that it begins with.
    """

    def __init__(
        self,
        params: Params,
        name: str,
        interval_steps: int,
        *,
        verifier_speed: float = math.inf,
        first_bits: float = FIRST_DIFFICULTY_BITS,
    ) -> None:
        task = load_task(params, None, name)
        gate, held = halve(task.test)
        self.task, self.held = replace(task, test=gate), replace(task, test=held)
        self._params, self._interval_steps = params, interval_steps
        self._verifier_speed = verifier_speed
        self._random = np.random.default_rng(list(name.encode()))
        self._address = Address(self._random.bytes(20))
        self._difficulty = round(SCORE_UNIT * (np.log2(interval_steps) + first_bits))
        self._head = Head(0, compute_first_seed(name, bytes(32)), task.initial_weights)

    @property
    def head(self) -> Head:
        """The newest generation."""
        return self._head

    def run(self, generations: int, count_every: int) -> Iterator[Generation]:
        """Go on for so many generations; count on E at the first and each `count_every`-th."""
        for number in range(1, generations + 1):
            count = _Count()
            winner = self._find_winner(count)
            generation = Generation(
                number=number,
                steps=winner.steps,
                interval_ms=winner.time_ms,
                difficulty=self._difficulty,
                weighed=count.weighed,
                failed=count.failed,
            )
            self._head = Head(number, winner.seed, winner.weights)
            self._difficulty = compute_next_difficulty(
                self._params.difficulty, self._difficulty, winner.time_ms
            )
            if number == 1 or number % count_every == 0:
                generation = replace(
                    generation,
                    correct_gate=count_correct(self.task, self._head.weights),
                    correct_held=count_correct(self.held, self._head.weights),
                )
            yield generation

    def _find_winner(self, count: _Count) -> _Winner:
        """The ticket whose time to win comes first; times are since the head's."""
        sample = draw_evaluation_sample(self.task, self._head.seed)
        correct_head = count_correct(self.task, self._head.weights, sample)
        best: _Winner | None = None
        waiting: list[tuple[int, int, int]] = []
        for start in itertools.count(0, self._interval_steps):
            if best is not None and best.time_ms <= self._get_time_ms(start):
                return best
            for ticket in self._draw_tickets(start):
                heapq.heappush(waiting, ticket)
            end_ms = self._get_time_ms(start + self._interval_steps)
            while waiting and waiting[0][0] <= end_ms:
                if best is not None and best.time_ms <= waiting[0][0]:
                    return best
                good_ms, index, score = heapq.heappop(waiting)
                count.weighed += 1
                walked = self._walk(index, score, correct_head, sample)
                if walked is None or max(walked.time_ms, good_ms) > good_ms:
                    count.failed += 1
                if walked is None:
                    continue
                walked = replace(walked, time_ms=max(walked.time_ms, good_ms))
                if best is None or walked.time_ms < best.time_ms:
                    best = walked
        raise AssertionError  # itertools.count has no end

    def _get_time_ms(self, step: int) -> int:
        return step * self._params.difficulty.target_interval_ms // self._interval_steps

    def _draw_tickets(self, start: int) -> Iterator[tuple[int, int, int]]:
        """Tickets of an interval's steps: when each is good by its score, which step, the score."""
        walk, size = self._params.walk, self._interval_steps
        met = self._random.geometric(0.5, size) - 1
        scores = SCORE_UNIT * met + self._random.integers(0, SCORE_UNIT, size)
        steps = np.arange(start, start + size) % walk.max_steps + 1
        for place in np.flatnonzero(steps >= walk.min_steps):
            score = int(scores[place])
            good_ms = compute_good_time_ms(self._params.difficulty, self._difficulty, 0, score)
            index = start + int(place)
            verified = index + 1 + int(steps[place]) / self._verifier_speed
            yield max(good_ms, self._get_time_ms(math.ceil(verified))), index, score

    def _walk(self, index: int, score: int, correct_head: int, sample: list[int]) -> _Winner | None:
        """Walk up to a step of the search, and weigh the model; None if it never makes progress."""
        nonce, last = divmod(index, self._params.walk.max_steps)
        walk = Walk(self.task, self._head, self._address, nonce)
        for _ in range(last + 1):
            step = walk.step()
        weights = step.weights.clone()
        verdict = TrueWalk(score, correct_head, count_correct(self.task, weights, sample))
        head = _VirtualHead(self._difficulty)
        time_ms = compute_ticket_time_ms(self._params, head, verdict)
        if time_ms is None:
            return None
        seed = compute_next_seed(self._head.seed, self._address, nonce, step.t, walk.root())
        return _Winner(time_ms, seed, step.t, weights)


@dataclass(frozen=True, slots=True)
class _VirtualHead:
    difficulty: int
    time_ms: int = 0
