"""`balance`: what an account has, and what it will have."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from pol_abci.cli.commands import EXIT_CODES, home_option, json_option, print_json
from pol_abci.cli.node_choice import choose_node, node_option, open_chain
from pol_abci.cli.wallet import address_argument, choose_address, key_option
from pol_abci.client.holdings import get_holdings
from pol_abci.client.keys import format_address, format_amount
from pol_abci.client.sending import get_pending_account
from pol_abci.rules import keys
from pol_abci.rules.codec import Account
from pol_abci.rules.params import Amount

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.cli.node_choice import ChainAccess
    from pol_abci.client.holdings import Holdings
    from pol_abci.rules.params import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class _Balance:
    """An account: proven after block `height`, and once all that is known to come has come."""

    height: int
    proven: Account
    is_known: bool
    soon: Account
    holdings: Holdings
    slots_total: int


@click.command(epilog=EXIT_CODES)
@address_argument
@key_option
@home_option
@node_option
@json_option
def balance(
    *, address: str | None, key: Path | None, home: Path, node: str | None, as_json: bool
) -> None:
    """Show what an account can spend, and which rewards mature when.

    ADDRESS is anybody's; without it the account is that of --key or --home. Balance and sequence
    are proven against a block's header, which is the node's word; for a node that isn't yours put
    `cometbft light` in front of it. The rest is what the node says.
    """
    choice, owner = choose_node(node, home), choose_address(address, key, home)

    async def ask() -> _Balance:
        async with open_chain(choice) as chain:
            return await _get_balance(chain, owner)

    found = asyncio.run(ask())
    if as_json:
        print_json(_compose_document(owner, found))
        return
    for name, sentence in _describe(owner, found):
        click.echo(f"{name:11} {sentence}")


async def _get_balance(chain: ChainAccess, address: Address) -> _Balance:
    proven, soon, holdings = await asyncio.gather(
        chain.light.get_state(keys.account(address)),
        get_pending_account(chain.rpc, address),
        get_holdings(chain.rpc, address),
    )
    return _Balance(
        height=proven.height,
        proven=Account.decode(proven.payload or b""),
        is_known=proven.payload is not None,
        soon=soon,
        holdings=holdings,
        slots_total=chain.params.shares.slots,
    )


def _describe(address: Address, found: _Balance) -> list[tuple[str, str]]:
    at = f"proven at height {found.height}"
    if not found.is_known:
        at += "; there is no such account yet"
    lines = [
        ("address", format_address(address)),
        ("balance", f"{format_amount(Amount(found.proven.balance))} coins, {at}"),
        ("sequence", f"{found.proven.sequence} transactions sent"),
    ]
    if found.soon != found.proven:
        soon = format_amount(Amount(found.soon.balance))
        lines.append(("soon", f"{soon} coins, with the newest block and what waits for one"))
    holdings = found.holdings
    if holdings.rewards:
        maturing = format_amount(holdings.maturing)
        first, last = holdings.rewards[0], holdings.rewards[-1]
        more = f", the last at {last.generation}" if first != last else ""
        when = f"{format_amount(first.amount)} at generation {first.generation}{more}"
        lines.append(("maturing", f"{maturing} coins, {when}; now {holdings.generation}"))
    lines.append(("shares", f"{holdings.slots} of {found.slots_total} slots"))
    return lines


def _compose_document(address: Address, found: _Balance) -> dict[str, object]:
    """Amounts in base units, as text: not every reader of JSON keeps 64-bit integers."""
    return {
        "address": format_address(address),
        "height": found.height,
        "exists": found.is_known,
        "balance": str(found.proven.balance),
        "sequence": found.proven.sequence,
        "soon": {"balance": str(found.soon.balance), "sequence": found.soon.sequence},
        "generation": found.holdings.generation,
        "maturing": [
            asdict(reward) | {"amount": str(reward.amount)} for reward in found.holdings.rewards
        ],
        "slots": found.holdings.slots,
        "slots_total": found.slots_total,
    }
