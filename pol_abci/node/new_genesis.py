"""What a new chain's genesis says: first difficulty, limits, validators."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pol_abci.learning.calibrate import measure_steps_per_second
from pol_abci.learning.scheme import get_scheme
from pol_abci.node.cometbft_setup import BLOCK_OVERHEAD_BYTES
from pol_abci.node.layout import HomeError
from pol_abci.rules.address import compute_consensus_address
from pol_abci.rules.genesis import Genesis, genesis_to_json
from pol_abci.rules.params import MAX_DIFFICULTY, PROTOCOL_VERSION, SCORE_UNIT, Params
from pol_abci.rules.scheme import get_scheme as get_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.learning.task import Task

MEASURE_S = 3.0
MAX_EVIDENCE_BYTES = 65_536


def compute_first_difficulty(steps_per_second: float, params: Params) -> int:
    """Return d_0 in 1/65,536 bit for a chain whose miners do so many steps; protocol section 2."""
    steps = max(1.0, steps_per_second * params.difficulty.target_interval_ms / 1_000)
    return max(0, _round_bits(math.log2(steps) + get_scheme(params).EQUILIBRIUM_BITS))


def compose_consensus_params(params: Params) -> dict[str, Any]:
    """Return CometBFT's consensus_params for a chain of these parameters."""
    maturity = params.ledger.maturity_generations
    max_block_bytes = get_rules(params).max_tx_bytes + BLOCK_OVERHEAD_BYTES
    age_ns = maturity * params.difficulty.target_interval_ms * 10**6
    return {
        "block": {"max_bytes": str(max_block_bytes), "max_gas": "-1"},
        "evidence": {
            # Evidence is too old when both are exceeded; heartbeats make four blocks an interval.
            "max_age_num_blocks": str(4 * maturity),
            "max_age_duration": str(age_ns),
            "max_bytes": str(MAX_EVIDENCE_BYTES),
        },
        "validator": {"pub_key_types": ["ed25519"]},
        "version": {"app": str(PROTOCOL_VERSION)},
        "abci": {"vote_extensions_enable_height": "0"},
    }


def fit_to_machine(
    task: Task, difficulty_bits: float | None, report: Callable[[str], None]
) -> Params:
    """Return the task's parameters with the first difficulty."""
    params = task.params
    if difficulty_bits is None:
        rate = measure_steps_per_second(task, MEASURE_S)
        first = compute_first_difficulty(rate, params)
        report(
            f"This machine does {rate:,.0f} steps a second: "
            f"the first difficulty is {first / SCORE_UNIT:.2f} bits."
        )
    else:
        first = _round_bits(difficulty_bits)
    if not 0 <= first <= MAX_DIFFICULTY:
        raise HomeError(
            f"a first difficulty lies between 0 and {MAX_DIFFICULTY // SCORE_UNIT} bits"
        )
    difficulty = replace(params.difficulty, first=first)
    return replace(params, difficulty=difficulty)


def _round_bits(bits: float) -> int:
    """Return bits in 1/65,536."""
    return round(bits * SCORE_UNIT)


def compose_genesis(document: dict[str, Any], chain_id: str, genesis: Genesis) -> dict[str, Any]:
    """Complete a genesis that CometBFT wrote, with its time, for the chain's validators."""
    document["chain_id"] = chain_id
    document["initial_height"] = "1"
    document["consensus_params"] = compose_consensus_params(genesis.params)
    powers = dict(genesis.ring)
    document["validators"] = [
        _compose_validator(account.consensus_key, powers[account.address])
        for account in genesis.accounts
        if account.consensus_key is not None
    ]
    document["app_state"] = genesis_to_json(genesis)
    return document


def _compose_validator(consensus_key: bytes, power: int) -> dict[str, Any]:
    """Return CometBFT's line of a genesis validator, with the power that InitChain answers."""
    return {
        "address": compute_consensus_address(consensus_key).hex().upper(),
        "pub_key": {
            "type": "tendermint/PubKeyEd25519",
            "value": base64.b64encode(consensus_key).decode(),
        },
        "power": str(power),
        "name": "",
    }
