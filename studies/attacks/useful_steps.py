"""Steps that reach the head, of all steps that a miner does: by batch, bits and length of walks.

On virtual chains of one miner. Blocks come at once, or when a verifier of some speed has redone the
winner's walk; then no more than v / (1 + v) of the steps can be useful, v being its speed beside
the miner's, because the walk has to be done before it can be redone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pol_abci.node.presets import load_preset
from studies.attacks.report import Row
from studies.virtual_chain import FIRST_DIFFICULTY_BITS, VirtualChain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pol_abci.rules.params import Params


@dataclass(frozen=True, slots=True)
class Case:
    """A chain: what of the digits preset is changed, and steps to a target interval."""

    name: str
    interval_steps: int = 2_000
    batch_size: int = 16
    min_steps: int = 3
    max_steps: int = 32
    verifier_speed: float = math.inf
    first_bits: float = FIRST_DIFFICULTY_BITS
    generations: int = 20

    def make_params(self) -> Params:
        """The preset's, changed."""
        params = load_preset("digits").params
        return replace(
            params,
            task=replace(params.task, batch_size=self.batch_size),
            scheme=replace(params.walk, min_steps=self.min_steps, max_steps=self.max_steps),
        )


USEFUL = Case(
    "preset `useful`, blocks at once", 1_900, 64, 896, 1_024, first_bits=-0.8, generations=5
)
CASES = (
    Case("preset `digits`", generations=40),
    Case("batches of 64", batch_size=64, generations=40),
    Case("9 bits: 256 steps to an interval", interval_steps=256, generations=60),
    Case("6 bits: 32 steps to an interval", interval_steps=32, generations=60),
    Case("walks of 64 to 128 steps", min_steps=64, max_steps=128, first_bits=1.9),
    Case("walks of 256 to 512 steps", min_steps=256, max_steps=512, first_bits=1.5, generations=10),
    USEFUL,
    replace(USEFUL, name="preset `useful`, verifier as fast as the miner", verifier_speed=1.0),
    replace(USEFUL, name="preset `useful`, verifier of twice its speed", verifier_speed=2.0),
)


def measure(cases: tuple[Case, ...] = CASES) -> Iterator[Row]:
    """One row a chain."""
    for case in cases:
        yield run(case)


def run(case: Case) -> Row:
    """Let a chain learn, and count."""
    params = case.make_params()
    name = f"useful-{case.batch_size}-{case.interval_steps}-{case.max_steps}"
    chain = VirtualChain(
        params,
        name,
        case.interval_steps,
        verifier_speed=case.verifier_speed,
        first_bits=case.first_bits,
    )
    target_ms = params.difficulty.target_interval_ms
    generations = list(chain.run(case.generations, case.generations))
    # The first difficulty is a guess; what it has not settled yet is left out.
    settled = generations[len(generations) // 4 :]
    steps = sum(each.steps for each in settled)
    interval = sum(each.interval_ms for each in settled) / len(settled) / target_ms
    done = interval * len(settled) * case.interval_steps
    redone = steps / len(settled)
    share = redone / (interval * case.interval_steps)
    last = generations[-1]
    size = len(chain.task.test) + len(chain.held.test)
    return Row(
        "useful",
        (
            case.name,
            f"{case.interval_steps:,}",
            f"{math.log2(case.interval_steps) + case.first_bits:.1f}",
            f"{steps / done:.1%}",
            f"{redone:,.0f} steps, {share:.1%} of the miner's",
            f"{interval:.2f}",
            f"{(last.correct_gate + last.correct_held) / size:.1%} after {last.number}",
        ),
    )
