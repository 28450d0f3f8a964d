"""A generation's model as a file for any program, and where it comes from beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from pol_abci import __version__
from pol_abci.client.keys import format_address
from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.exact.torch_layout import to_torch
from pol_abci.rules.errors import PolError
from pol_abci.rules.params import PROTOCOL_VERSION, Address

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.audit.folder import ChainGenesis
    from pol_abci.audit.model import Generation
    from pol_abci.learning.walk import Task

LIBRARIES = ("torch", "numpy", "safetensors", "scikit-learn")


class ModelNotWritten(PolError):
    """A model that has no place on this disk."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Files that were written: the model's and its provenance's, and what the latter says."""

    model: Path
    provenance: Path
    document: dict[str, Any]


def export_model(path: Path, task: Task, chain: ChainGenesis, generation: Generation) -> Exported:
    """Write a model as safetensors, and its provenance as JSON under the same name + ".json".

    Raises
    ------
    ModelNotWritten
        When the disk does not take it.
    """
    head = generation.head
    tensors = to_torch(task.model, head.weights.cpu(), generation.steps)
    about = {
        "chain_id": chain.chain_id,
        "genesis_digest": chain.digest.hex(),
        "generation": head.generation,
        "weights_root": generation.root.hex(),
    }
    # One entry, since safetensors writes several in an order of chance: the file's digest is to be
    # the same wherever it is made.
    content = save(tensors, {"pol_abci": json.dumps(about)})
    document = _describe(task, chain, generation, hashlib.sha256(content).hexdigest())
    beside = path.with_name(path.name + ".json")
    try:
        path.write_bytes(content)
        beside.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise ModelNotWritten(f"cannot write {error.filename}: {error.strerror}") from error
    return Exported(path, beside, document)


def _describe(
    task: Task, chain: ChainGenesis, generation: Generation, file_digest: str
) -> dict[str, Any]:
    params = chain.genesis.params
    return {
        "sha256": file_digest,
        "chain_id": chain.chain_id,
        "genesis_digest": chain.digest.hex(),
        "generation": generation.head.generation,
        "seed": generation.head.seed.hex(),
        "weights_root": generation.root.hex(),
        "initial_weights_root": chain.genesis.weights_root.hex(),
        "steps": generation.steps,
        "accuracy": {
            "correct": count_correct(task, generation.head.weights),
            "size": len(task.test),
            "forward_bits": params.arithmetic.forward_bits,
        },
        "architecture": {"name": params.task.architecture, "channels": params.task.channels},
        "dataset": {
            "name": params.task.dataset,
            "train_digest": params.task.train_digest.hex(),
            "test_digest": params.task.test_digest.hex(),
        },
        "versions": {
            "pol_abci": __version__,
            "protocol": PROTOCOL_VERSION,
            "arithmetic": params.arithmetic.version,
            **{library: metadata.version(library) for library in LIBRARIES},
        },
        "proofs": [
            {
                "generation": record.generation,
                "height": record.height,
                "tx_hash": record.tx_hash.hex(),
                "miner": format_address(Address(record.miner)),
                "nonce": str(record.nonce),  # not every reader has 64 bits
                "steps": record.steps,
                "weights_root": record.weights_root.hex(),
            }
            for record in generation.records
        ],
    }
