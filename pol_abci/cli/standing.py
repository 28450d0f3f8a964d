"""How a validator stands, in sentences, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pol_abci.client.keys import format_address

if TYPE_CHECKING:
    from pol_abci.client.holdings import Standing
    from pol_abci.rules.params import Address, ShareParams

UPDATE_DELAY = 2
"""Blocks until CometBFT counts a change of the validator set."""


def describe_standing(
    address: Address, standing: Standing, params: ShareParams
) -> list[tuple[str, str]]:
    """Tell how a validator stands, a line for each thing."""
    bound = standing.consensus_address
    limit = params.liveness_window // 2
    lines = [
        ("account", format_address(address)),
        ("key", "none registered" if bound is None else bound.hex().upper()),
        ("shares", f"{standing.slots} of {params.slots} slots"),
        ("votes", _describe_votes(standing)),
    ]
    if bound is not None and standing.observed:
        counted = f"{standing.missed} of the last {standing.observed} blocks with a proof"
        lines.append(("missed", f"{counted}; jail comes above {limit}"))
    return [*lines, ("next", _advise(standing, params))]


def compose_standing(address: Address, standing: Standing, params: ShareParams) -> dict[str, Any]:
    """Put the same into a document for programs."""
    bound, account = standing.consensus_address, standing.account
    return {
        "address": format_address(address),
        "height": standing.height,
        "consensus_address": None if bound is None else bound.hex().upper(),
        "jailed": account.jailed,
        "barred": account.barred,
        "slots": standing.slots,
        "slots_total": params.slots,
        "power": standing.power,
        "voting_power": standing.voting_power,
        "total_power": standing.total_power,
        "observed": standing.observed,
        "missed": standing.missed,
        "next": _advise(standing, params),
    }


def _describe_votes(standing: Standing) -> str:
    share = f"power {standing.voting_power} of {standing.total_power} at height {standing.height}"
    change = standing.height + UPDATE_DELAY
    if standing.power == standing.voting_power:
        return share if standing.power else "none: it is not in the validator set"
    if standing.power == 0:
        return f"{share}, none from height {change} on at the latest"
    if standing.voting_power == 0:
        return f"none yet; power {standing.power} from height {change} on at the latest"
    return f"{share}, {standing.power} from height {change} on at the latest"


def _advise(standing: Standing, params: ShareParams) -> str:
    account = standing.account
    if account.barred:
        return "nothing: it signed two different votes and is barred for ever; the coins stay yours"
    if not account.consensus_key:
        return "bind a node's key to this account: pol-abci validator register"
    if account.jailed:
        return "get the node to sign again, then: pol-abci validator unjail"
    if standing.slots == 0:
        return "mine with this account's key: each proof that wins takes a slot"
    if standing.power == 0:
        return f"mine on: only the {params.max_validators} accounts with the most slots vote"
    return "keep the node running and mine on: slots pass to those who win"
