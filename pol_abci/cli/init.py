"""`init`: make a node's home folder, for a new chain or to join one."""

from __future__ import annotations

import re
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pol_abci.cli.commands import (
    EXIT_CODES,
    data_dir_option,
    home_option,
    json_option,
    print_json,
    report,
)
from pol_abci.cli.stopping import hold_signals
from pol_abci.cli.words import format_bits
from pol_abci.client.keys import KeyFile, format_address
from pol_abci.node.binary import find_cometbft
from pol_abci.node.genesis_document import read_genesis_document
from pol_abci.node.home import P2P_PORT, RPC_PORT, TRANSPORTS
from pol_abci.node.presets import load_preset
from pol_abci.rules.params import PaperParams

if TYPE_CHECKING:
    from pol_abci.node.home import Home

DEFAULT_PRESET = "digits"
STUDY_ONLY = (
    "This chain is for study: it runs the paper's algorithms to the letter, where who chooses P "
    "finds proofs with fewer steps, any W will do, and weights that stand still meet requirements "
    "(docs/protocol.md, sections 13 and 14)."
)
MIN_TARGET_INTERVAL_S, MAX_TARGET_INTERVAL_S = 0.5, 30 * 24 * 3_600
"""Below it CometBFT's own rounds are most of an interval; above it no genesis is valid."""
_PEER = r"[0-9a-fA-F]{40}@[^\s,@]+:[0-9]{1,5}"
PEERS = re.compile(f"{_PEER}(,{_PEER})*")

preset_option = click.option(
    "--preset",
    metavar="NAME",
    help=f"What a new chain learns; {DEFAULT_PRESET} when left out.",
)
chain_id_option = click.option(
    "--chain-id", metavar="NAME", help="A new chain's name; chosen when left out."
)


def to_ms(seconds: float | None) -> int | None:
    """A time that may have been left out, in whole milliseconds."""
    return None if seconds is None else round(1_000 * seconds)


target_interval_option = click.option(
    "--target-interval",
    "target_interval_s",
    type=click.FloatRange(MIN_TARGET_INTERVAL_S, MAX_TARGET_INTERVAL_S),
    metavar="SECONDS",
    help="A new chain's time between generations; the preset's when left out.",
)
difficulty_option = click.option(
    "--difficulty",
    "difficulty_bits",
    type=click.FloatRange(0, 4_096),
    metavar="BITS",
    help="A new chain's first difficulty; measured on this machine when left out.",
)
rpc_port_option = click.option(
    "--rpc-port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    default=RPC_PORT,
    show_default=True,
    help="A new home's port for wallets and miners.",
)
p2p_port_option = click.option(
    "--p2p-port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    default=P2P_PORT,
    show_default=True,
    help="A new home's port for other nodes.",
)

new_device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="What the node is to train on: cpu, cuda, cuda:1 …",
)
transport_option = click.option(
    "--abci",
    "transport",
    type=click.Choice(TRANSPORTS),
    default=TRANSPORTS[0],
    show_default=True,
    help="How CometBFT calls the app; docs/operations.md says why not grpc.",
)


@click.command(epilog=EXIT_CODES)
@home_option
@preset_option
@chain_id_option
@click.option(
    "--genesis",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Join the chain of this genesis file; without it a new chain is made.",
)
@click.option("--peers", metavar="ID@HOST:PORT,...", help="Nodes of the chain to join.")
@difficulty_option
@new_device_option
@target_interval_option
@data_dir_option
@rpc_port_option
@p2p_port_option
@transport_option
@json_option
def init(
    *,
    home: Path,
    preset: str | None,
    chain_id: str | None,
    genesis: Path | None,
    peers: str | None,
    difficulty_bits: float | None,
    device: str,
    target_interval_s: float | None,
    data_dir: Path | None,
    rpc_port: int,
    p2p_port: int,
    transport: str,
    as_json: bool,
) -> None:
    """Make a home folder with everything that a node needs. Nothing is ever overwritten.

    A new chain has one validator, this node; its account is funded and owns all shares.
    """
    if genesis is None and peers is not None:
        raise click.UsageError("--peers goes with --genesis: a new chain has no other nodes yet")
    check_peers(peers)
    of_new_chains = (preset, chain_id, difficulty_bits, target_interval_s)
    if genesis is not None and any(value is not None for value in of_new_chains):
        raise click.UsageError(
            "--genesis names a chain that exists: leave out --preset, --chain-id, --difficulty "
            "and --target-interval"
        )
    name = preset or DEFAULT_PRESET
    if genesis is None:
        load_preset(name)  # a mistyped name is told before CometBFT is built for minutes
    with hold_signals():
        from pol_abci.node.init import (  # noqa: PLC0415 (torch takes seconds to load)
            create_home,
            join_chain,
        )

    if genesis is None:
        made = create_home(
            home,
            cometbft=find_cometbft(report),
            preset=name,
            # A name of its own: two chains of one name would take each other's transactions.
            chain_id=chain_id or f"{name}-{secrets.token_hex(3)}",
            report=report,
            device=device,
            data_dir=data_dir,
            rpc_port=rpc_port,
            p2p_port=p2p_port,
            transport=transport,
            difficulty_bits=difficulty_bits,
            target_interval_ms=to_ms(target_interval_s),
        )
    else:
        made = join_chain(
            home,
            cometbft=find_cometbft(report),
            document=read_genesis_document(genesis),
            report=report,
            device=device,
            data_dir=data_dir,
            peers=peers or "",
            rpc_port=rpc_port,
            p2p_port=p2p_port,
            transport=transport,
        )
    print_home(made, home, as_json)


def check_peers(peers: str | None) -> None:
    """Refuse what CometBFT would not take for persistent_peers."""
    if peers is not None and not PEERS.fullmatch(peers):
        raise click.UsageError(
            f"--peers {peers!r}: give ID@HOST:PORT, with commas between several; ID is what "
            f"`cometbft show-node-id` says, 40 hexadecimal digits"
        )


def print_home(made: Home, home: Path, as_json: bool) -> None:
    """Say what was made, and how to run it."""
    if isinstance(made.genesis.params.scheme, PaperParams):
        report(STUDY_ONLY)
    address = format_address(KeyFile.read(made.account_file).address)
    first = made.genesis.params.difficulty.first
    if as_json:
        print_json(
            {
                "home": str(made.path),
                "chain_id": made.settings.chain_id,
                "genesis_digest": made.settings.genesis_digest.hex(),
                "address": address,
                "rpc": made.settings.rpc_url,
                "first_difficulty": first,
            }
        )
        return
    click.echo(f"chain       {made.settings.chain_id}, first difficulty {format_bits(first)} bits")
    click.echo(f"home        {home}")
    click.echo(f"account     {address} (its key is {home}/account.json: keep a copy)")
    click.echo(f"run it      pol-abci up --home {shlex.quote(str(home))}")
