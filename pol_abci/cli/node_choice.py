"""Which node a command asks: the one that was named, or the home's own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pol_abci.client.light import LightClient
from pol_abci.client.rpc import RpcClient
from pol_abci.node.home import SETTINGS_FILE, HomeError, load_home
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
    """A node of another chain answers where the home's own should."""


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """The node to ask, and the chain that it must be of, None for any."""

    url: str
    home: Path
    chain_id: str | None

    def check(self, chain_id: str) -> None:
        """Raise `OtherChain` unless the node is of the home's chain."""
        if self.chain_id not in (None, chain_id):
            raise OtherChain(
                f"{self.url} is a node of {chain_id}, and {self.home} is of {self.chain_id}: this "
                f"home's node does not run, and another one has its port"
            )


def choose_node(node: str | None, home: Path) -> NodeChoice:
    """Take the node that was named, else the home's own.

    Raises
    ------
    HomeError, GenesisError
        When the home is needed and is none.
    """
    if node is not None:
        return NodeChoice(node, home, None)
    if not (home / SETTINGS_FILE).is_file():
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
