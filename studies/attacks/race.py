"""Miners who race for generations, in virtual time, by the package's difficulty.

Each miner's tickets are those of fair coins: one a step, its score exponential in bits. Whoever's
ticket is good first makes the block. A miner that did not win redoes the winner's walk at its own
speed before it starts anew, as the program does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.node.presets import load_preset
from pol_abci.rules.difficulty import compute_good_time_ms, compute_next_difficulty
from pol_abci.rules.params import SCORE_UNIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pol_abci.rules.params import Params

PRESET = "digits"
DELAY_MS = 240
"""From a good ticket to the block that all others know, benchmarks/chain.py's median."""
SETTLED = 50


@dataclass(slots=True)
class Miner:
    """Its speed in steps a target interval, and what it has found for the present generation.

    `start_ms` is when it began there, since the head's block; below 0 if it knew the head before
    the others. A strategy is what subclasses change.
    """

    speed: float
    start_ms: int = 0
    wins: int = 0
    tickets: list[tuple[int, int]] = field(default_factory=list)
    """(found at, score), those above all before them."""

    def search(self, race: Race, until_ms: int) -> None:
        """Find tickets from `start_ms` up to a time; nothing is left to do before it after this."""
        steps = int((until_ms - self.start_ms) * self.speed / race.target_ms)
        if steps <= 0:
            return
        scores = (SCORE_UNIT * race.random.exponential(1 / math.log(2), steps)).astype(np.int64)
        best = np.maximum.accumulate(scores)
        least = max((score for _, score in self.tickets), default=-1)
        for place in np.flatnonzero(scores == best):
            score = int(scores[place])
            if score > least:
                found = self.start_ms + int((place + 1) * race.target_ms / self.speed)
                self.tickets.append((found, score))
                least = score
        self.start_ms += int(steps * race.target_ms / self.speed)

    def get_best(self, race: Race) -> tuple[int, int]:
        """(good at, -score) of the ticket that is good first; far away if there is none."""
        return min(
            ((max(found, race.get_good_ms(score)), -score) for found, score in self.tickets),
            default=(2**62, 0),
        )


@dataclass(slots=True)
class Race:
    """A chain, its miners, and the present generation. Times are in ms since its head's block."""

    miners: Sequence[Miner]
    seed: int
    params: Params = field(default_factory=lambda: load_preset(PRESET).params)
    follow_steps: int = 16
    """Of a winning walk, which every other miner redoes: the mean of max_steps."""
    random: np.random.Generator = field(init=False)
    difficulty: int = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        steps = sum(miner.speed for miner in self.miners)
        self.difficulty = round(SCORE_UNIT * (math.log2(steps) + 2.9))

    @property
    def target_ms(self) -> int:
        """Target interval."""
        return self.params.difficulty.target_interval_ms

    def get_good_ms(self, score: int) -> int:
        """When a score is good, by the rules."""
        return compute_good_time_ms(self.params.difficulty, self.difficulty, 0, score)

    def run(self, generations: int) -> Iterator[int]:
        """Intervals in ms; wins are counted once the difficulty has settled."""
        for number in range(-SETTLED, generations):
            interval_ms, winner = self.run_generation()
            if number >= 0:
                winner.wins += 1
                yield interval_ms
            for miner in self.miners:
                self.begin(miner, winner, interval_ms)
            self.difficulty = compute_next_difficulty(
                self.params.difficulty, self.difficulty, interval_ms
            )

    def run_generation(self) -> tuple[int, Miner]:
        """Let all search, a quarter of an interval at a time, until somebody's ticket is good."""
        now_ms = 0
        while True:
            now_ms += self.target_ms // 4
            for miner in self.miners:
                miner.search(self, now_ms)
            winner = min(self.miners, key=lambda miner: miner.get_best(self))
            good_ms = winner.get_best(self)[0]
            if good_ms <= now_ms:
                return good_ms + DELAY_MS, winner

    def begin(self, miner: Miner, winner: Miner, interval_ms: int) -> None:
        """Start on the new head: at its block, or once its walk has been redone."""
        del interval_ms
        miner.tickets.clear()
        redone_ms = 0 if miner is winner else self.follow_steps * self.target_ms / miner.speed
        miner.start_ms = int(redone_ms)
