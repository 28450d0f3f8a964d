"""`join`: make the home of a node that joins a running chain."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import click

from pol_abci.cli.commands import (
    EXIT_CODES,
    data_dir_option,
    home_option,
    json_option,
    report,
)
from pol_abci.cli.init import (
    check_peers,
    new_device_option,
    p2p_port_option,
    print_home,
    rpc_port_option,
    transport_option,
)
from pol_abci.cli.stopping import hold_signals
from pol_abci.node.binary import find_cometbft
from pol_abci.node.joining import ask_nodes

if TYPE_CHECKING:
    from pathlib import Path

HASH = re.compile(r"[0-9a-fA-F]{64}")
MAX_HEIGHT = 2**63 - 1


@click.command(epilog=EXIT_CODES)
@click.option(
    "--from",
    "urls",
    metavar="URL",
    multiple=True,
    required=True,
    help="RPC of a node of the chain, http://HOST:26657; better two, that one is held against "
    "the other.",
)
@home_option
@click.option(
    "--blocks",
    "by_blocks",
    is_flag=True,
    help="Execute every block from the first on, in place of taking a snapshot.",
)
@click.option(
    "--trust-height",
    type=click.IntRange(1, MAX_HEIGHT),
    metavar="HEIGHT",
    help="Of a block that you trust, at most a day old; with --trust-hash.",
)
@click.option("--trust-hash", metavar="HASH", help="Its hash, 64 hexadecimal digits.")
@click.option(
    "--peers",
    metavar="ID@HOST:PORT,...",
    help="Nodes to connect to, where it is not those of --from at their hosts.",
)
@new_device_option
@data_dir_option
@rpc_port_option
@p2p_port_option
@transport_option
@json_option
def join(
    *,
    urls: tuple[str, ...],
    home: Path,
    by_blocks: bool,
    trust_height: int | None,
    trust_hash: str | None,
    peers: str | None,
    device: str,
    data_dir: Path | None,
    rpc_port: int,
    p2p_port: int,
    transport: str,
    as_json: bool,
) -> None:
    """Make the home of a node that joins a running chain. Nothing is ever overwritten.

    The node begins with a snapshot that its peers have taken, held against headers that begin with
    a block that is trusted; then it executes and verifies what has followed. With --blocks it
    executes the whole chain and trusts nothing but the genesis, which it takes from the nodes.
    """
    if (trust_height is None) != (trust_hash is None):
        raise click.UsageError("--trust-height and --trust-hash belong together")
    if by_blocks and trust_hash is not None:
        raise click.UsageError("--blocks trusts no block: leave out --trust-height and -hash")
    if trust_hash is not None and not HASH.fullmatch(trust_hash):
        raise click.UsageError(f"--trust-hash {trust_hash!r}: give 64 hexadecimal digits")
    check_peers(peers)
    trust = None
    if trust_height is not None and trust_hash is not None:
        trust = trust_height, bytes.fromhex(trust_hash)
    introduction = asyncio.run(ask_nodes(urls, trust=trust, by_blocks=by_blocks, report=report))
    with hold_signals():
        from pol_abci.node.init import join_chain  # noqa: PLC0415 (torch takes seconds to load)

    made = join_chain(
        home,
        cometbft=find_cometbft(report),
        document=introduction.document,
        report=report,
        device=device,
        data_dir=data_dir,
        peers=peers or introduction.peers,
        state_sync=introduction.state_sync,
        rpc_port=rpc_port,
        p2p_port=p2p_port,
        transport=transport,
    )
    print_home(made, home, as_json)
