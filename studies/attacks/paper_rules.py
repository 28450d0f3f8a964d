"""The paper's rules on digits, as far as attacks need them; protocol section 14.

Requirements come from the head's seed and the miner's address. The proof brings W and the batch P,
and is valid if P's update of W meets them all, where equality passes, and makes W better on E.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import torch

from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.sampling import BatchDraw
from pol_abci.rules.requirements import iterate_paper_requirements
from studies.attacks.scene import get_moves, load_paper_digits

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.walk import Task
    from pol_abci.rules.params import Address

BATCH_SIZE = 4
IMAGES = 1_437


def draw_requirements(
    seed: bytes, address: Address, count: int, weight_count: int
) -> list[tuple[int, int]]:
    """R: so many different weights, each with +1 (may not decrease) or -1 (may not increase)."""
    drawn = islice(iterate_paper_requirements(seed, address, weight_count), count)
    return [(number // 2, -1 if number % 2 else 1) for number in drawn]


def count_met(moves: list[int], requirements: list[tuple[int, int]]) -> int:
    """How many requirements a step meets; a weight that stood still meets any."""
    return sum(moves[index] != -direction for index, direction in requirements)


@dataclass(slots=True)
class PaperChain:
    """The task, and what a miner has done on it: gradients, and evaluations of all of E."""

    task: Task = field(default_factory=load_paper_digits)
    gradients: int = 0
    evaluations: int = 0

    def update(self, weights: Tensor, batch: list[int]) -> list[int]:
        """Algorithm 1, line 6: the step of a batch of ordinals; which way each weight moved."""
        self.gradients += 1
        self.task.bound.load(weights)
        self.task.bound.update(*self.gather(batch))
        return get_moves(self.task)

    def get_moves(self) -> list[int]:
        """Which way each weight moved in the last update."""
        return get_moves(self.task)

    def gather(self, batch: list[int]) -> tuple[Tensor, Tensor]:
        """Inputs and labels of ordinals, as many as a batch has."""
        return self.task.train.gather(BatchDraw(batch, [], [], []))

    def get_updated(self) -> Tensor:
        """W' of the last update."""
        return self.task.bound.weights.clone()

    def count(self, weights: Tensor) -> int:
        """How many images of E are right."""
        self.evaluations += 1
        return count_correct(self.task, weights)

    def verify(
        self, weights: Tensor, batch: list[int], requirements: list[tuple[int, int]]
    ) -> bool:
        """Algorithm 2, whole: requirements, then accuracy(W', E) > accuracy(W, E)."""
        assert len(batch) == len({*batch}) == BATCH_SIZE
        if count_met(self.update(weights, batch), requirements) < len(requirements):
            return False
        return self.count(self.get_updated()) > self.count(weights)

    def train(self, weights: Tensor, steps: int, seed: int) -> Tensor:
        """Plain training from here, which nobody checks."""
        random = torch.Generator().manual_seed(seed)
        self.task.bound.load(weights)
        for _ in range(steps):
            batch = torch.randperm(IMAGES, generator=random)[:BATCH_SIZE].tolist()
            self.task.bound.update(*self.gather(batch))
        self.gradients += steps
        return self.get_updated()
