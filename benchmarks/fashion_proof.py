"""What verifying the longest proof of the preset fashion-mnist costs, in training steps.

Needs Debian's package dataset-fashion-mnist. Steps and verifications alternate on one thread, so
that load on the machine weighs on both alike; mining a generation is the steps that the preset's
first difficulty stands for.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

from benchmarks.figures import Figure, main
from pol_abci.learning.walk import EQUILIBRIUM_BITS, Head, Walk, load_task, verify_claim
from pol_abci.node.presets import load_preset
from pol_abci.rules.params import SCORE_UNIT, Address
from pol_abci.rules.proof import TrueWalk, WalkClaim

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = Address(bytes(20))
ROUNDS = 3


def measure() -> Iterator[Figure]:
    """Time walks of the greatest length, and their verification."""
    torch.set_num_threads(1)
    params = load_preset("fashion-mnist").params
    task = load_task(params, None, "benchmark")
    head = Head(0, bytes(32), task.initial_weights)
    length = params.walk.max_steps
    costs = []
    for nonce in range(ROUNDS + 1):
        start = time.perf_counter()
        walk = Walk(task, head, ADDRESS, nonce)
        for _ in range(length):
            walk.step()
        step_s = (time.perf_counter() - start) / length
        claim = WalkClaim(
            generation=head.generation,
            address=ADDRESS,
            nonce=nonce,
            steps=length,
            step_digests=walk.digests,
            weights_root=walk.root(),
        )
        start = time.perf_counter()
        verdict, _ = verify_claim(task, head, claim, lambda: None)
        costs.append((time.perf_counter() - start) / step_s)
        assert isinstance(verdict, TrueWalk)
    cost = statistics.median(costs[1:])  # the first warms caches up
    mined = 2 ** (params.difficulty.first / SCORE_UNIT - EQUILIBRIUM_BITS)
    yield Figure(
        name=f"fashion-mnist: verification of a proof of {length} steps / mining of a block",
        value=f"{cost:.1f} steps' worth",
        beside=f"{mined:,.0f} steps a target interval, one thread of a server's core",
        ratio=cost / mined,
        goal="1/64 = 0.016",
    )


if __name__ == "__main__":
    main(measure)
