"""The golden walk: what every machine makes of one walk, and a look at whether this one does.

`golden_walk.json` beside this file says which walk (`given`) and what it makes (`made`). Tests hold
the package against it, a second client written from the protocol, other versions of torch, and
each node and miner the device that it is about to trust.

    python -m pol_abci.learning.golden [DEVICE]

prints the file as it is computed here. It changes only when the protocol's arithmetic, first
weights, draws or hashes do.
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from typing import Any

from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.exact.machine import InexactMachine
from pol_abci.learning.task import Head, load_task
from pol_abci.learning.walk import Walk
from pol_abci.learning.weights import compute_root
from pol_abci.rules.genesis import parse_params
from pol_abci.rules.params import Address
from pol_abci.rules.seed import compute_first_seed

FILE_NAME = "golden_walk.json"


def read_golden_walk() -> dict[str, Any]:
    """The file: `given` is the walk, `made` what it makes."""
    text = resources.files(__package__).joinpath(FILE_NAME).read_text(encoding="utf-8")
    golden: dict[str, Any] = json.loads(text)
    return golden


def compute_golden_walk(device: str = "cpu") -> dict[str, Any]:
    """Roots, probes, scores and the count over all of E, computed on a device: `made`.

    Raises
    ------
    PolError
        As `load_task`.
    """
    given = read_golden_walk()["given"]
    task = load_task(parse_params(given["params"]), None, given["chain_id"], device=device)
    seed = compute_first_seed(given["chain_id"], bytes.fromhex(given["genesis_digest"]))
    address = Address(bytes.fromhex(given["address"]))
    walk = Walk(task, Head(0, seed, task.initial_weights), address, given["nonce"])
    steps = [walk.step() for _ in range(given["steps"])]
    return {
        "first_root": compute_root(task.initial_weights).hex(),
        "probes": [step.probe.hex() for step in steps],
        "scores": [step.score for step in steps],
        "last_root": walk.root().hex(),
        "correct": count_correct(task, steps[-1].weights),
    }


def check_golden_walk(device: str = "cpu") -> None:
    """Walk the golden walk on a device.

    Raises
    ------
    InexactMachine
        When it makes anything else than every other machine.
    PolError
        As `load_task`.
    """
    expected, made = read_golden_walk()["made"], compute_golden_walk(device)
    if made == expected:
        return
    pairs = zip(made["probes"], expected["probes"], strict=True)
    wrong = [t for t, (here, there) in enumerate(pairs, start=1) if here != there]
    where = f"from step {wrong[0]} on" if wrong else "in its scores, its roots or its accuracy"
    raise InexactMachine(
        f"{device} does not compute as other machines do: the golden walk differs {where}. Nothing "
        "that it trains would be accepted; use another device, or the versions of "
        "constraints.txt, and report this with `pol-abci version`"
    )


if __name__ == "__main__":
    golden = {"given": read_golden_walk()["given"], "made": compute_golden_walk(*sys.argv[1:])}
    print(json.dumps(golden, indent=2))  # noqa: T201 - this is a command
