"""Genesis: one faulty key is refused by its name, and nothing of a good one is lost."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from pol_abci.rules.errors import GenesisError
from pol_abci.rules.genesis import (
    compute_future_rewards,
    compute_genesis_digest,
    decode_genesis,
    genesis_to_json,
    params_to_json,
    parse_genesis,
    parse_params,
    process_genesis,
)
from pol_abci.rules.params import PaperParams
from pol_abci.rules.state import DictState, Overlay
from pol_abci.rules.transition import get_head, get_stage
from tests.unit.rules import build_chain as make

DELETE = object()


def change(path: str, value: Any) -> dict[str, Any]:
    """The test's genesis with one value in another's place."""
    document = copy.deepcopy(make.genesis_json())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for parent in parents:
        place = place[parent]
    if value is DELETE:
        del place[last]
    else:
        place[last] = value
    return document


ALICE, CAROL = make.address("alice").hex(), make.address("carol").hex()
FAULTS: list[tuple[str, Any, str]] = [
    ("protocol_version", 2, "app_state.protocol_version: give an integer from 1 to 1"),
    ("protocol_version", True, "app_state.protocol_version: give an integer"),
    ("scheme", "else", "app_state.scheme: give one of walk, paper"),
    ("scheme", "paper", "app_state.paper: missing"),
    ("paper", {}, "app_state: take out what is not part of a genesis: paper"),
    ("scheme", DELETE, "app_state.scheme: missing"),
    ("surprise", 1, "app_state: take out what is not part of a genesis: surprise"),
    ("task", [], "app_state.task: give an object"),
    ("task.surprise", 1, "app_state.task: take out .* surprise"),
    ("task.architecture", "", "app_state.task.architecture: give a string"),
    ("task.channels", "8", "app_state.task.channels: give a list"),
    ("task.channels", [8, 0], r"app_state.task.channels\[1\]: give an integer from 1"),
    ("task.train_digest", "AA" * 32, "app_state.task.train_digest: give 64 lower-case hex"),
    ("task.test_digest", "aa" * 31, "app_state.task.test_digest: give 64 lower-case hex"),
    ("task.augmentation.flip", 1, "app_state.task.augmentation.flip: give true or false"),
    ("task.augmentation.shift", -1, "app_state.task.augmentation.shift: give an integer"),
    ("task.batch_size", 1, "app_state.task.batch_size: give an integer from 2"),
    ("task.batch_size", 16.0, "app_state.task.batch_size: give an integer"),
    ("task.learning_rate", 0.0625, "app_state.task.learning_rate: give a string"),
    ("task.learning_rate", "0.000", "app_state.task.learning_rate: give a positive decimal"),
    ("task.learning_rate", "1e-3", "app_state.task.learning_rate: give a positive decimal"),
    ("task.learning_rate", "-0.1", "app_state.task.learning_rate: give a positive decimal"),
    ("arithmetic.version", 2, "app_state.arithmetic.version"),
    ("arithmetic.forward_bits", 21, "app_state.arithmetic.forward_bits"),
    ("arithmetic.backward_bits", 3, "app_state.arithmetic.backward_bits"),
    ("walk.min_steps", 1, "app_state.walk.min_steps: give an integer from 2"),
    ("walk.max_steps", 1, "app_state.walk.max_steps: give an integer from 2"),
    ("walk.progress", "lenient", "app_state.walk.progress: give one of guard, strict"),
    ("walk.evaluation_samples", 0, "app_state.walk.evaluation_samples"),
    ("walk.stamp_bits", 65, "app_state.walk.stamp_bits"),
    ("difficulty.first", -1, "app_state.difficulty.first"),
    ("difficulty.target_interval_ms", 0, "app_state.difficulty.target_interval_ms"),
    ("difficulty.tau_intervals", 0, "app_state.difficulty.tau_intervals"),
    ("difficulty.slope", 0, "app_state.difficulty.slope"),
    ("difficulty.max_fall", 0, "app_state.difficulty.max_fall"),
    ("ledger.reward", 50, "app_state.ledger.reward: give a string"),
    ("ledger.reward", "050", 'app_state.ledger.reward: give "0" to'),
    ("ledger.reward", str(2**63), 'app_state.ledger.reward: give "0" to'),
    ("ledger.reward", "\u0665", 'app_state.ledger.reward: give "0" to'),
    ("ledger.reward", str(2**61), "app_state.ledger.reward: balances of 6300 and rewards"),
    ("ledger.halving_generations", 0, "app_state.ledger.halving_generations"),
    ("ledger.min_fee", "-1", "app_state.ledger.min_fee"),
    ("ledger.account_burn", 40, "app_state.ledger.account_burn: give a string"),
    ("ledger.account_burn", DELETE, "app_state.ledger.account_burn: missing"),
    ("ledger.maturity_generations", 0, "app_state.ledger.maturity_generations"),
    ("shares.slots", 0, "app_state.shares.slots"),
    ("shares.slots", 3, "app_state.ring: 4 slots given: shares.slots has 3"),
    ("shares.max_validators", 0, "app_state.shares.max_validators"),
    ("shares.liveness_window", 0, "app_state.shares.liveness_window"),
    ("accounts", {}, "app_state.accounts: give a list"),
    ("accounts.0.address", "00", r"app_state.accounts\[0\].address: give 40 lower-case hex"),
    ("accounts.0.balance", 5, r"app_state.accounts\[0\].balance: give a string"),
    ("accounts.0.consensus_key", "", r"app_state.accounts\[0\].consensus_key"),
    ("accounts.0.consensus_key", DELETE, r"app_state.accounts\[0\].consensus_key: missing"),
    ("accounts.0.name", "x", r"app_state.accounts\[0\]: take out .* name"),
    ("accounts.2.address", ALICE, "app_state.accounts: give each address once"),
    (
        "accounts.2.consensus_key",
        make.consensus_key("alice").hex(),
        "app_state.accounts: give each consensus_key to one account",
    ),
    ("ring.0.slots", 0, r"app_state.ring\[0\].slots: give an integer from 1"),
    ("ring.0.address", "44" * 20, r"app_state.ring\[0\].address: list this address"),
    ("ring", [], "app_state.ring: give a slot to an account with a consensus_key"),
    ("ring", [{"address": CAROL, "slots": 1}], "app_state.ring: give a slot to an account"),
    ("weights_root", None, "app_state.weights_root: give a string"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS)
def test_invalid_genesis_names_its_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(GenesisError, match=message):
        parse_genesis(change(path, value))


@pytest.mark.parametrize("section", ["task", "walk", "difficulty", "ledger", "shares"])
def test_invalid_genesis_without_one_key(section: str) -> None:
    for key in make.genesis_json()[section]:
        with pytest.raises(GenesisError, match=f"app_state.{section}.{key}: missing"):
            parse_genesis(change(f"{section}.{key}", DELETE))


def test_genesis_survives_json() -> None:
    genesis = parse_genesis(make.genesis_json())
    assert genesis_to_json(genesis) == make.genesis_json()
    assert decode_genesis(json.dumps(make.genesis_json()).encode()) == genesis
    assert parse_params(params_to_json(genesis.params)) == genesis.params


def test_params_alone_are_read_as_strictly() -> None:
    document = params_to_json(make.genesis().params)
    with pytest.raises(GenesisError, match=r"params: take out .* ring"):
        parse_params({**document, "ring": []})


@pytest.mark.parametrize("text", [b"", b"[", b"\xff", b'{"a": 1, "a": 1}', b"[1]", b"9" * 9999])
def test_invalid_genesis_text(text: bytes) -> None:
    with pytest.raises(GenesisError):
        decode_genesis(text)


def test_supply_fits_to_the_last_unit() -> None:
    genesis = make.genesis()
    spare = 2**63 - 1 - compute_future_rewards(genesis.params.ledger) - 300 - 1000
    assert parse_genesis(change("accounts.0.balance", str(spare))).accounts[0].balance == spare
    with pytest.raises(GenesisError, match=r"ledger\.reward"):
        parse_genesis(change("accounts.0.balance", str(spare + 1)))


def test_future_rewards_are_what_proofs_mint_until_none_is_left() -> None:
    params = make.genesis().params.ledger
    assert compute_future_rewards(params) == sum(1001 >> (n // 3) for n in range(3 * 70))


@pytest.mark.parametrize(
    ("path", "value"),
    [("task.learning_rate", "0.06250"), ("ring.1.slots", 2), ("walk.stamp_bits", 4)],
)
def test_every_value_is_in_the_digest(path: str, value: Any) -> None:
    other = parse_genesis(change(path, value))
    assert compute_genesis_digest(other) != compute_genesis_digest(make.genesis())


def test_first_state() -> None:
    state = Overlay(DictState())
    updates = process_genesis(state, make.CHAIN_ID, make.genesis())
    assert {each.consensus_key: each.power for each in updates} == {
        make.consensus_key("alice"): 3,
        make.consensus_key("bob"): 1,
    }
    head = get_head(state)
    assert (head.generation, head.time_ms, head.difficulty) == (0, 0, 5 * 65_536)
    assert head.weights_root == bytes.fromhex("33" * 32)
    assert get_stage(state) == 0
    other = Overlay(DictState())
    process_genesis(other, "pol-other", make.genesis())
    assert get_head(other).seed != head.seed


def paper_json() -> dict[str, Any]:
    """The test's genesis with the paper's scheme."""
    document = copy.deepcopy(make.genesis_json())
    del document["walk"]
    document["scheme"] = "paper"
    document["paper"] = {"anchor": False, "weights_bytes": 29_384}
    document["task"]["augmentation"]["shift"] = 0
    return document


def test_a_genesis_of_the_paper_s_scheme_is_read_and_written() -> None:
    genesis = parse_genesis(paper_json())
    assert genesis.params.scheme == PaperParams(anchor=False, weights_bytes=29_384)
    assert genesis_to_json(genesis) == paper_json()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("anchor", 0, "app_state.paper.anchor: give true or false"),
        ("weights_bytes", 0, "app_state.paper.weights_bytes: give an integer from 1 to"),
        ("weights_bytes", 2**26 + 1, "app_state.paper.weights_bytes: give an integer from 1 to"),
        ("stamp_bits", 0, "app_state.paper: take out what is not part of a genesis: stamp_bits"),
    ],
)
def test_invalid_genesis_of_the_paper_s_scheme_names_its_key(
    key: str, value: Any, message: str
) -> None:
    document = paper_json()
    document["paper"][key] = value
    with pytest.raises(GenesisError, match=message):
        parse_genesis(document)


def test_the_paper_s_scheme_has_no_augmentation() -> None:
    document = paper_json()
    document["task"]["augmentation"]["shift"] = 1
    with pytest.raises(GenesisError, match=r"task\.augmentation: under .* a batch is"):
        parse_genesis(document)
