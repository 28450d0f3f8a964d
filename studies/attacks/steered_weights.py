"""Weights made so that a step is known before it is done: the paper lets the miner bring W.

A model is trained where nobody looks, then its last layer is made so large that every image which
it knows has a gradient of exactly 0. No weight moves, and equality passes: one proof meets any
requirements, for ever. Its running statistics are left a little off, so that a step, which moves
them, makes it better on E, as the strict rule asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from pol_abci.learning.weights import compute_root
from pol_abci.rules.params import SCORE_UNIT
from pol_abci.rules.requirements import compute_score, iterate_requirements
from pol_abci.rules.seed import hash_fields
from studies.attacks.claims import judge, make_claim
from studies.attacks.gains import Efforts, estimate_gain
from studies.attacks.paper_rules import BATCH_SIZE, IMAGES, PaperChain, draw_requirements
from studies.attacks.report import Row
from studies.attacks.scene import MINER, learn_head, load_digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

REQUIREMENTS = 64
SATURATION = 2.0**14
NUDGES = (0.02, 0.05, 0.1, 0.2, 0.3)
"""How far running means are put off, in running standard deviations."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A proof by value that meets whatever is asked, and what E says of it before and after."""

    weights: Tensor
    batch: list[int]
    before: int
    after: int


def measure(generations: int = 50) -> Iterator[Row]:
    """The prepared proof at so many generations, and what `walk` says to it."""
    chain, head = PaperChain(), learn_head()
    prepared = prepare(chain, head.weights)
    size = len(chain.task.test)
    costs = []
    for generation in range(generations):
        seed = hash_fields("seed", b"steered", generation)
        required = draw_requirements(seed, MINER, REQUIREMENTS, chain.task.model.weight_count)
        before = chain.gradients
        assert chain.verify(prepared.weights, prepared.batch, required)
        costs.append((float(chain.gradients - before), 1.0))
    gain = estimate_gain(2.0**16, Efforts.of(costs))
    note = (
        f"{generations} of {generations} valid at {REQUIREMENTS} requirements; E from "
        f"{prepared.before} to {prepared.after} of {size}; with `anchor` too, once it is in"
    )
    cells = (
        "W with a saturated last layer: one proof for every generation",
        f"{2**16:,} at 16 requirements",
        "1, and it is the verifier's",
        str(gain),
        note,
    )
    yield Row("paper", cells)
    yield measure_walk(prepared)


def prepare(chain: PaperChain, weights: Tensor, tries: int = 10) -> Prepared:
    """Saturate learnt weights, and find a nudge of their statistics and a batch that undoes it."""
    saturated = weights.clone()
    views = chain.task.model.split(saturated)
    views["fc.weight"].mul_(SATURATION)
    views["fc.bias"].mul_(SATURATION)
    random = torch.Generator().manual_seed(1)
    best: Prepared | None = None
    for nudge in NUDGES * tries:
        candidate = saturated.clone()
        tensors = chain.task.model.split(candidate)
        for number in (1, 2, 3):
            deviation = tensors[f"bn{number}.running_var"].sqrt()
            noise = torch.randn(deviation.shape, generator=random)
            tensors[f"bn{number}.running_mean"].add_(nudge * noise * deviation)
        batch = torch.randperm(IMAGES, generator=random)[:BATCH_SIZE].tolist()
        if any(chain.update(candidate, batch)):
            continue
        after, before = chain.count(chain.get_updated()), chain.count(candidate)
        if after > before and (best is None or after > best.after):
            best = Prepared(candidate, batch, before, after)
    assert best is not None, "no nudge that a step undoes"
    return best


def measure_walk(prepared: Prepared) -> Row:
    """The same weights as a claim of `walk`, and a step that moves nothing."""
    task, head = load_digits(), learn_head()
    claim = replace(make_claim(task, head), weights_root=compute_root(prepared.weights))
    verdict, steps = judge(task, head, claim)
    requirements = iterate_requirements(head.seed, MINER, 0, 2, bytes(32), task.model.weight_count)
    still = compute_score(requirements, lambda _: 0, bytes(32)) // SCORE_UNIT
    return Row(
        "walk",
        (
            "weights of the miner's own making",
            "—",
            "—",
            "0",
            f"{verdict}, after {steps} steps; a step that moves nothing scores {still} bits",
        ),
    )
