"""A node's home folder, its files read with care and held against each other.

`pol_abci.node.init` makes homes, `pol_abci.node.layout` says where in one what lies.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pol_abci.node.genesis_document import read_genesis_document
from pol_abci.node.layout import (
    SETTINGS_FILE,
    HomeError,
    get_account_file,
    get_cometbft_folder,
    get_config_file,
    get_genesis_file,
    get_store_folder,
    read_toml,
)
from pol_abci.node.occupancy import check_lock, check_port
from pol_abci.node.settings import Settings, read_settings
from pol_abci.rules.genesis import Genesis, compute_genesis_digest

if TYPE_CHECKING:
    from pathlib import Path

RPC_PORT = 26657
P2P_PORT = 26656
"""CometBFT's own choice of ports, for homes that are told no other."""
TRANSPORTS = ("socket", "grpc")
"""Of ABCI, as CometBFT names them; the first is the better one (docs/decisions/0101)."""
_CHAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,50}")


@dataclass(frozen=True, slots=True)
class Home:
    """A home folder that has been read and checked. `path` is absolute."""

    path: Path
    settings: Settings
    genesis: Genesis

    @property
    def cometbft_folder(self) -> Path:
        """CometBFT's `--home`."""
        return get_cometbft_folder(self.path)

    @property
    def config_file(self) -> Path:
        """CometBFT's configuration."""
        return get_config_file(self.path)

    def read_transport(self) -> str:
        """Read how CometBFT calls the app, "socket" or "grpc".

        Raises
        ------
        HomeError
            CometBFT's configuration says something else, or what its gRPC cannot dial.
        """
        config = read_toml(self.config_file)
        transport, proxy_app = config.get("abci"), str(config.get("proxy_app"))
        if transport not in TRANSPORTS:
            raise HomeError(
                f"{self.config_file}: abci is {transport!r}, must be one of {', '.join(TRANSPORTS)}"
            )
        scheme, _, rest = proxy_app.partition("://")
        if transport == "grpc" and (scheme == "tcp" or (scheme == "unix" and rest[:1] != "/")):
            right = rest if scheme == "tcp" else f"passthrough:///{proxy_app}"
            raise HomeError(
                f'{self.config_file}: with abci = "grpc" CometBFT cannot dial proxy_app = '
                f'"{proxy_app}"; write "{right}"'
            )
        return str(transport)

    @property
    def genesis_file(self) -> Path:
        """CometBFT's genesis document."""
        return get_genesis_file(self.path)

    @property
    def account_file(self) -> Path:
        """The key of this node's account."""
        return get_account_file(self.path)

    @property
    def store_folder(self) -> Path:
        """The app's LMDB environment."""
        return get_store_folder(self.path)

    def check_free(self) -> None:
        """Look whether this home's processes could start now.

        Raises
        ------
        HomeInUse
            When they run already.
        PortInUse
            When CometBFT could not listen on a port that it is to listen on.
        """
        check_lock(self.path)
        self.check_ports()

    def check_ports(self) -> None:
        """Raise `PortInUse` when CometBFT could not listen where it is to."""
        for section, address in _read_addresses(self.config_file).items():
            if address.startswith("tcp://"):
                also = f" and rpc in {self.path / SETTINGS_FILE}" if section == "rpc" else ""
                check_port(
                    address,
                    f"--{section}-port (a new home), or laddr under [{section}] in "
                    f"{self.config_file}{also} (this one)",
                )


def load_home(path: Path) -> Home:
    """Read a home folder and hold its files against each other.

    Raises
    ------
    HomeError
        When it is no home, a file is missing or damaged, or the genesis is not the recorded one.
    GenesisError
        When the genesis is not one that this version can run.
    """
    path = path.absolute()
    if not (path / SETTINGS_FILE).is_file():
        raise HomeError(
            f"{path} is no home of a node: it has no {SETTINGS_FILE}; "
            f"name one with --home, or make one: pol-abci init --home {shlex.quote(str(path))}"
        )
    settings = read_settings(path / SETTINGS_FILE)
    for file in (get_genesis_file(path), get_config_file(path)):
        if not file.is_file():
            raise HomeError(f"{file} is missing; restore it from a copy, or make a new home")
    document = read_genesis_document(get_genesis_file(path))
    if document.chain_id != settings.chain_id:
        raise HomeError(
            f"{get_genesis_file(path)} is of chain {document.chain_id!r}, this home of "
            f"{settings.chain_id!r}; put the chain's own genesis back"
        )
    digest = compute_genesis_digest(document.genesis)
    if digest != settings.genesis_digest:
        raise HomeError(
            f"app_state in {get_genesis_file(path)} has been changed since this home was made "
            f"(digest {digest.hex()}, recorded {settings.genesis_digest.hex()}); "
            f"put the chain's own genesis back"
        )
    if 0 < settings.keep_blocks < document.evidence_age_blocks:
        raise HomeError(
            f"{path / SETTINGS_FILE}: app.keep_blocks is {settings.keep_blocks}, but evidence may "
            f"reach {document.evidence_age_blocks} blocks back; give at least those, or 0 for all"
        )
    home = Home(path, settings, document.genesis)
    _check_rpc_port(home)
    return home


def check_chain_id(chain_id: str) -> None:
    """Raise `HomeError` for a chain id that may not stand in paths and on screens."""
    if not _CHAIN_ID.fullmatch(chain_id):
        raise HomeError(
            f"chain id {chain_id!r} is not 1 to 50 letters, digits, dots, dashes or underscores"
        )


def _check_rpc_port(home: Home) -> None:
    """Hold the app's idea of this node's RPC against CometBFT's: nothing works when they part."""
    address = urlsplit(_read_addresses(home.config_file)["rpc"])
    if address.scheme == "tcp" and address.port != urlsplit(home.settings.rpc_url).port:
        raise HomeError(
            f"CometBFT's RPC is at port {address.port} by {home.config_file} (laddr under [rpc]), "
            f"at {home.settings.rpc_url} by {home.path / SETTINGS_FILE} (rpc under [app]); "
            f"make them say the same"
        )


def _read_addresses(file: Path) -> dict[str, str]:
    """Read where CometBFT is to listen, by section of its configuration."""
    config = read_toml(file)
    addresses = {}
    for section in ("rpc", "p2p"):
        table = config.get(section)
        address = table.get("laddr") if isinstance(table, dict) else None
        if not isinstance(address, str):
            raise HomeError(
                f"{file} is cut or damaged: it has no laddr under [{section}]; restore it from a "
                f"copy"
            )
        addresses[section] = address
    return addresses
