"""Leaving a walk before its end: because it looks bad, or because its first steps are better.

A ticket's score is a coin toss that no choice of walks changes. Whether its model is good enough
for the guard is not: it follows from the walk so far, and a miner may leave a walk whose model has
become worse than the head's. What counts is tickets that are good by the guard, to steps.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.learning.evaluate import count_correct, draw_evaluation_sample
from pol_abci.learning.walk import Walk
from pol_abci.node.presets import load_preset
from studies.attacks.gains import Efforts, estimate_gain, measure_in_steps
from studies.attacks.nonce_preselection import PROBE_SHARE
from studies.attacks.report import Row
from studies.attacks.scene import MINER
from studies.virtual_chain import VirtualChain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pol_abci.learning.walk import Head, Task

INTERVAL_STEPS = 2_000
ALLOWED = 0
"""Images that a ticket may lose: none before a target interval has passed."""


def measure(walks: int = 120, heads: tuple[int, ...] = (5, 30)) -> Iterator[Row]:
    """One row for each way to leave, over heads of a young and of an old chain."""
    chain = VirtualChain(load_preset("digits").params, "early-abandon", INTERVAL_STEPS)
    number = 0
    for wanted in heads:
        for generation in chain.run(wanted - number, wanted):
            del generation
        number = wanted
        yield from measure_head(chain.task, chain.head, number, walks)
    steps = chain.task.params.walk.max_steps
    foreseen = steps - 2 + PROBE_SHARE
    yield Row(
        "walk",
        (
            "whole walks, the last step foreseen for nothing and never done in vain",
            f"{steps / (steps - 1):.3f} * 2^d",
            f"{foreseen / (steps - 1):.3f} * 2^d",
            f"{steps / foreseen:.3f} at most",
            "counted, not run: the step before need only be done as far as its probe",
        ),
    )


def measure_head(task: Task, head: Head, number: int, walks: int) -> Iterator[Row]:
    """Choose among ways to leave on half of the walks, and count on the other half."""
    missing = walk_all(task, head, walks)
    learnt, attacked = missing[: walks // 2], missing[walks // 2 :]
    lengths = range(2, missing.shape[1] + 1)
    batch = task.train.gather(task.train.draw(head.seed, MINER, 0, 1))
    sample = draw_evaluation_sample(task, head.seed)
    (look,) = measure_in_steps(
        lambda: task.bound.update(*batch), lambda: count_correct(task, head.weights, sample)
    )
    honest = leave_at(attacked, missing.shape[1])
    best = min(lengths, key=lambda length: leave_at(learnt, length).steps_per_ticket)
    at, most = min(
        itertools.product(lengths[:-1], (-1, 0, 1, 2, 4, 8)),
        key=lambda rule: leave_if_bad(learnt, rule[0], rule[1], look).steps_per_ticket,
    )
    share = float((attacked[:, 1:] <= ALLOWED).mean())
    for name, attack in (
        (f"walks restarted after {best} steps", leave_at(attacked, best)),
        (
            f"walks left after {at} steps where they miss more than {most} images",
            leave_if_bad(attacked, at, most, look),
        ),
    ):
        yield Row(
            "walk",
            (
                f"generation {number}: {name}",
                f"{honest.steps_per_ticket:.2f} * 2^d",
                f"{attack.steps_per_ticket:.2f} * 2^d",
                str(estimate_gain(honest, attack)),
                f"{share:.0%} of tickets lose no image; a look costs {look:.1f} steps",
            ),
        )


def walk_all(task: Task, head: Head, walks: int) -> NDArray[np.int64]:
    """How many images of the sample each step's model gets wrong that the head gets right.

    Shape [walks, max_steps].
    """
    sample = draw_evaluation_sample(task, head.seed)
    correct = count_correct(task, head.weights, sample)
    steps = task.params.walk.max_steps
    missing = np.zeros((walks, steps), np.int64)
    for nonce in range(walks):
        walk = Walk(task, head, MINER, nonce)
        for t in range(steps):
            missing[nonce, t] = correct - count_correct(task, walk.step().weights, sample)
    return missing


def leave_at(missing: NDArray[np.int64], length: int) -> Efforts:
    """Every walk ends after so many steps."""
    good = (missing[:, 1:length] <= ALLOWED).sum(1)
    return Efforts(np.full(len(missing), float(length)), good.astype(np.float64))


def leave_if_bad(missing: NDArray[np.int64], at: int, most: int, look: float) -> Efforts:
    """Look at the model once, and go on only if it misses no more than `most` images."""
    goes_on = missing[:, at - 1] <= most
    is_good = missing[:, 1:] <= ALLOWED
    costs = look + np.where(goes_on, missing.shape[1], at)
    wins = np.where(goes_on, is_good.sum(1), is_good[:, : at - 1].sum(1))
    return Efforts(costs.astype(np.float64), wins.astype(np.float64))
