"""The genesis document: what a chain is made from, and the state that it begins with; section 2.

`app_state` of CometBFT's genesis, read strictly: two nodes that start agree on every word of it,
and its digest is in the first seed.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pol_abci.rules import keys
from pol_abci.rules.address import ADDRESS_BYTES, PUBLIC_KEY_BYTES
from pol_abci.rules.codec import ROOT_BYTES, Account, Chain, Head, Supply
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.ledger import set_account
from pol_abci.rules.params import (
    ARITHMETIC_VERSION,
    MAX_DIFFICULTY,
    MAX_SUPPLY,
    PROTOCOL_VERSION,
    Address,
    Amount,
    ArithmeticParams,
    Augmentation,
    DifficultyParams,
    LedgerParams,
    PaperParams,
    Params,
    SchemeParams,
    ShareParams,
    TaskParams,
    WalkParams,
)
from pol_abci.rules.seed import compute_first_seed, hash_fields
from pol_abci.rules.shares import bind_key, process_slots, process_validator_set
from pol_abci.rules.strict_json import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.rules.block import ValidatorUpdate
    from pol_abci.rules.state import Overlay

_RATE = re.compile(r"(0|[1-9][0-9]{0,3})(\.[0-9]{1,40})?")
_MAX_STEPS = 65_536
"""Its digests fill half of the largest transaction."""
_MAX_WEIGHTS_BYTES = 64 * 2**20
"""A proof with them fits into CometBFT's largest block, of 100 MB."""
_MAX_SLOTS = 65_536
"""Each block reads all of them."""
_MAX_VALIDATORS = 10_000
"""CometBFT's own limit."""
_MAX_MATURITY_GENERATIONS = 10_000
"""Evidence looks at each of them."""
_MAX_INTERVAL_MS = 30 * 24 * 3_600_000
_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisAccount:
    """An account that exists from the start, and the consensus key that it validates with."""

    address: Address
    balance: Amount
    consensus_key: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Genesis:
    """A whole genesis. `ring` lists owners and how many slots each gets, first slot first."""

    params: Params
    accounts: tuple[GenesisAccount, ...]
    ring: tuple[tuple[Address, int], ...]
    weights_root: bytes


def parse_genesis(app_state: Any) -> Genesis:
    """Read `app_state` as JSON's own types give it.

    Raises
    ------
    GenesisError
        For a key that is unknown, missing or out of its range, by its name.
    """
    root = Section(app_state, "app_state")
    params = _take_params(root)
    accounts = tuple(_take_account(section) for section in root.take_sections("accounts"))
    ring = tuple(_take_owner(section) for section in root.take_sections("ring"))
    weights_root = root.take_bytes("weights_root", ROOT_BYTES)
    root.close()
    _check_accounts(root, accounts)
    _check_supply(root, params.ledger, accounts)
    _check_ring(root, params.shares, accounts, ring)
    return Genesis(params=params, accounts=accounts, ring=ring, weights_root=weights_root)


def decode_genesis(app_state_bytes: bytes) -> Genesis:
    """Read `app_state` as InitChain brings it.

    Raises
    ------
    GenesisError
        As `parse_genesis`; also for what is not JSON and for a key given twice.
    """
    try:
        return parse_genesis(json.loads(app_state_bytes, object_pairs_hook=_take_pairs))
    except (ValueError, RecursionError) as error:
        raise GenesisError(f"app_state: give JSON ({error})") from error


def parse_params(value: Any) -> Params:
    """Read the parameters alone: `app_state` without accounts, ring and weights_root.

    Raises
    ------
    GenesisError
        As `parse_genesis`.
    """
    root = Section(value, "params")
    params = _take_params(root)
    root.close()
    return params


def params_to_json(params: Params) -> dict[str, Any]:
    """What `parse_params` reads."""
    values = asdict(params)
    name = _SCHEME_NAMES[type(params.scheme)]
    values[name] = values.pop("scheme")
    values["scheme"] = name
    task, ledger = values["task"], values["ledger"]
    task["channels"] = list(params.task.channels)
    task["train_digest"] = params.task.train_digest.hex()
    task["test_digest"] = params.task.test_digest.hex()
    ledger["reward"] = str(params.ledger.reward)
    ledger["min_fee"] = str(params.ledger.min_fee)
    ledger["account_burn"] = str(params.ledger.account_burn)
    return {"protocol_version": PROTOCOL_VERSION, **values}


def genesis_to_json(genesis: Genesis) -> dict[str, Any]:
    """What `parse_genesis` reads."""
    return {
        **params_to_json(genesis.params),
        "accounts": [
            {
                "address": account.address.hex(),
                "balance": str(account.balance),
                "consensus_key": account.consensus_key.hex() if account.consensus_key else None,
            }
            for account in genesis.accounts
        ],
        "ring": [{"address": address.hex(), "slots": slots} for address, slots in genesis.ring],
        "weights_root": genesis.weights_root.hex(),
    }


def compute_genesis_digest(genesis: Genesis) -> bytes:
    """H("genesis"; canonical JSON), 32 bytes: sorted keys, no white space, ASCII."""
    document = genesis_to_json(genesis)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hash_fields("genesis", text.encode("ascii"))


def process_genesis(state: Overlay, chain_id: str, genesis: Genesis) -> tuple[ValidatorUpdate, ...]:
    """Write the first state; the validators that InitChain answers with."""
    first_seed = compute_first_seed(chain_id, compute_genesis_digest(genesis))
    head = Head(
        generation=0,
        seed=first_seed,
        difficulty=genesis.params.difficulty.first,
        time_ms=0,  # until the second block sets t_0
        weights_root=genesis.weights_root,
    )
    state.set(keys.chain(), Chain(stage=0))
    state.set(keys.head(), head)
    issued = sum(account.balance for account in genesis.accounts)
    state.set(keys.supply(), Supply(issued=issued))
    for account in genesis.accounts:
        set_account(state, account.address, Account(balance=account.balance))
        if account.consensus_key is not None:
            bind_key(state, account.address, account.consensus_key)
    for owner, slots in genesis.ring:
        process_slots(state, genesis.params.shares, owner, slots)
    return process_validator_set(state, genesis.params.shares)


def compute_future_rewards(params: LedgerParams) -> int:
    """Base units that proofs can ever mint."""
    halvings = params.reward.bit_length()
    return params.halving_generations * sum(params.reward >> i for i in range(halvings))


def _take_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ: readers disagree on which of two counts."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise GenesisError(f"app_state: give each key once in {', '.join(key for key, _ in pairs)}")
    return members


def _take_params(root: Section) -> Params:
    root.take_integer("protocol_version", PROTOCOL_VERSION, PROTOCOL_VERSION)
    scheme = root.take_choice("scheme", tuple(_SCHEMES))
    params = Params(
        scheme=_SCHEMES[scheme](root.take_section(scheme)),
        task=_take_task(root.take_section("task")),
        arithmetic=_take_arithmetic(root.take_section("arithmetic")),
        difficulty=_take_difficulty(root.take_section("difficulty")),
        ledger=_take_ledger(root.take_section("ledger")),
        shares=_take_shares(root.take_section("shares")),
    )
    if isinstance(params.scheme, PaperParams) and params.task.augmentation != _NO_AUGMENTATION:
        raise root.fail(
            "task.augmentation",
            'under "paper" a batch is what P says: give shift 0, flip false, cutout 0',
        )
    return params


def _take_task(section: Section) -> TaskParams:
    task = TaskParams(
        architecture=section.take_text("architecture"),
        channels=section.take_integers("channels", 1, 4_096),
        dataset=section.take_text("dataset"),
        train_digest=section.take_bytes("train_digest", ROOT_BYTES),
        test_digest=section.take_bytes("test_digest", ROOT_BYTES),
        augmentation=_take_augmentation(section.take_section("augmentation")),
        # A batch of one may give a BatchNorm one row (R = 1), whose variance is 0 / 0.
        batch_size=section.take_integer("batch_size", 2, 65_536),
        learning_rate=section.take_text("learning_rate"),
    )
    section.close()
    if not _RATE.fullmatch(task.learning_rate) or not task.learning_rate.strip("0."):
        raise section.fail("learning_rate", 'give a positive decimal string such as "0.0625"')
    return task


def _take_augmentation(section: Section) -> Augmentation:
    augmentation = Augmentation(
        shift=section.take_integer("shift", 0, 255),
        flip=section.take_flag("flip"),
        cutout=section.take_integer("cutout", 0, 255),
    )
    section.close()
    return augmentation


def _take_arithmetic(section: Section) -> ArithmeticParams:
    arithmetic = ArithmeticParams(
        version=section.take_integer("version", ARITHMETIC_VERSION, ARITHMETIC_VERSION),
        forward_bits=section.take_integer("forward_bits", 4, 20),
        backward_bits=section.take_integer("backward_bits", 4, 20),
    )
    section.close()
    return arithmetic


def _take_walk(section: Section) -> WalkParams:
    min_steps = section.take_integer("min_steps", 2, _MAX_STEPS)
    walk = WalkParams(
        min_steps=min_steps,
        max_steps=section.take_integer("max_steps", min_steps, _MAX_STEPS),
        progress=section.take_choice("progress", ("guard", "strict")),
        evaluation_samples=section.take_integer("evaluation_samples", 1, _MAX_COUNT),
        stamp_bits=section.take_integer("stamp_bits", 0, 64),
    )
    section.close()
    return walk


def _take_paper(section: Section) -> PaperParams:
    paper = PaperParams(
        anchor=section.take_flag("anchor"),
        weights_bytes=section.take_integer("weights_bytes", 1, _MAX_WEIGHTS_BYTES),
    )
    section.close()
    return paper


_SCHEMES: dict[str, Callable[[Section], SchemeParams]] = {
    "walk": _take_walk,
    "paper": _take_paper,
}
_SCHEME_NAMES: dict[type[SchemeParams], str] = {WalkParams: "walk", PaperParams: "paper"}
_NO_AUGMENTATION = Augmentation(shift=0, flip=False, cutout=0)


def _take_difficulty(section: Section) -> DifficultyParams:
    difficulty = DifficultyParams(
        first=section.take_integer("first", 0, MAX_DIFFICULTY),
        target_interval_ms=section.take_integer("target_interval_ms", 1, _MAX_INTERVAL_MS),
        tau_intervals=section.take_integer("tau_intervals", 1, 65_536),
        slope=section.take_integer("slope", 1, MAX_DIFFICULTY),
        max_fall=section.take_integer("max_fall", 1, MAX_DIFFICULTY),
    )
    section.close()
    return difficulty


def _take_ledger(section: Section) -> LedgerParams:
    ledger = LedgerParams(
        reward=Amount(section.take_amount("reward", MAX_SUPPLY)),
        halving_generations=section.take_integer("halving_generations", 1, _MAX_COUNT),
        min_fee=Amount(section.take_amount("min_fee", MAX_SUPPLY)),
        account_burn=Amount(section.take_amount("account_burn", MAX_SUPPLY)),
        maturity_generations=section.take_integer(
            "maturity_generations", 1, _MAX_MATURITY_GENERATIONS
        ),
    )
    section.close()
    return ledger


def _take_shares(section: Section) -> ShareParams:
    shares = ShareParams(
        slots=section.take_integer("slots", 1, _MAX_SLOTS),
        max_validators=section.take_integer("max_validators", 1, _MAX_VALIDATORS),
        liveness_window=section.take_integer("liveness_window", 1, 65_536),
    )
    section.close()
    return shares


def _take_account(section: Section) -> GenesisAccount:
    account = GenesisAccount(
        address=Address(section.take_bytes("address", ADDRESS_BYTES)),
        balance=Amount(section.take_amount("balance", MAX_SUPPLY)),
        consensus_key=section.take_bytes_or_null("consensus_key", PUBLIC_KEY_BYTES),
    )
    section.close()
    return account


def _take_owner(section: Section) -> tuple[Address, int]:
    address = Address(section.take_bytes("address", ADDRESS_BYTES))
    slots = section.take_integer("slots", 1, _MAX_SLOTS)
    section.close()
    return address, slots


def _check_accounts(root: Section, accounts: tuple[GenesisAccount, ...]) -> None:
    addresses = [account.address for account in accounts]
    if len(dict.fromkeys(addresses)) < len(addresses):
        raise root.fail("accounts", "give each address once")
    consensus_keys = [each.consensus_key for each in accounts if each.consensus_key is not None]
    if len(dict.fromkeys(consensus_keys)) < len(consensus_keys):
        raise root.fail("accounts", "give each consensus_key to one account")


def _check_supply(
    root: Section, ledger: LedgerParams, accounts: tuple[GenesisAccount, ...]
) -> None:
    balances = sum(account.balance for account in accounts)
    rewards = compute_future_rewards(ledger)
    if balances + rewards > MAX_SUPPLY:
        raise root.fail(
            "ledger.reward",
            f"balances of {balances} and rewards of {rewards} make more than {MAX_SUPPLY}: "
            "lower balances, reward or halving_generations",
        )


def _check_ring(
    root: Section,
    shares: ShareParams,
    accounts: tuple[GenesisAccount, ...],
    ring: tuple[tuple[Address, int], ...],
) -> None:
    listed = {account.address: account for account in accounts}
    for index, (owner, _) in enumerate(ring):
        if owner not in listed:
            raise root.fail(f"ring[{index}].address", "list this address under accounts too")
    taken = sum(slots for _, slots in ring)
    if taken > shares.slots:
        raise root.fail("ring", f"{taken} slots given: shares.slots has {shares.slots}")
    if not any(listed[owner].consensus_key for owner, _ in ring):
        raise root.fail("ring", "give a slot to an account with a consensus_key: no validator else")
