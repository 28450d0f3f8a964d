"""Choosing nonces by their batches, which hashes tell before any step is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pol_abci.rules.params import SCORE_UNIT
from studies.attacks.gains import Efforts, estimate_gain, measure_in_steps
from studies.attacks.report import Row
from studies.attacks.scene import MINER, draw_tickets, learn_head, load_digits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pol_abci.learning.walk import Head, Task

BITS = 5
DRAWS = 200
STEPS = 8
CANDIDATES = 50
"""Nonces looked at for one that is walked."""


def measure(walks: int = 40) -> Iterator[Row]:
    """Walks of chosen nonces beside walks of any, cut off after `STEPS` steps."""
    task, head = load_digits(), learn_head()
    nonces = range(CANDIDATES * walks)
    kinds = [count_kinds(task, head, nonce) for nonce in nonces]
    order = np.argsort(kinds, kind="stable")[:walks].tolist()
    batch = task.train.gather(task.train.draw(head.seed, MINER, 0, 1))
    (look,) = measure_in_steps(
        lambda: task.bound.update(*batch), lambda: count_kinds(task, head, 0)
    )
    honest = walk_all(task, head, nonces[-walks:], 0.0)
    fair = estimate_gain(STEPS / (STEPS - 1) * 2.0**BITS, honest)
    yield Row(
        "walk",
        (
            f"none: honest walks of {STEPS} steps, {BITS} bits",
            f"{STEPS / (STEPS - 1) * 2**BITS:.1f}",
            f"{honest.steps_per_ticket:.1f}",
            str(fair),
            "scores are those of fair coins",
        ),
    )
    free = walk_all(task, head, order, 0.0)
    charged = walk_all(task, head, order, CANDIDATES * look)
    chosen = np.mean([kinds[nonce] for nonce in order])
    note = (
        f"one of {CANDIDATES} nonces: {chosen / STEPS:.1f} classes a batch for "
        f"{np.mean(kinds) / STEPS:.1f}"
    )
    for name, attack in (("look-ups free", free), ("look-ups counted", charged)):
        yield Row(
            "walk",
            (
                f"nonces whose batches have the fewest classes, {name}",
                f"{honest.steps_per_ticket:.1f}",
                f"{attack.steps_per_ticket:.1f}",
                str(estimate_gain(honest, attack)),
                note,
            ),
        )


def count_kinds(task: Task, head: Head, nonce: int) -> int:
    """Classes in each of a walk's batches, added up."""
    total = 0
    for t in range(1, STEPS + 1):
        labels = task.train.gather(task.train.draw(head.seed, MINER, nonce, t))[1]
        total += len({*labels.tolist()})
    return total


def walk_all(task: Task, head: Head, nonces: Sequence[int], before: float) -> Efforts:
    """Tickets of at least `BITS` bits; `before` is what choosing a nonce has cost."""
    efforts = []
    for nonce in nonces:
        won = [
            np.mean(np.array(ticket.scores) >= BITS * SCORE_UNIT)
            for ticket in draw_tickets(task, head, nonce, STEPS, draws=DRAWS, kept=3 * BITS)
        ]
        efforts.append((before + STEPS, float(np.sum(won))))
    return Efforts.of(efforts)
