"""Choosing the batch so that its step meets the requirements: the paper's miner chooses P.

Twice. By climbing: change one image of the batch at a time, keep what meets no fewer requirements.
And by climbing with a guide: the gradient of each image by itself, computed once for W, says which
change should help the requirements that are not met. W stays the attacker's, so one W and its
gradients serve every block (`spoofed_weights`).
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pol_abci.rules.seed import hash_fields
from studies.attacks.gains import Efforts, estimate_gain
from studies.attacks.paper_rules import (
    BATCH_SIZE,
    IMAGES,
    PaperChain,
    count_met,
    draw_requirements,
)
from studies.attacks.report import Row
from studies.attacks.scene import MINER
from studies.attacks.surrogate import compute_image_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

REQUIREMENTS = 16
HONEST_REQUIREMENTS = 5
TRAINED_STEPS = 400
TRUSTED = 1.0
"""Of a guess of a move, in its mean size: more than this is no surer."""
PATIENCE = {True: 60, False: 1_000}
"""Changes that bring nothing before a climb begins anew, with a guide and without."""
_CHUNK = 256


def measure(targets: int = 24, honest: int = 80) -> Iterator[Row]:
    """The honest miner at few requirements, then the two ways to climb at `REQUIREMENTS`."""
    chain, weights, guide = learn_paper()
    coins = Efforts.of([(search(chain, weights, target), 1.0) for target in range(honest)])
    fair = estimate_gain(float(2**HONEST_REQUIREMENTS), coins)
    yield Row(
        "paper",
        (
            f"none: batches at random, {HONEST_REQUIREMENTS} requirements",
            f"{2**HONEST_REQUIREMENTS}",
            f"{coins.steps_per_ticket:.0f}",
            str(fair),
            "requirements are met as by fair coins, 2^R gradients",
        ),
    )
    prepared = f"{IMAGES // BATCH_SIZE} steps' worth of image gradients once for W, left out"
    for name, with_guide, count, note in (
        ("batch by climbing", None, targets // 3, "no preparation"),
        ("batch by climbing with a guide", guide, targets, prepared),
    ):
        summits = [climb(chain, weights, target, with_guide) for target in range(count)]
        costs = [(float(summit.gradients), 1.0) for summit in summits]
        efforts = Efforts.of(costs)
        ordered = sorted(cost for cost, _ in costs)
        half, least, most = ordered[len(ordered) // 2], ordered[0], ordered[-1]
        spread = f"{count} tries: half take {half:.0f} or fewer, all {least:.0f} to {most:.0f}"
        honest_steps = 2**REQUIREMENTS
        yield Row(
            "paper",
            (
                f"{name}, {REQUIREMENTS} requirements",
                f"{honest_steps:,}",
                f"{efforts.steps_per_ticket:.0f}",
                str(estimate_gain(float(honest_steps), efforts)),
                f"{spread}; {note}",
            ),
        )


@functools.cache
def learn_paper() -> tuple[PaperChain, Tensor, Tensor]:
    """A chain, a W that has learnt for a while, and the guide that belongs to it."""
    chain = PaperChain()
    weights = chain.train(chain.task.initial_weights, TRAINED_STEPS, 1)
    return chain, weights, compute_guide(chain, weights)


def _require(chain: PaperChain, target: int, count: int) -> list[tuple[int, int]]:
    seed = hash_fields("seed", b"chosen batches", target)
    return draw_requirements(seed, MINER, count, chain.task.model.weight_count)


def search(chain: PaperChain, weights: Tensor, target: int) -> float:
    """Gradients until a batch at random meets the requirements, W staying what it is."""
    chooser = random.Random(target)
    required = _require(chain, target, HONEST_REQUIREMENTS)
    before = chain.gradients
    while True:
        batch = chooser.sample(range(IMAGES), BATCH_SIZE)
        if count_met(chain.update(weights, batch), required) == len(required):
            return float(chain.gradients - before)


def compute_guide(chain: PaperChain, weights: Tensor) -> Tensor:
    """Guessed moves [image, learnable weight] of each image by itself."""
    positions = torch.from_numpy(chain.task.model.learnable_positions)
    parts = []
    for start in range(0, IMAGES, _CHUNK):
        ordinals = list(range(start, min(start + _CHUNK, IMAGES)))
        gradients = compute_image_gradients(chain.task.model, weights, *chain.gather(ordinals))
        parts.append(-gradients[:, positions])
    return torch.cat(parts)


@dataclass(frozen=True, slots=True)
class Summit:
    """A batch that meets all requirements, and the gradients that it took to find it."""

    batch: list[int]
    gradients: int


def climb(chain: PaperChain, weights: Tensor, target: int, guide: Tensor | None) -> Summit:
    """Change batches until one meets all requirements; it is the chain's last update."""
    chooser = random.Random(target)
    required = _require(chain, target, REQUIREMENTS)
    before = chain.gradients
    promise = None
    if guide is not None:
        wanted = torch.tensor([float(direction) for _, direction in required])
        promise = guide[:, [index for index, _ in required]] * wanted
        promise /= promise.abs().mean(0)
    while True:
        batch = chooser.sample(range(IMAGES), BATCH_SIZE)
        if promise is not None:
            batch = _settle(batch, promise)
        batch = _climb_from(chain, weights, batch, required, promise, chooser)
        if count_met(chain.update(weights, batch), required) == len(required):
            return Summit(batch, chain.gradients - before)


def _climb_from(  # noqa: PLR0917 - what one climb is about
    chain: PaperChain,
    weights: Tensor,
    batch: list[int],
    required: list[tuple[int, int]],
    promise: Tensor | None,
    chooser: random.Random,
) -> list[int]:
    moves = chain.update(weights, batch)
    best, idle = count_met(moves, required), 0
    # How much each requirement counts: more while it is not met.
    care = torch.ones(len(required))
    while best < len(required) and idle < PATIENCE[promise is not None]:
        unmet = torch.tensor([moves[index] == -direction for index, direction in required])
        care = care * 0.9 + unmet.float()
        changed = _change(batch, promise, care, chooser)
        tried = chain.update(weights, changed)
        met = count_met(tried, required)
        idle = 0 if met > best else idle + 1
        if met >= best:
            batch, best, moves = changed, met, tried
    return batch


def _change(
    batch: list[int], promise: Tensor | None, care: Tensor, chooser: random.Random
) -> list[int]:
    """Another image in the place of one: any, or one of those that promise most."""
    place = chooser.randrange(BATCH_SIZE)
    others = batch[:place] + batch[place + 1 :]
    if promise is None:
        image = chooser.choice([i for i in range(IMAGES) if i not in batch])
    else:
        worth = ((promise[others].sum(0) + promise).clamp(max=TRUSTED) * care).sum(1)
        worth[batch] = -torch.inf
        image = chooser.choice(worth.topk(20).indices.tolist())
    return [*others, image]


def _settle(batch: list[int], promise: Tensor) -> list[int]:
    """Change images for better ones by promise alone, as long as there are any."""
    while True:
        here = float(promise[batch].sum(0).clamp(max=TRUSTED).sum())
        changes = []
        for place in range(BATCH_SIZE):
            others = batch[:place] + batch[place + 1 :]
            worth = (promise[others].sum(0) + promise).clamp(max=TRUSTED).sum(1)
            worth[batch] = -torch.inf
            image = int(worth.argmax())
            changes.append((float(worth[image]), [*others, image]))
        value, changed = max(changes)
        if value <= here + 1e-6:
            return batch
        batch = changed
