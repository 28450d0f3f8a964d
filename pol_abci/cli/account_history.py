"""`history`: what happened to an account, newest first."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pol_abci.cli.commands import EXIT_CODES, home_option, json_option, print_json
from pol_abci.cli.node_choice import choose_node, node_option, open_chain
from pol_abci.cli.wallet import address_argument, choose_address, key_option
from pol_abci.client.account_history import get_account_history
from pol_abci.client.keys import format_address, format_amount
from pol_abci.rules.codec import ProofMessage, RegisterValidator, Transfer, Unjail
from pol_abci.rules.ledger import compute_reward
from pol_abci.rules.params import Amount

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.client.account_history import HistoryEntry
    from pol_abci.rules.params import Address, LedgerParams

MAX_LIMIT = 1_000


@click.command(epilog=EXIT_CODES)
@address_argument
@key_option
@home_option
@node_option
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    default=20,
    show_default=True,
    help="How many to show.",
)
@click.option(
    "--skip", type=click.IntRange(min=0), default=0, help="Leave out so many of the newest."
)
@json_option
def history(
    *,
    address: str | None,
    key: Path | None,
    home: Path,
    node: str | None,
    limit: int,
    skip: int,
    as_json: bool,
) -> None:
    """List what happened to an account, newest first.

    Shown are transfers, proofs that it won, and what it did as a validator. ADDRESS is anybody's;
    without it the account is that of --key or --home. The node finds all of it in its index, and
    is believed. What has no transaction of its own doesn't appear: fees that a validator is paid,
    and coins burned for a new account.
    """
    choice, owner = choose_node(node, home), choose_address(address, key, home)

    async def ask() -> tuple[tuple[HistoryEntry, ...], LedgerParams]:
        async with open_chain(choice) as chain:
            entries = await get_account_history(chain.rpc, owner, limit=limit, skip=skip)
            return entries, chain.params.ledger

    entries, params = asyncio.run(ask())
    if as_json:
        print_json([_compose_document(entry, owner, params) for entry in entries])
        return
    if not entries:
        click.echo(f"nothing of {format_address(owner)}" + (" beyond those" if skip else " yet"))
    for entry in entries:
        click.echo(_describe(entry, owner, params))
    if any(entry.time_ms is None for entry in entries):
        click.echo("Where the time is unknown, this node does not have the block any more.")
    if len(entries) == limit:
        click.echo(f"Older ones: --skip {skip + limit}")


def _describe(entry: HistoryEntry, owner: Address, params: LedgerParams) -> str:
    when = "time unknown"
    if entry.time_ms is not None:
        when = f"{datetime.fromtimestamp(entry.time_ms // 1_000).astimezone():%Y-%m-%d %H:%M:%S}"
    document = _compose_document(entry, owner, params)
    what = document["what"]
    change = format_amount(Amount(int(document["amount"])))
    sentence = {
        "sent": f"sent {change} to {document.get('recipient')}",
        "received": f"received {change} from {document.get('sender')}",
        "kept": f"sent {change} to itself",
        "proof": f"won {change} with the proof of generation {document.get('generation')}, "
        f"to be spent from generation {document.get('matures_at')} on",
        "register": "registered its validator key",
        "unjail": "left jail",
    }[what]
    fee = "" if what in ("received", "proof") else f", fee {format_amount(entry.tx.fee)}"
    name = entry.tx.hash.hex().upper()[:8]
    return f"{when:19}  {entry.height:>8}  {name}…  {sentence}{fee}"


def _compose_document(entry: HistoryEntry, owner: Address, params: LedgerParams) -> dict[str, Any]:
    """Amounts in base units, as text: not every reader of JSON keeps 64-bit integers."""
    tx = entry.tx
    document: dict[str, Any] = {
        "height": entry.height,
        "time_ms": entry.time_ms,
        "hash": tx.hash.hex().upper(),
        "amount": "0",
        "fee": str(tx.fee),
        "sequence": tx.sequence,
    }
    match tx.message:
        case Transfer(recipient, amount):
            what = "received" if tx.address != owner else "sent"
            document |= {
                "what": "kept" if tx.address == recipient else what,
                "sender": format_address(tx.address),
                "recipient": format_address(recipient),
                "amount": str(amount),
            }
        case ProofMessage(claim, _):
            generation = claim.generation + 1
            document |= {
                "what": "proof",
                "generation": generation,
                "amount": str(compute_reward(params, claim.generation)),
                "matures_at": generation + params.maturity_generations,
            }
        case RegisterValidator(consensus_key, _):
            document |= {"what": "register", "consensus_key": consensus_key.hex()}
        case Unjail():
            document |= {"what": "unjail"}
    return document
