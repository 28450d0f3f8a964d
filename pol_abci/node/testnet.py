"""The homes of a testnet, one beside the other: made together, run together on one machine.

    <testnet>/node0/   a home as `pol-abci init` makes one
    <testnet>/node1/   …

A testnet for several hosts has folders of the hosts' names, each to be copied to its host.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from pol_abci.node.building import build_home
from pol_abci.node.home import P2P_PORT, Home, load_home
from pol_abci.node.layout import SETTINGS_FILE, HomeError
from pol_abci.node.occupancy import check_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PORT_STEP = 10
"""Between two nodes of one machine; CometBFT's RPC is at its p2p port + 1, its metrics at + 4."""
RPC_OFFSET = 1
FIRST_PORT = P2P_PORT

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_MAX_PORT = 65_535


def create_testnet(
    path: Path,
    *,
    cometbft: Path,
    preset: str,
    chain_id: str,
    report: Callable[[str], None],
    validators: int,
    first_port: int = FIRST_PORT,
    hosts: Sequence[str] = (),
    device: str = "cpu",
    data_dir: Path | None = None,
    difficulty_bits: float | None = None,
    target_interval_ms: int | None = None,
) -> tuple[Path, ...]:
    """Make the homes of a new chain's first validators in the folder `path`; their folders.

    Without `hosts` all are for this machine, with ports of their own from `first_port` on, which
    must be free. With `hosts`, one a validator, each listens on CometBFT's usual ports, and finds
    the others by their names. The folder appears whole or not at all.

    Raises
    ------
    HomeError, UnknownPreset, DatasetMissing, DatasetMismatch, DeviceMissing
        As `found_chain`; also for a host that is no name, or is named twice.
    PortInUse
        When something listens on a port that a node would have.
    """
    from pol_abci.node.init import (  # noqa: PLC0415 (torch takes seconds to load)
        Seat,
        found_chain,
    )

    ports = [(FIRST_PORT, FIRST_PORT + RPC_OFFSET)] * validators
    if hosts:
        check_hosts(hosts)
    else:
        ports = choose_ports(validators, first_port)
    names = hosts or [f"node{number}" for number in range(validators)]
    with build_home(path, "pol-abci testnet up") as folder:
        seats = []
        for name, host, (p2p_port, rpc_port) in zip(
            names, hosts or ["127.0.0.1"] * validators, ports, strict=True
        ):
            home = folder / name
            home.mkdir()
            seats.append(Seat(home, rpc_port=rpc_port, p2p_port=p2p_port, host=host))
        found_chain(
            seats,
            cometbft=cometbft,
            preset=preset,
            chain_id=chain_id,
            report=report,
            device=device,
            data_dir=data_dir,
            difficulty_bits=difficulty_bits,
            target_interval_ms=target_interval_ms,
        )
    return tuple(path.absolute() / name for name in names)


def load_testnet(path: Path) -> tuple[Home, ...]:
    """Read the homes of a testnet that is all on this machine, in the order of their numbers.

    Raises
    ------
    HomeError
        When there are none, one is damaged, they are of several chains, or they are for several
        machines.
    """
    folders = [found.parent for found in path.absolute().glob(f"*/{SETTINGS_FILE}")]
    if not folders:
        raise HomeError(
            f"{path} is no testnet: none of its folders is a node's home; name one with --home, or "
            f"make one: pol-abci testnet --home {shlex.quote(str(path))}"
        )
    folders.sort(key=lambda folder: (len(folder.name), folder.name))  # node10 after node9
    homes = tuple(map(load_home, folders))
    chains = sorted({home.settings.genesis_digest for home in homes})
    if len(chains) > 1:
        raise HomeError(f"the homes in {path} are of {len(chains)} chains; keep those of one")
    if len({home.settings.rpc_url for home in homes}) < len(homes):
        raise HomeError(
            f"{path} is a testnet for several machines: copy each folder to its host, and run "
            f"`pol-abci up --home FOLDER` there"
        )
    return homes


def choose_ports(validators: int, first_port: int) -> list[tuple[int, int]]:
    """Give each node of one machine ports for p2p and RPC, all of them free now.

    Raises
    ------
    HomeError
        When there are not so many ports from `first_port` on.
    PortInUse
    """
    last = first_port + PORT_STEP * (validators - 1) + RPC_OFFSET
    if not 1 <= first_port <= last <= _MAX_PORT:
        raise HomeError(
            f"{validators} nodes need ports {first_port} to {last}, and ports are between 1 and "
            f"{_MAX_PORT}; choose another with --first-port"
        )
    ports = []
    for number in range(validators):
        p2p_port = first_port + PORT_STEP * number
        ports.append((p2p_port, p2p_port + RPC_OFFSET))
        check_port(f"tcp://0.0.0.0:{p2p_port}", "--first-port")
        check_port(f"tcp://127.0.0.1:{p2p_port + RPC_OFFSET}", "--first-port")
    return ports


def check_hosts(hosts: Sequence[str]) -> None:
    """Raise `HomeError` unless these are names of hosts, each once."""
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise HomeError(f"{host!r} is no host name or IPv4 address; give --hosts a,b,c")
        if hosts.count(host) > 1:
            raise HomeError(f"the host {host} is named twice; each has one validator")
