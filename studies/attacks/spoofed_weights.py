"""W by value, from anywhere: trained elsewhere, frozen for ever, or chosen for E.

Nothing in the paper ties the W of a proof to the head. So a miner may train where no requirement is
asked, keep one W and its images' gradients for all generations, or choose a W which any step makes
better on E.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from pol_abci.learning.weights import compute_root
from pol_abci.rules.seed import hash_fields
from studies.attacks.chosen_batches import climb, compute_guide, learn_paper
from studies.attacks.claims import judge, make_claim
from studies.attacks.gains import Efforts, estimate_gain
from studies.attacks.paper_rules import BATCH_SIZE, IMAGES, PaperChain, count_met, draw_requirements
from studies.attacks.report import Row
from studies.attacks.scene import MINER, learn_head, load_digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

REQUIREMENTS = 16
SPOILT = 0.5
"""Of the running means: what a W that is to be improved keeps."""


def measure(generations: int = 6, batches: int = 100) -> Iterator[Row]:
    """Frozen W under the strict rule, W spoilt for E, and what `walk` says to either."""
    chain, weights, _ = learn_paper()
    spoilt = spoil(chain, weights)
    ordinary, tuned = (improve(chain, each, batches) for each in (weights, spoilt))
    yield Row(
        "paper",
        (
            "W chosen so that nearly any step makes it better on E",
            f"{ordinary.steps_per_ticket:.1f} batches for one that is better",
            f"{tuned.steps_per_ticket:.1f}",
            str(estimate_gain(ordinary, tuned)),
            f"{tuned.wins.mean():.0%} of batches do, {ordinary.wins.mean():.0%} with any W",
        ),
    )
    guide = compute_guide(chain, spoilt)
    costs, counts = [], []
    for generation in range(generations):
        before = chain.gradients
        target = 1_000 * (generation + 1)
        while True:
            climb(chain, spoilt, target, guide)
            target += 1
            if chain.count(chain.get_updated()) > chain.count(spoilt):
                break
        costs.append((float(chain.gradients - before), 1.0))
        counts.append(chain.count(chain.get_updated()))
    size = len(chain.task.test)
    note = (
        f"valid by Algorithm 2; the chain's model has {counts[0] / size:.0%} of E after the first "
        f"generation, {counts[-1] / size:.0%} after {generations}"
    )
    yield Row(
        "paper",
        (
            f"one frozen W, its images' gradients kept, {REQUIREMENTS} requirements",
            f"{2**REQUIREMENTS:,}",
            f"{Efforts.of(costs).steps_per_ticket:.0f}",
            str(estimate_gain(float(2**REQUIREMENTS), Efforts.of(costs))),
            note,
        ),
    )
    task, head = load_digits(), learn_head()
    claim = replace(make_claim(task, head), weights_root=compute_root(weights))
    verdict, steps = judge(task, head, claim)
    yield Row(
        "walk",
        ("a model trained elsewhere", "—", "—", "0", f"{verdict}, after {steps} steps"),
    )


def spoil(chain: PaperChain, weights: Tensor) -> Tensor:
    """The same weights with running means that a step brings nearer to the truth."""
    spoilt = weights.clone()
    tensors = chain.task.model.split(spoilt)
    for number in (1, 2, 3):
        tensors[f"bn{number}.running_mean"].mul_(SPOILT)
    return spoilt


def improve(chain: PaperChain, weights: Tensor, batches: int) -> Efforts:
    """Try batches at random; those that make W better on E have won."""
    chooser, before = random.Random(1), chain.count(weights)
    tried = []
    for _ in range(batches):
        chain.update(weights, chooser.sample(range(IMAGES), BATCH_SIZE))
        tried.append((1.0, float(chain.count(chain.get_updated()) > before)))
    return Efforts.of(tried)


def count_lucky(chain: PaperChain, weights: Tensor, batch: list[int], seeds: int) -> int:
    """Of so many heads: for how many a proof meets the requirements that it was not made for."""
    moves = chain.update(weights, batch)
    weight_count = chain.task.model.weight_count
    return sum(
        count_met(
            moves,
            draw_requirements(
                hash_fields("seed", b"elsewhere", seed), MINER, REQUIREMENTS, weight_count
            ),
        )
        == REQUIREMENTS
        for seed in range(seeds)
    )
