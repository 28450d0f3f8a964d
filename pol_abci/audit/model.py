"""Any generation's model: the walks that made it, redone from the chain's first weights.

A record of a generation names its walk and what the walk must end in. So records from anywhere
will do: a false one does not lead to its own root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.learning.arithmetic import InvalidStep
from pol_abci.learning.walk import Head, Walk
from pol_abci.rules.errors import PolError
from pol_abci.rules.seed import compute_first_seed, compute_next_seed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pol_abci.audit.folder import ChainGenesis
    from pol_abci.learning.walk import Task
    from pol_abci.rules.codec import GenerationRecord


class FalseHistory(PolError):
    """A record of a generation whose walk does not end where the record says."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation's model, the records of all proofs that made it, in order, and their steps."""

    head: Head
    root: bytes
    records: tuple[GenerationRecord, ...]

    @property
    def steps(self) -> int:
        """All steps from the first weights to these."""
        return sum(record.steps for record in self.records)


def rebuild_generation(
    task: Task,
    chain: ChainGenesis,
    records: Iterable[GenerationRecord],
) -> Generation:
    """Redo the walks of all records, which begin at generation 1; the model that they end in.

    Raises
    ------
    FalseHistory
        A walk does not end in its record's root, or a generation is missing.
    """
    head = Head(0, compute_first_seed(chain.chain_id, chain.digest), task.initial_weights)
    root = chain.genesis.weights_root
    used = []
    for record in records:
        if record.generation != head.generation + 1:
            raise FalseHistory(
                f"the history has no generation {head.generation + 1}: the node joined later; "
                f"take it from another one, or from an audit (`pol-abci replay`)"
            )
        head = _walk(task, head, record)
        root = record.weights_root
        used.append(record)
    return Generation(head, root, tuple(used))


def _walk(task: Task, head: Head, record: GenerationRecord) -> Head:
    limits = task.params.walk
    if not limits.min_steps <= record.steps <= limits.max_steps:
        raise FalseHistory(f"generation {record.generation}: no walk has {record.steps} steps")
    walk = Walk(task, head, record.miner, record.nonce)
    try:
        for _ in range(record.steps):
            step = walk.step()
    except InvalidStep as error:
        raise FalseHistory(f"generation {record.generation}: {error}") from error
    if walk.root() != record.weights_root:
        raise FalseHistory(
            f"generation {record.generation}: its walk ends in weights with the root "
            f"{walk.root().hex()}, the record says {record.weights_root.hex()}"
        )
    seed = compute_next_seed(
        head.seed, record.miner, record.nonce, record.steps, record.weights_root
    )
    return Head(record.generation, seed, step.weights.clone())
