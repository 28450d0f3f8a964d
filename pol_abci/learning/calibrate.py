"""Steps a second of a task on this machine: what first difficulties are made from."""

from __future__ import annotations

import contextlib
import time
from itertools import count
from typing import TYPE_CHECKING

import torch

from pol_abci.learning.scheme import get_scheme
from pol_abci.learning.task import Head
from pol_abci.rules.params import MAX_DIFFICULTY, Address

if TYPE_CHECKING:
    from pol_abci.learning.task import Task

_ADDRESS = Address(bytes(20))
_SEED = bytes(32)
_WARM_STEPS = 32


def measure_steps_per_second(task: Task, seconds: float, threads: int = 1) -> float:
    """Walk from the first weights for about `seconds`, as a miner with `threads` does, and count.

    The first steps are not counted: they warm caches up. torch's number of threads, the process's
    own, is set and stays so.
    """
    torch.set_num_threads(threads)
    head = Head(0, _SEED, task.initial_weights)
    prover = get_scheme(task.params).open_prover(task, head, _ADDRESS, count())
    start, steps = 0.0, -_WARM_STEPS

    def between_steps() -> None:
        nonlocal start, steps
        if steps == 0:
            start = time.perf_counter()
        elif steps > 0 and time.perf_counter() >= start + seconds:
            raise _TimeIsUp
        steps += 1

    with contextlib.suppress(_TimeIsUp):
        prover.find(lambda score: score > MAX_DIFFICULTY, between_steps)
    return steps / (time.perf_counter() - start)


class _TimeIsUp(Exception):
    """Enough was measured."""
