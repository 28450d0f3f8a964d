"""`transfer`: send coins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pol_abci.cli.commands import EXIT_CODES
from pol_abci.cli.wallet import Draft, send_and_print, sending_options
from pol_abci.client.keys import format_address, format_amount, parse_address, parse_amount
from pol_abci.client.transactions import build_transfer
from pol_abci.rules.codec import Transfer
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from pol_abci.cli.node_choice import ChainAccess
    from pol_abci.cli.wallet import SendingOptions
    from pol_abci.client.keys import AccountKey


class NothingToSend(PolError):
    """An amount of 0."""


@click.command(epilog=EXIT_CODES)
@click.argument("amount")
@click.argument("recipient")
@sending_options
def transfer(*, amount: str, recipient: str, options: SendingOptions) -> None:
    """Send AMOUNT coins, such as 1.5, to the address RECIPIENT.

    You are shown what it costs and asked before anything is sent. Coins for an address that has
    no account yet cost extra, which is burned; how much is the chain's choice. What was sent
    can't be called back.
    """
    message = Transfer(parse_address(recipient), parse_amount(amount))
    if message.amount == 0:
        raise NothingToSend("0 coins are nothing to send")

    async def draft(chain: ChainAccess, key: AccountKey) -> Draft:
        return Draft(
            [
                ("from", format_address(key.address)),
                ("to", format_address(message.recipient)),
                ("amount", format_amount(message.amount)),
            ],
            lambda sequence, fee: build_transfer(
                key,
                chain.chain_id,
                sequence=sequence,
                fee=fee,
                recipient=message.recipient,
                amount=message.amount,
            ),
            message,
        )

    send_and_print(options, draft)
