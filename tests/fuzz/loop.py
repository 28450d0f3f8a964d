"""The fuzzing loop: mutate, run, keep what behaves in a new way as a seed for more.

A target takes bytes and says in a word what came of them. Any exception out of it is a fault: a
target catches what the code under test is documented to raise, and nothing else.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fuzz.mutate import mutate_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_SEEDS = 400
_PARTICULARS = re.compile(r"[0-9a-f]{8,}|'[^']*'|[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that reads bytes from outside. `share` of all inputs go to it."""

    name: str
    share: float
    seeds: Sequence[bytes]
    run: Callable[[bytes], str]
    mutate: Callable[[random.Random, Sequence[bytes]], bytes] = mutate_bytes


@dataclass(slots=True)
class Tally:
    """What came of a target's inputs. `outcomes` counts each way of taking or refusing one."""

    inputs: int = 0
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        """Inputs that were taken."""
        return sum(n for name, n in self.outcomes.items() if name.startswith("ok"))


class Found(Exception):
    """An input that breaks a target; `data` does it again."""

    def __init__(self, target: str, data: bytes, fault: BaseException) -> None:
        super().__init__(f"{target}: {type(fault).__name__}: {fault}")
        self.target, self.data = target, data


def run_target(target: Target, inputs: int, seed: int) -> Tally:
    """Give a target so many inputs, the same for the same seed.

    Raises
    ------
    Found
        By the first input that raises.
    """
    choose = random.Random(f"{seed} {target.name}")
    seeds = list(target.seeds)
    tally = Tally()
    start = time.perf_counter()
    for number in range(inputs):
        data = seeds[number] if number < len(target.seeds) else target.mutate(choose, seeds)
        try:
            outcome = target.run(data)
        except Exception as fault:
            raise Found(target.name, data, fault) from fault
        tally.inputs += 1
        if outcome not in tally.outcomes and len(seeds) < MAX_SEEDS:
            seeds.append(data)
        tally.outcomes[outcome] = tally.outcomes.get(outcome, 0) + 1
    tally.seconds = time.perf_counter() - start
    return tally


def describe_refusal(error: Exception) -> str:
    """Name a refusal without its particulars, so that the same reason has the same name."""
    return f"{type(error).__name__} {_PARTICULARS.sub('', str(error))[:60]}"
