"""A proposer who picks, among tickets that are good, the one whose seed suits it.

The next seed follows from the ticket that a block takes, so whoever proposes has as many seeds to
choose from as there are good tickets. All that it can tell of a seed without walking is the
evaluation sample and its own first batches. What it is worth is what its walks then find.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.learning.evaluate import count_correct, draw_evaluation_sample
from pol_abci.learning.walk import Walk
from pol_abci.rules.seed import compute_next_seed
from studies.attacks.gains import Efforts, estimate_gain
from studies.attacks.report import Row
from studies.attacks.scene import MINER, OTHER, learn_head, load_digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pol_abci.learning.walk import Head, Task
    from pol_abci.rules.params import Address

SEEDS = 16
"""To choose from: far more good tickets than a block ever has."""
STEPS = 12


def measure(rounds: int = 60) -> Iterator[Row]:
    """Tickets that may become the head, for seeds chosen by their sample and for any seeds."""
    task, head = load_digits(), learn_head()
    honest, chosen, other = [], [], []
    for number in range(rounds):
        heads = [make_head(head, number * SEEDS + index) for index in range(SEEDS)]
        easy = min(heads, key=lambda each: count_on_sample(task, each))
        honest.append(walk(task, heads[0], MINER))
        chosen.append(walk(task, easy, MINER))
        other.append(walk(task, easy, OTHER))
    any_seed, by_choice, of_others = map(Efforts.of, (honest, chosen, other))
    beside_any = estimate_gain(any_seed, by_choice)
    yield Row(
        "walk",
        (
            f"seed of the hardest sample among {SEEDS}, which a model may lose least on",
            f"{any_seed.steps_per_ticket:.2f} * 2^d",
            f"{by_choice.steps_per_ticket:.2f} * 2^d",
            str(estimate_gain(of_others, by_choice)),
            f"beside others on that seed, who gain as much (any seed: {beside_any})",
        ),
    )


def make_head(head: Head, nonce: int) -> Head:
    """The head as if a ticket of this nonce had made it."""
    return replace(head, seed=compute_next_seed(head.seed, OTHER, nonce, 2, bytes(32)))


def count_on_sample(task: Task, head: Head) -> int:
    """What the head gets right of the sample that its seed draws."""
    return count_correct(task, head.weights, draw_evaluation_sample(task, head.seed))


def walk(task: Task, head: Head, address: Address) -> tuple[float, float]:
    """Steps, and how many of them made a model that loses no image of the sample."""
    sample = draw_evaluation_sample(task, head.seed)
    correct = count_correct(task, head.weights, sample)
    walked = Walk(task, head, address, 0)
    good = [count_correct(task, walked.step().weights, sample) >= correct for _ in range(STEPS)]
    return float(STEPS), float(np.sum(good[1:]))
