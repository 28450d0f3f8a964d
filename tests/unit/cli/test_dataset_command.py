"""`dataset` on the command line, over files and homes written here."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from pol_abci.cli import main
from pol_abci.learning.datasets import Dataset, compute_digest, load_dataset
from pol_abci.node.layout import get_cometbft_folder, get_genesis_file
from pol_abci.node.presets import load_preset
from pol_abci.node.settings import Settings, write_settings
from pol_abci.rules.genesis import Genesis, GenesisAccount, compute_genesis_digest, genesis_to_json
from pol_abci.rules.params import PROTOCOL_VERSION, Address, Amount
from tests.unit.learning.idx_files import write_dataset

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "files")
    return tmp_path / "files"


@pytest.fixture
def parts(files: Path) -> tuple[Dataset, Dataset]:
    return load_dataset("fashion-mnist", files)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["dataset", *(str(argument) for argument in arguments)])


def write_home(path: Path, parts: tuple[Dataset, Dataset], data_dir: Path | None) -> None:
    """A home whose chain learns these two sets."""
    params = load_preset("fashion-mnist").params
    train_digest, test_digest = (compute_digest(part) for part in parts)
    task = replace(params.task, train_digest=train_digest, test_digest=test_digest)
    account = GenesisAccount(
        address=Address(bytes(20)), balance=Amount(0), consensus_key=bytes(range(32))
    )
    genesis = Genesis(
        params=replace(params, task=task),
        accounts=(account,),
        ring=((account.address, 1),),
        weights_root=bytes(32),
    )
    (get_cometbft_folder(path) / "config").mkdir(parents=True)
    (get_cometbft_folder(path) / "config" / "config.toml").write_text(
        '[rpc]\nladdr = "tcp://127.0.0.1:1"\n[p2p]\nladdr = "tcp://127.0.0.1:2"\n'
    )
    document = {
        "chain_id": "clothes-1",
        "consensus_params": {"version": {"app": str(PROTOCOL_VERSION)}},
        "app_state": genesis_to_json(genesis),
    }
    get_genesis_file(path).write_text(json.dumps(document))
    settings = Settings(
        chain_id="clothes-1",
        genesis_digest=compute_genesis_digest(genesis),
        listen="unix://app.sock",
        rpc_url="http://127.0.0.1:1",
        threads=1,
        data_dir=data_dir,
    )
    write_settings(path, settings)


def test_digests_are_printed_with_counts_and_shapes(
    files: Path, parts: tuple[Dataset, Dataset]
) -> None:
    train, test = parts
    text = run("digest", "fashion-mnist", "--data-dir", files).stdout
    assert str(files) in text
    assert f"5 images of 28x28x1, digest {compute_digest(train).hex()}" in text
    document = json.loads(run("digest", "fashion-mnist", "--data-dir", files, "--json").stdout)
    assert document["source"] == str(files)
    assert document["test"] == {
        "count": 3,
        "shape": [28, 28, 1],
        "digest": compute_digest(test).hex(),
    }


def test_a_homes_dataset_is_found_where_its_settings_say_and_is_the_chains(
    files: Path, parts: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    write_home(tmp_path / "home", parts, files)
    result = run("check", "--home", tmp_path / "home")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("these are what clothes-1 learns\n")


def test_another_edition_is_told_with_its_place_and_both_digests(
    files: Path, parts: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, test = parts
    other = replace(test, labels=test.labels[::-1])
    write_home(tmp_path / "home", (train, other), None)
    result = run("check", "--home", tmp_path / "home", "--data-dir", files)
    assert result.exit_code == 1
    for part in ("test set", str(files), compute_digest(test).hex(), compute_digest(other).hex()):
        assert part in result.stderr


def test_a_folder_without_the_files_is_told_with_what_to_do(tmp_path: Path) -> None:
    result = run("digest", "fashion-mnist", "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert "apt install dataset-fashion-mnist" in result.stderr
