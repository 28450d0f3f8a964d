"""Any generation's model: what made it, redone from the chain's first weights.

A record of a generation names its walk and what the walk must end in; under the paper's scheme its
transaction has P and W. So records from anywhere will do: a false one does not lead to its own
root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.client.proofs import read_claim
from pol_abci.learning import weights as canonical
from pol_abci.learning.prover import FalseRecord
from pol_abci.learning.scheme import get_scheme
from pol_abci.learning.task import Head
from pol_abci.rules import scheme as rules
from pol_abci.rules.errors import PolError
from pol_abci.rules.seed import compute_first_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pol_abci.audit.folder import ChainGenesis
    from pol_abci.learning.task import Task
    from pol_abci.rules.codec import GenerationRecord


class FalseHistory(PolError):
    """A record of a generation that is not made as the record says."""


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
    get_proof: Callable[[GenerationRecord], bytes],
) -> Generation:
    """Redo all records, which begin at generation 1; the model that they end in.

    `get_proof` gives the transaction that made a generation. It is called where the scheme needs
    it: under `walk` a record says all.

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
        head = _redo(task, head, record, get_proof)
        root = record.weights_root
        used.append(record)
    return Generation(head, root, tuple(used))


def _redo(
    task: Task,
    head: Head,
    record: GenerationRecord,
    get_proof: Callable[[GenerationRecord], bytes],
) -> Head:
    scheme = get_scheme(task.params)
    claim = read_claim(get_proof(record)) if scheme.NEEDS_PROOF else None
    try:
        redone = scheme.redo_generation(task, head, record, claim)
    except FalseRecord as error:
        raise FalseHistory(f"generation {record.generation}: {error}") from error
    if redone.root != record.weights_root:
        raise FalseHistory(
            f"generation {record.generation}: its walk ends in weights with the root "
            f"{redone.root.hex()}, the record says {record.weights_root.hex()}"
        )
    seed = rules.get_scheme(task.params).compute_next_seed(head.seed, record)
    return Head(record.generation, seed, canonical.from_bytes(task.model, redone.weights))
