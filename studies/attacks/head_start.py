"""Withholding: a ticket that waits to be good is known to its miner alone.

Tickets wait for the difficulty to fall. Whoever holds one that will hardly be beaten may leave the
head and walk from its own next model already, before anybody else knows it. And it may hold the
proof back when it is good, as long as nobody else has one, to be alone on the next head for longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.rules.difficulty import compute_difficulty
from pol_abci.rules.params import SCORE_UNIT
from studies.attacks.gains import Efforts, estimate_gain
from studies.attacks.race import Miner, Race
from studies.attacks.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARES = (0.1, 0.25, 0.4)
INTERVAL_STEPS = 1_000
CHANCES = (0.8, 0.95)
"""Of winning with the ticket in hand, at which an attacker leaves: the best of these is taken."""
LOOKS = 16
"""Decisions in a target interval."""
BLOCK = 100
"""Generations that are one unit to the interval of confidence."""


@dataclass(slots=True)
class HeadStarter(Miner):
    """Leaves for its own next head once its best ticket wins with this chance."""

    chance: float = 0.8
    left_ms: int | None = None

    def search(self, race: Race, until_ms: int) -> None:
        """As everybody, until it leaves."""
        for look in range(LOOKS // 4 + 1):
            now_ms = until_ms - race.target_ms // 4 + look * race.target_ms // LOOKS
            if self.left_ms is None:
                Miner.search(self, race, now_ms)
                if self.tickets and self.compute_chance(race, now_ms) >= self.chance:
                    self.left_ms = now_ms

    def compute_chance(self, race: Race, now_ms: int) -> float:
        """That no other miner has a ticket which is good between now and its own best."""
        others = sum(miner.speed for miner in race.miners if miner is not self)

        def count_good(time_ms: int) -> float:
            """Expected tickets of others that are good by then."""
            at = max(0, time_ms)
            needed = compute_difficulty(race.params.difficulty, race.difficulty, 0, at)
            return float(others * at / race.target_ms * 2.0 ** (-needed / SCORE_UNIT))

        good_ms = self.get_best(race)[0]
        return math.exp(-max(0.0, count_good(good_ms) - count_good(now_ms)))


@dataclass(slots=True)
class WithheldRace(Race):
    """A race in which head starters begin early; with `is_held` they publish when they must.

    They must when another's ticket is good; theirs is then in the same block's choice, and the
    better score goes first. That it comes in time is granted to them.
    """

    is_held: bool = False

    def run_generation(self) -> tuple[int, Miner]:
        """As always; a head starter that is first waits for the second."""
        interval_ms, winner = Race.run_generation(self)
        if not (self.is_held and isinstance(winner, HeadStarter)):
            return interval_ms, winner
        held = winner.get_best(self)
        others = [miner for miner in self.miners if miner is not winner]
        now_ms = interval_ms - interval_ms % (self.target_ms // 4)
        while True:
            second = min(others, key=lambda miner: miner.get_best(self))
            good_ms, score = second.get_best(self)
            if good_ms <= now_ms:
                break
            now_ms += self.target_ms // 4
            for miner in others:
                miner.search(self, now_ms)
        first = winner if held[1] <= score else second
        return max(held[0], good_ms) + interval_ms - held[0], first

    def begin(self, miner: Miner, winner: Miner, interval_ms: int) -> None:
        """A head starter that won has been there since it left."""
        Race.begin(self, miner, winner, interval_ms)
        if isinstance(miner, HeadStarter):
            if miner is winner and miner.left_ms is not None:
                miner.start_ms = miner.left_ms - interval_ms
            miner.left_ms = None


def measure(generations: int = 6_000) -> Iterator[Row]:
    """One row a share of the hash power, and way to withhold."""
    for share in SHARES:
        honest = run(share, None, generations, is_held=False, seed=1)
        for is_held in (False, True):
            chance = max(
                CHANCES,
                key=lambda chance: run(
                    share, chance, generations // 4, is_held=is_held, seed=2
                ).wins.sum(),
            )
            attack = run(share, chance, generations, is_held=is_held, seed=3)
            gain = estimate_gain(honest, attack)
            kept = "and hold the proof back until another is good" if is_held else "early"
            yield Row(
                "walk",
                (
                    f"{share:.0%} of the hash power: leave for the own next head {kept}",
                    f"{1 / honest.steps_per_ticket:.1%} of proofs",
                    f"{1 / attack.steps_per_ticket:.1%}",
                    str(gain),
                    f"leaves at a chance of {chance:.0%} to win",
                ),
            )


def run(
    share: float, chance: float | None, generations: int, *, is_held: bool, seed: int
) -> Efforts:
    """Proofs won to generations, a unit being `BLOCK` of these."""
    speed = share * INTERVAL_STEPS
    one = Miner(speed) if chance is None else HeadStarter(speed, chance=chance)
    others = Miner(INTERVAL_STEPS - speed)
    race = WithheldRace([one, others], seed=seed, is_held=is_held)
    wins = [one.wins for _ in race.run(generations)]
    won = np.diff([0, *wins])[: generations - generations % BLOCK].reshape(-1, BLOCK).sum(1)
    return Efforts(np.full(len(won), float(BLOCK)), won.astype(np.float64))
