from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pol_abci.audit.export import ModelNotWritten, export_model
from pol_abci.audit.folder import ChainGenesis
from pol_abci.audit.model import FalseHistory, rebuild_generation
from pol_abci.learning import weights as canonical
from pol_abci.rules.codec import GenerationRecord
from tests.abci.digits_chain import CHAIN_ID, load_digits_task, make_genesis, make_test_params
from tests.abci.digits_driver import run_chain

if TYPE_CHECKING:
    from pathlib import Path

GENERATIONS = 3
History = tuple[list[GenerationRecord], list[tuple[bytes, bytes]]]


def get_proof(record: GenerationRecord) -> bytes:
    raise AssertionError(f"the record of walk {record.generation} says all")


@pytest.fixture(scope="module")
def chain() -> ChainGenesis:
    return ChainGenesis(CHAIN_ID, 1, make_genesis())


@pytest.fixture(scope="module")
def history(
    tmp_path_factory: pytest.TempPathFactory,
) -> History:
    """What a node remembers of its generations, and the weights and seeds that it had."""

    async def make() -> History:
        async with run_chain(tmp_path_factory.mktemp("chain")) as driven:
            await driven.begin()
            replica, heads = driven.nodes[0].replica, []
            heads.append((replica.store.weights(), replica.get_head().seed))
            for _ in range(GENERATIONS):
                await driven.submit(driven.mine(1))
                await driven.driver.make_block()
                heads.append((replica.store.weights(), replica.get_head().seed))
            return [GenerationRecord.decode(data) for _, data in replica.store.records(1, 9)], heads

    return asyncio.run(make())


def test_every_generation_is_rebuilt_from_the_records(
    chain: ChainGenesis, history: History
) -> None:
    records, heads = history
    task = replace(load_digits_task(), params=make_test_params())
    for number, (weights, seed) in enumerate(heads):
        rebuilt = rebuild_generation(task, chain, records[:number], get_proof)
        assert canonical.to_bytes(rebuilt.head.weights) == weights
        assert (rebuilt.head.generation, rebuilt.head.seed) == (number, seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nonce": 12_345}, "generation 2: its walk ends in"),
        ({"weights_root": bytes(32)}, "generation 2: its walk ends in"),
        ({"steps": 0}, "no walk has 0 steps"),
        ({"steps": 2**31}, "no walk has"),
        ({"generation": 7}, "no generation 2"),
    ],
)
def test_a_false_record_makes_no_model(
    chain: ChainGenesis,
    history: History,
    change: dict[str, int],
    message: str,
) -> None:
    records = list(history[0])
    records[1] = replace(records[1], **change)  # type: ignore[arg-type]
    task = replace(load_digits_task(), params=make_test_params())
    with pytest.raises(FalseHistory, match=message):
        rebuild_generation(task, chain, records, get_proof)


def test_the_file_holds_the_numbers_and_the_provenance_its_digest(
    tmp_path: Path,
    chain: ChainGenesis,
    history: History,
) -> None:
    records, _ = history
    task = replace(load_digits_task(), params=make_test_params())
    rebuilt = rebuild_generation(task, chain, records, get_proof)
    path = tmp_path / "model.safetensors"
    export_model(path, task, chain, rebuilt)
    export_model(tmp_path / "again", task, chain, rebuilt)
    assert path.read_bytes() == (tmp_path / "again").read_bytes()

    tensors = load_file(path)
    values = [tensor for name, tensor in tensors.items() if "num_batches" not in name]
    given = torch.cat([tensor.flatten() for tensor in values]).sort().values
    assert torch.equal(given, rebuilt.head.weights.sort().values), "only the order differs"
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["pol_abci"])["weights_root"] == rebuilt.root.hex()

    document = json.loads((tmp_path / "model.safetensors.json").read_text())
    assert document["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert document["accuracy"]["correct"] == records[-1].correct_all
    assert [proof["tx_hash"] for proof in document["proofs"]] == [
        record.tx_hash.hex() for record in records
    ]


def test_a_full_disk_is_said_in_words(tmp_path: Path, chain: ChainGenesis) -> None:
    task = replace(load_digits_task(), params=make_test_params())
    with pytest.raises(ModelNotWritten, match="No such file"):
        export_model(
            tmp_path / "no" / "m", task, chain, rebuild_generation(task, chain, [], get_proof)
        )
