"""Share of proofs against share of hash power, for miners of unequal speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from studies.attacks.race import Miner, Race
from studies.attacks.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = ((3, 1), (8, 4, 2, 1), (16, 8, 4, 4, 2, 2, 1, 1))
"""Speeds beside one another."""
INTERVAL_STEPS = 2_000
"""Of all together: one core's worth on digits, and hard on the small ones."""


def measure(generations: int = 2_000) -> Iterator[Row]:
    """One row a field of miners, and one in which following costs nothing."""
    for speeds, follow_steps in (*((field, 16) for field in FIELDS), (FIELDS[-1], 0)):
        total = sum(speeds)
        miners = [Miner(speed=INTERVAL_STEPS * speed / total) for speed in speeds]
        race = Race(miners, seed=len(speeds), follow_steps=follow_steps)
        intervals = np.array(list(race.run(generations)))
        shares = np.array(speeds) / total
        won = np.array([miner.wins for miner in miners]) / generations
        error = 1.96 * np.sqrt(won * (1 - won) / generations)
        yield Row(
            "fairness",
            (
                " : ".join(map(str, speeds)),
                ", ".join(f"{share:.1%}" for share in shares),
                ", ".join(f"{win:.1%}" for win in won),
                ", ".join(
                    f"{win / share:.2f} ± {wide / share:.2f}"
                    for win, share, wide in zip(won, shares, error, strict=True)
                ),
                f"{follow_steps} steps to follow",
                f"{intervals.std() / intervals.mean():.2f}",
            ),
        )
