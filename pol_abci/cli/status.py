"""`status`: what the chain does, and why it stands still, in words or as JSON."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pol_abci.cli.commands import EXIT_CODES, home_option, json_option, print_json
from pol_abci.cli.describe import (
    describe_accuracy,
    describe_difficulty,
    describe_interval,
    describe_tickets,
    describe_verifier,
)
from pol_abci.cli.pace import PACE_WINDOW
from pol_abci.cli.words import format_seconds
from pol_abci.client.chain import get_chain_status, get_history
from pol_abci.client.rpc import RpcClient
from pol_abci.node.home import load_home
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.client.chain import ChainStatus
    from pol_abci.client.rpc import NodeStatus
    from pol_abci.rules.codec import GenerationRecord


class OtherChain(PolError):
    """A node of another chain answers where the home's own should."""


@click.command(epilog=EXIT_CODES)
@click.option("--node", metavar="URL", help="A node's RPC, in place of the one of --home.")
@home_option
@json_option
def status(*, node: str | None, home: Path, as_json: bool) -> None:
    """Say what a chain does, and why it stands still.

    A chain that stands still is no fault: the exit code is 0 whenever the node answers.
    """
    if node is None:
        settings = load_home(home).settings
        url, chain_id = settings.rpc_url, settings.chain_id
    else:
        url, chain_id = node, None
    comet, chain, records = asyncio.run(_ask(url))
    if chain_id not in (None, chain.chain_id):
        raise OtherChain(
            f"{url} is a node of {chain.chain_id}, and {home} is of {chain_id}: this home's node "
            f"does not run, and another one has its port"
        )
    if as_json:
        print_json(_compose_document(url, comet, chain))
        return
    for name, sentence in _describe(url, comet, chain, records):
        click.echo(f"{name:11} {sentence}")


async def _ask(url: str) -> tuple[NodeStatus, ChainStatus, tuple[GenerationRecord, ...]]:
    async with RpcClient(url) as rpc:
        comet, chain = await asyncio.gather(rpc.status(), get_chain_status(rpc))
        records = await get_history(rpc, max(1, chain.generation - PACE_WINDOW + 1))
    return comet, chain, records


def _compose_document(url: str, comet: NodeStatus, chain: ChainStatus) -> dict[str, Any]:
    """Put the app's answer as it is beside what CometBFT says."""
    document = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in asdict(chain).items()
    }
    node = {"url": url, "cometbft": comet.version, "catching_up": comet.catching_up}
    return {**document, "node": node}


def _describe(
    url: str, comet: NodeStatus, chain: ChainStatus, records: tuple[GenerationRecord, ...]
) -> list[tuple[str, str]]:
    """Return the lines for people, each with its name."""
    since_ms = max(0, chain.time_ms - chain.head_time_ms)
    catching_up = ", catching up with the other nodes" if comet.catching_up else ""
    lines = [
        ("chain", f"{chain.chain_id} at {url}, CometBFT {comet.version}{catching_up}"),
        ("height", str(chain.height)),
        ("generation", f"{chain.generation}, {format_seconds(since_ms)} old at the last block"),
        ("interval", describe_interval(records, chain.target_interval_ms)),
        ("difficulty", describe_difficulty(chain.difficulty_now, chain.head_difficulty)),
        ("verifier", describe_verifier(chain.verifier)),
        ("proofs", describe_tickets(chain.tickets)),
    ]
    if chain.accuracy is not None:
        lines.insert(3, ("accuracy", describe_accuracy(chain.accuracy)))
    if chain.standstill is not None:
        lines.append(("stands still", chain.standstill))
    return lines
