"""The vectors of transactions and blocks, by the package and by the plain chain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pol_abci.rules.state import DictState, Overlay
from pol_abci.rules.transition import process_block
from tests.unit.rules import build_chain as make
from tests.unit.rules import plain_ed25519
from tests.unit.rules.plain_chain import PlainChain, binary
from tests.unit.rules.reference import preimage, sha256
from tests.unit.rules.test_codec import write_body
from tests.vectors import make_ledger_vectors

if TYPE_CHECKING:
    from tests.unit.rules.build_chain import Plain

FOLDER = Path(make_ledger_vectors.__file__).parent
BLOCKS = ("ledger", "shares", "transition")
NAMES = ("codec", "genesis", "signing", *BLOCKS)


def read_cases(name: str) -> list[Plain]:
    cases: list[Plain] = json.loads((FOLDER / f"{name}.json").read_text("ascii"))
    return cases


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_equal_plain_chain(name: str) -> None:
    plain = PlainChain(make.CHAIN_ID, make.genesis_json())
    for case in read_cases(name):
        assert case["pre"] == plain.entries(), case["name"]
        plain.begin_block(case["block"])
        codes = [plain.apply(tx, case["block"]) for tx in case["txs"]]
        updates = plain.end_block(case["block"])
        assert case["codes"] == codes, case["name"]
        assert dict(case["validator_updates"]) == updates, case["name"]
        assert case["post"] == plain.entries(), case["name"]
        assert plain.held() == plain.issued - plain.burned, case["name"]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_equal_package(name: str) -> None:
    for case in read_cases(name):
        base = Overlay(DictState())
        for key, payload in case["pre"].items():
            base.set(bytes.fromhex(key), bytes.fromhex(payload))
        outcome = process_block(
            base,
            make.chain_context(),
            make.block_context(case["block"]),
            [make.read_tx(bytes.fromhex(tx["raw"])) for tx in case["txs"]],
            make.build_verdicts(case["txs"]),
        )
        codes = [each.error.code if each.error else 0 for each in outcome.txs]
        updates = [[each.consensus_key.hex(), each.power] for each in outcome.validator_updates]
        assert case["codes"] == codes, case["name"]
        assert case["validator_updates"] == updates, case["name"]
        assert case["post"] == make.entries(base), case["name"]


def test_transactions_equal_bytes_by_hand() -> None:
    for case in read_cases("codec"):
        assert case["body"] == write_body(case).hex()
        raw = bytes.fromhex(case["raw"])
        body = bytes.fromhex(case["body"])
        signed = sha256(preimage("tx", make.CHAIN_ID.encode(), body))
        key, signature = plain_ed25519.sign(make.account_seed(case["name"]), signed)
        assert raw == binary(1, body) + binary(2, key) + binary(3, signature)
        assert case["hash"] == sha256(raw).hex()


def test_signatures_equal_plain_integers() -> None:
    for case in read_cases("signing"):
        body = bytes.fromhex(case["body"])
        signed = sha256(preimage("tx", case["chain_id"].encode(), body))
        assert case["signed"] == signed.hex()
        key, signature = plain_ed25519.sign(bytes.fromhex(case["seed"]), signed)
        assert (case["public_key"], case["signature"]) == (key.hex(), signature.hex())
        assert case["address"] == sha256(key)[:20].hex()


def test_genesis_equals_plain_chain() -> None:
    for case in read_cases("genesis"):
        canonical = PlainChain.canonical_json(case["app_state"])
        assert case["digest"] == sha256(preimage("genesis", canonical)).hex()
        assert case["state"] == PlainChain(case["chain_id"], case["app_state"]).entries()


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_ledger_vectors_are_made_alike_by_every_process(hash_seed: str) -> None:
    script = "import json, make_ledger_vectors as v; print(json.dumps(v.make_documents()))"
    output = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(FOLDER.parents[1])},
        cwd=FOLDER,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(output) == {name: read_cases(name) for name in NAMES}
