"""Steps a second of a task on this machine: what first difficulties are made from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from pol_abci.learning.arithmetic import InvalidStep
from pol_abci.learning.walk import Head, Walk
from pol_abci.rules.params import Address

if TYPE_CHECKING:
    from pol_abci.learning.task import Task

_ADDRESS = Address(bytes(20))
_SEED = bytes(32)


def measure_steps_per_second(task: Task, seconds: float, threads: int = 1) -> float:
    """Walk from the first weights for about `seconds`, as a miner with `threads` does, and count.

    The first walk is not counted: it warms caches up. torch's number of threads, the process's
    own, is set and stays so.
    """
    torch.set_num_threads(threads)
    head = Head(0, _SEED, task.initial_weights)
    _take_steps(task, head, 0, float("inf"))
    start = time.perf_counter()
    deadline = start + seconds
    steps, nonce = 0, 0
    while time.perf_counter() < deadline:
        nonce += 1
        steps += _take_steps(task, head, nonce, deadline)
    return steps / (time.perf_counter() - start)


def _take_steps(task: Task, head: Head, nonce: int, deadline: float) -> int:
    """One walk, to its end or the deadline; the number of steps."""
    walk = Walk(task, head, _ADDRESS, nonce)
    for steps in range(1, task.params.walk.max_steps + 1):
        try:
            walk.step()
        except InvalidStep:
            return steps
        if time.perf_counter() >= deadline:
            return steps
    return task.params.walk.max_steps
