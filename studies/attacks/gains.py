"""What an attack gains: tickets for a step's work, beside those of a miner who keeps to the rules.

Work is counted in *steps*: one is a gradient of a whole batch with its update. What else a miner
does (hashes, look-ups, evaluations) is weighed by the time it took beside a step in the same run,
and each attack says what it counts.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

RESAMPLES = 2_000
CONFIDENCE = 0.95
_ROUNDS = 21


@dataclass(frozen=True, slots=True, eq=False)
class Efforts:
    """Independent units of work: what each cost, in steps, and how many tickets it won.

    Wins may be expectations, where the odds of a unit are known.
    """

    costs: NDArray[np.float64]
    wins: NDArray[np.float64]

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Efforts:
        """From (cost, wins) of each unit."""
        costs, wins = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        return cls(costs, wins)

    @property
    def steps_per_ticket(self) -> float:
        """Cost of all to wins of all."""
        return float(self.costs.sum() / self.wins.sum())

    def resample(self) -> NDArray[np.float64]:
        """Wins to cost of `RESAMPLES` draws of as many units, with replacement.

        Two that have as many units draw the same ones: units of one place belong together.
        """
        size = len(self.costs)
        picks = np.random.default_rng(0).multinomial(size, np.full(size, 1.0 / size), RESAMPLES)
        return np.divide(picks @ self.wins, picks @ self.costs)


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times the honest miner's tickets, with the ends of the 95% interval."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        if self.middle < 100:
            return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"
        return f"{self.middle:,.0f} ({self.low:,.0f} to {self.high:,.0f})"


def estimate_gain(honest: Efforts | float, attack: Efforts) -> Gain:
    """Tickets a step of the attack to those of the honest; the interval by bootstrap over units.

    `honest` may be the expected number of steps to a ticket, where it can't be waited for.
    """
    of_attack = attack.resample()
    if isinstance(honest, float):
        middle = honest / attack.steps_per_ticket
        ratios = of_attack * honest
    else:
        middle = honest.steps_per_ticket / attack.steps_per_ticket
        ratios = of_attack / honest.resample()
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return Gain(float(low), middle, float(high))


def measure_in_steps(step: Callable[[], object], *others: Callable[[], object]) -> list[float]:
    """Time of each of `others` in that of `step`: medians of calls that alternate."""
    times: list[list[float]] = [[] for _ in range(1 + len(others))]
    for _ in range(_ROUNDS):
        for samples, call in zip(times, (step, *others), strict=True):
            start = time.perf_counter()
            call()
            samples.append(time.perf_counter() - start)
    of_step, *rest = map(statistics.median, times)
    return [each / of_step for each in rest]
