"""`validator`: bind a node's consensus key to an account, see how it stands, leave jail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
from nacl.signing import SigningKey

from pol_abci.cli.commands import EXIT_CODES, home_option, json_option, print_json
from pol_abci.cli.node_choice import choose_node, node_option, open_chain
from pol_abci.cli.standing import compose_standing, describe_standing
from pol_abci.cli.wallet import (
    Draft,
    address_argument,
    choose_address,
    key_option,
    send_and_print,
    sending_options,
)
from pol_abci.client.holdings import get_standing
from pol_abci.client.keys import format_address, load_consensus_seed
from pol_abci.client.transactions import build_register_validator, build_unjail
from pol_abci.node.layout import get_consensus_key_file
from pol_abci.rules.address import compute_consensus_address
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.cli.node_choice import ChainAccess
    from pol_abci.cli.wallet import SendingOptions
    from pol_abci.client.holdings import Standing
    from pol_abci.client.keys import AccountKey


class NothingToDo(PolError):
    """A request that the chain would refuse, seen before it is sent."""


@click.group(epilog=EXIT_CODES)
def validator() -> None:
    """Register a node as a validator, see how it stands, leave jail.

    A validator is an account with a node's consensus key bound to it. Its votes count by the
    slots of the ring that it holds, and each proof that its account wins takes one.
    """


@validator.command(epilog=EXIT_CODES)
@sending_options
def register(options: SendingOptions) -> None:
    """Bind the consensus key of --home's node to the account, for ever.

    The account is that of --home, or of --key; it pays the fee. Both keys sign. An account has
    one consensus key, and a consensus key one account; neither can be changed later.
    """
    seed = load_consensus_seed(get_consensus_key_file(options.home))
    bound = compute_consensus_address(bytes(SigningKey(seed).verify_key)).hex().upper()

    async def draft(chain: ChainAccess, key: AccountKey) -> Draft:
        standing = await get_standing(chain.rpc, key.address)
        owner, old = format_address(key.address), standing.consensus_address
        if old is not None:
            raise NothingToDo(
                f"{owner} has the consensus key {old.hex().upper()} already, and keeps it"
            )
        return Draft(
            [("account", owner), ("binds", f"{bound}, for ever")],
            lambda sequence, fee: build_register_validator(
                key, chain.chain_id, sequence=sequence, fee=fee, consensus_seed=seed
            ),
        )

    send_and_print(options, draft)


@validator.command(epilog=EXIT_CODES)
@address_argument
@key_option
@home_option
@node_option
@json_option
def status(
    *, address: str | None, key: Path | None, home: Path, node: str | None, as_json: bool
) -> None:
    """Say how a validator stands, and what to do next.

    ADDRESS is its account's; without it the account is that of --key or --home. All of it is the
    node's word, without proof.
    """
    choice, owner = choose_node(node, home), choose_address(address, key, home)

    async def ask() -> tuple[Standing, ChainAccess]:
        async with open_chain(choice) as chain:
            return await get_standing(chain.rpc, owner), chain

    standing, chain = asyncio.run(ask())
    shares = chain.params.shares
    if as_json:
        print_json(compose_standing(owner, standing, shares))
        return
    for name, sentence in describe_standing(owner, standing, shares):
        click.echo(f"{name:11} {sentence}")


@validator.command(epilog=EXIT_CODES)
@sending_options
def unjail(options: SendingOptions) -> None:
    """Let a jailed validator vote again.

    Jail comes from missing more than half of the blocks that are looked back on. Get the node to
    sign first, or jail comes again.
    """

    async def draft(chain: ChainAccess, key: AccountKey) -> Draft:
        account = (await get_standing(chain.rpc, key.address)).account
        owner = format_address(key.address)
        if account.barred or not account.jailed:
            why = "is barred for ever" if account.barred else "is not in jail"
            raise NothingToDo(f"{owner} {why}; see `pol-abci validator status`")
        return Draft(
            [("unjails", owner)],
            lambda sequence, fee: build_unjail(key, chain.chain_id, sequence=sequence, fee=fee),
        )

    send_and_print(options, draft)
