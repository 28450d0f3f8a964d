"""Print the golden walk of the digits preset as JSON: 30 steps from W_0, bit for bit.

    python -m tests.golden.make_digits_walk > tests/golden/digits_walk.json

It changes only when the protocol's arithmetic, first weights, draws or hashes do.
"""

from __future__ import annotations

import json

from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.walk import Head, Walk, load_task
from pol_abci.learning.weights import compute_root
from pol_abci.rules.seed import compute_first_seed
from tests.unit.learning.digits_task import ADDRESS, CHAIN_ID, make_digits_params

STEPS = 30
NONCE = 7


def compute_golden_walk() -> dict[str, object]:
    """Roots, probes, scores and the count over all of E."""
    task = load_task(make_digits_params(), None, CHAIN_ID)
    head = Head(0, compute_first_seed(CHAIN_ID, bytes(32)), task.initial_weights)
    walk = Walk(task, head, ADDRESS, NONCE)
    steps = [walk.step() for _ in range(STEPS)]
    return {
        "first_root": compute_root(task.initial_weights).hex(),
        "probes": [step.probe.hex() for step in steps],
        "scores": [step.score for step in steps],
        "last_root": walk.root().hex(),
        "correct": count_correct(task, steps[-1].weights),
    }


if __name__ == "__main__":
    print(json.dumps(compute_golden_walk(), indent=2))  # noqa: T201 - this is a command
