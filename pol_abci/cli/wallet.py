"""What the commands of an account share: whose it is, what it costs, whether you mean it."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pol_abci.cli.commands import home_option, json_option, print_json, report
from pol_abci.cli.node_choice import choose_node, node_option, open_chain
from pol_abci.cli.passphrase import has_terminal, load_key, passphrase_file_option
from pol_abci.client.bill import compute_bill
from pol_abci.client.keys import KeyFile, format_amount, parse_address, parse_amount
from pol_abci.client.sending import send_tx, wait_committed
from pol_abci.node.layout import get_account_file
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pol_abci.cli.node_choice import ChainAccess
    from pol_abci.client.bill import Bill
    from pol_abci.client.keys import AccountKey
    from pol_abci.rules.codec import Transfer
    from pol_abci.rules.params import Address, Amount

WAIT_S = 60.0
"""For a transaction's block. A chain that is well makes one within seconds."""

address_argument = click.argument("address", required=False)
key_option = click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The account's key, in place of the one of --home.",
)


class NotAgreed(PolError):
    """Nobody said yes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingOptions:
    """What every command that sends something is told."""

    home: Path
    key: Path | None
    passphrase_file: Path | None
    node: str | None
    fee: str | None
    is_agreed: bool
    is_waiting: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """A transaction before it has a number: what it does, and how it is made.

    `build` takes the sequence number and the fee. `transfer` is there if it moves coins.
    """

    plan: list[tuple[str, str]]
    build: Callable[[int, Amount], bytes]
    transfer: Transfer | None = None


_SENDING_OPTIONS = (
    home_option,
    key_option,
    passphrase_file_option,
    node_option,
    click.option(
        "--fee",
        metavar="COINS",
        help="The smallest that the chain takes when left out; more buys nothing.",
    ),
    click.option("--yes", "is_agreed", is_flag=True, help="Send without asking."),
    click.option("--wait/--no-wait", "is_waiting", default=True, help="Wait until a block has it."),
    json_option,
)


def sending_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all that send, as one `options` argument."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        names = SendingOptions.__dataclass_fields__
        options = SendingOptions(**{name: given.pop(name) for name in names})
        command(options=options, **given)

    decorated: Callable[..., None] = wrapper
    for option in reversed(_SENDING_OPTIONS):
        decorated = option(decorated)
    return decorated


def choose_key_file(key: Path | None, home: Path) -> Path:
    """Take the key file that was named, else that of the home."""
    return get_account_file(home) if key is None else key


def choose_address(address: str | None, key: Path | None, home: Path) -> Address:
    """Take the address that was named, else that of the key; no passphrase is needed.

    Raises
    ------
    InvalidAddress, KeyFileError
        When there is none.
    """
    if address is None:
        return KeyFile.read(choose_key_file(key, home)).address
    if key is not None:
        raise click.UsageError("give an address or --key, not both")
    return parse_address(address)


def send_and_print(
    options: SendingOptions, draft: Callable[[ChainAccess, AccountKey], Awaitable[Draft]]
) -> None:
    """Draft a transaction, show what it costs, ask, send it, wait for its block, and tell.

    Raises
    ------
    TooExpensive, NotAgreed, TxRefused, TxFailed, OutcomeUnknown, …
        As their names say.
    """
    fee = None if options.fee is None else parse_amount(options.fee)
    choice = choose_node(options.node, options.home, is_home_key=options.key is None)
    key = load_key(choose_key_file(options.key, options.home), options.passphrase_file)

    async def send() -> tuple[bytes, int | None]:
        async with open_chain(choice) as chain:
            drafted = await draft(chain, key)
            ledger = chain.params.ledger
            bill = await compute_bill(
                chain.rpc, chain.light, ledger, key.address, transfer=drafted.transfer, fee=fee
            )
            plan = [("chain", f"{chain.chain_id} at {choice.url}"), *drafted.plan]
            _agree([*plan, *_describe(bill)], is_agreed=options.is_agreed)

            def sign(sequence: int) -> bytes:
                raw = drafted.build(sequence, bill.fee)
                # before it is out: whoever stops here must know what to look for
                report(f"Signed {hashlib.sha256(raw).hexdigest().upper()}, sending it.")
                return raw

            tx_hash = await send_tx(chain.rpc, key.address, sign, is_own_node=choice.is_own)
            if not options.is_waiting:
                return tx_hash, None
            report("Sent, waiting for its block.")
            return tx_hash, await wait_committed(chain.rpc, tx_hash, WAIT_S)

    tx_hash, height = asyncio.run(send())
    _print_outcome(tx_hash.hex().upper(), height, as_json=options.as_json)


def _describe(bill: Bill) -> list[tuple[str, str]]:
    lines = [("fee", format_amount(bill.fee))]
    if bill.burn:
        lines.append(("burned", f"up to {format_amount(bill.burn)}, for a new account"))
    total = f"{'up to ' if bill.burn else ''}{format_amount(bill.total)}"
    return [*lines, ("total", f"{total} of {format_amount(bill.balance)}")]


def _agree(plan: list[tuple[str, str]], *, is_agreed: bool) -> None:
    """Show what is about to be sent, and ask unless that was said already.

    All of it goes to stderr: stdout has the outcome alone.
    """
    for name, sentence in plan:
        report(f"{name:11} {sentence}")
    if is_agreed:
        return
    if not has_terminal():
        raise NotAgreed("nothing was sent: there is no terminal to ask at; add --yes")
    if not click.confirm("Send it?", err=True):
        raise NotAgreed("nothing was sent")


def _print_outcome(name: str, height: int | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"hash": name, "height": height})
    elif height is None:
        click.echo(f"sent {name}; look for its block with `pol-abci history`")
    else:
        click.echo(f"committed in block {height}: {name}")
