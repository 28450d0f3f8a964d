"""The scene of attacks: the digits task, a head that has learnt for a while, what steps do."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from pol_abci.learning.walk import Head, Task, Walk, load_task
from pol_abci.node.presets import load_preset
from pol_abci.rules.params import Address
from pol_abci.rules.requirements import compute_score, iterate_requirements
from pol_abci.rules.seed import hash_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pol_abci.rules.params import Params

CHAIN = "attacked"
MINER = Address(bytes(range(20)))
OTHER = Address(bytes(range(20, 40)))
LEARNT_STEPS = 200


@functools.cache
def load_digits(chain: str = CHAIN) -> Task:
    """The preset's task, with walks from the protocol's least, two steps, on."""
    params = load_preset("digits").params
    return load_task(replace(params, scheme=replace(params.walk, min_steps=2)), None, chain)


def load_paper_digits(batch_size: int = 4, learning_rate: str = "0.001") -> Task:
    """The digits task at the paper's batch and rate, without augmentation."""
    params = load_preset("digits").params
    task = replace(
        params.task,
        augmentation=replace(params.task.augmentation, shift=0),
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    return load_task(replace(params, task=task), None, CHAIN)


@functools.cache
def learn_head(steps: int = LEARNT_STEPS) -> Head:
    """A head that so many steps of drawn batches have made."""
    task = load_digits()
    task.bound.load(task.initial_weights)
    for step in range(1, steps + 1):
        draw = task.train.draw(bytes(32), MINER, 0, step)
        task.bound.update(*task.train.gather(draw))
    return Head(1, hash_fields("seed", b"a head"), task.bound.weights.clone())


def get_moves(task: Task) -> list[int]:
    """Of each learnable weight in the last update of the task's model: +1, -1 or 0."""
    moved = torch.sign(task.bound.weights - task.bound.previous)
    positions = torch.from_numpy(task.model.learnable_positions)
    return moved[positions].int().tolist()


@dataclass(frozen=True, slots=True)
class Ticket:
    """A step of a walk, and what its requirements may be.

    `draws` are independent draws of them by the rules: that of the step itself first, the others
    as if the probe before had been another. `scores` are those of the step under each.
    """

    t: int
    moves: list[int]
    draws: list[list[tuple[int, int]]]
    scores: list[int]


def draw_tickets(
    task: Task, head: Head, nonce: int, steps: int, *, draws: int, kept: int
) -> Iterator[Ticket]:
    """Walk, and score each ticket under so many draws of requirements.

    Whatever a miner knows when it decides on a step is older than the probe that draws the
    requirements, so more draws to a step tell what it does to scores for less work. The first
    `kept` of each draw are given back.
    """
    walk = Walk(task, head, MINER, nonce)
    probe = bytes(32)
    params: Params = task.params
    for t in range(1, steps + 1):
        step = walk.step()
        if t >= params.walk.min_steps:
            moves = get_moves(task)
            lists, scores = [], []
            for draw in range(draws):
                probe_before = hash_fields("probe", probe, draw)
                requirements = iterate_requirements(
                    head.seed, MINER, nonce, t, probe_before, task.model.weight_count
                )
                drawn = [next(requirements) for _ in range(kept)]
                lists.append(drawn)
                scores.append(compute_score(drawn, moves.__getitem__, step.probe))
            yield Ticket(t, moves, lists, scores)
        probe = step.probe


def predict_moves(task: Task, gradient: Tensor) -> list[int]:
    """Moves of learnable weights that a gradient, flat, would make."""
    positions = torch.from_numpy(task.model.learnable_positions)
    return (-torch.sign(gradient[positions])).int().tolist()
