"""Which node a command asks: the one that was named, or the home's own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pol_abci.client.light import LightClient
from pol_abci.client.rpc import RpcClient
from pol_abci.node.home import load_home
from pol_abci.node.layout import SETTINGS_FILE, HomeError
from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import parse_genesis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pol_abci.rules.params import Params

node_option = click.option(
    "--node", metavar="URL", help="A node's RPC, in place of the one of --home."
)


class OtherChain(PolError):
    """A node of another chain answers where one of the home's should."""


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """The node to ask, and the chain that it must be of, None for any.

    `is_own` tells the home's own node from one that was named.
    """

    url: str
    home: Path
    chain_id: str | None
    is_own: bool = True

    def check(self, chain_id: str) -> None:
        """Raise `OtherChain` unless the node is of the home's chain."""
        if self.chain_id in (None, chain_id):
            return
        why = (
            "this home's node does not run, and another one has its port"
            if self.is_own
            else "name a node of the home's chain, or with --key an account of the other one"
        )
        raise OtherChain(
            f"{self.url} is a node of {chain_id}, and {self.home} is of {self.chain_id}: {why}"
        )


def choose_node(node: str | None, home: Path, *, is_home_key: bool = False) -> NodeChoice:
    """Take the node that was named, else the home's own.

    With `is_home_key` the home's account is about to sign, and a named node too must be of the
    home's chain, where the home has one.

    Raises
    ------
    HomeError, GenesisError
        When the home is needed and is none.
    """
    is_home = (home / SETTINGS_FILE).is_file()
    if node is not None:
        chain_id = load_home(home).settings.chain_id if is_home_key and is_home else None
        return NodeChoice(node, home, chain_id, is_own=False)
    if not is_home:
        raise HomeError(
            f"{home.absolute()} is no home of a node: it has no {SETTINGS_FILE}; name another one "
            f"with --home, or a node with --node URL, or make one with `pol-abci init`"
        )
    settings = load_home(home).settings
    return NodeChoice(settings.rpc_url, home, settings.chain_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainAccess:
    """A node that answers, and what its chain's genesis fixes."""

    rpc: RpcClient
    light: LightClient
    chain_id: str
    params: Params


@asynccontextmanager
async def open_chain(choice: NodeChoice) -> AsyncIterator[ChainAccess]:
    """Connect to the node that was chosen.

    Raises
    ------
    OtherChain, GenesisError, RpcError, NodeUnreachable
        When it is of another chain than the home, or does not say.
    """
    async with RpcClient(choice.url) as rpc:
        document = await rpc.genesis()
        choice.check(document.chain_id)
        yield ChainAccess(
            rpc=rpc,
            light=LightClient(rpc, document.chain_id),
            chain_id=document.chain_id,
            params=parse_genesis(document.app_state).params,
        )
