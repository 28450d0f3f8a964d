"""A home folder: everything that one node owns, where it lies, and reading it with care.

    <home>/pol.toml       settings of the app, and which chain this is
    <home>/account.json   the account's key, mode 0600
    <home>/cometbft/      CometBFT's own home: config/, data/
    <home>/app/           the app's store
    <home>/logs/          one log a process

`pol_abci.node.init` makes homes.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pol_abci.node.supervisor import check_lock, check_port
from pol_abci.rules.address import compute_address
from pol_abci.rules.errors import GenesisError, PolError
from pol_abci.rules.genesis import Genesis, compute_genesis_digest, parse_genesis
from pol_abci.rules.params import PROTOCOL_VERSION

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS_FILE = "pol.toml"
RPC_PORT = 26657
P2P_PORT = 26656
"""CometBFT's own choice of ports, for homes that are told no other."""
MAX_THREADS = 1_024
SNAPSHOT_INTERVAL = 200
"""Blocks that a node which joins has to execute at most, until it stands where the others do."""
MAX_SNAPSHOT_INTERVAL = 10**9
TRANSPORTS = ("socket", "grpc")
"""Of ABCI, as CometBFT names them; the first is the better one (docs/decisions/0101)."""

_PUBLIC_KEY_BYTES = 32
_CHAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,50}")

T = TypeVar("T")


class HomeError(PolError):
    """A folder that is no home, or not the home that its files say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What pol.toml says. `listen` is where CometBFT finds the app, `rpc_url` the reverse.

    A relative path in `listen` begins at the home. `threads` are the verifier's. `device` is
    what it and the miner of `up` compute on, by torch's name. `data_dir` is where datasets lie that
    come with no package; None is where Debian's packages put them. `metrics` is where the app
    serves metrics and health, "host:port", or None. `snapshot_interval` is the heights from one
    snapshot to the next, for nodes that join; 0 for none. `keep_blocks` is how many of its newest
    blocks CometBFT keeps at least; 0 is all.
    """

    chain_id: str
    genesis_digest: bytes
    listen: str
    rpc_url: str
    threads: int
    device: str = "cpu"
    data_dir: Path | None = None
    metrics: str | None = None
    snapshot_interval: int = SNAPSHOT_INTERVAL
    keep_blocks: int = 0


@dataclass(frozen=True, slots=True)
class GenesisDocument:
    """CometBFT's genesis file: the document as it is, and what this protocol reads in it."""

    document: dict[str, Any]
    chain_id: str
    genesis: Genesis

    @property
    def initial_height(self) -> int:
        """Height of the first block."""
        return int(self.document["initial_height"])

    @property
    def evidence_age_blocks(self) -> int:
        """How many blocks back evidence may reach, at least."""
        return self._read_evidence_limit("max_age_num_blocks")

    @property
    def evidence_age_ms(self) -> int:
        """How far back in time evidence may reach, at least, rounded up."""
        return -(-self._read_evidence_limit("max_age_duration") // 10**6)

    def _read_evidence_limit(self, name: str) -> int:
        try:
            return int(self.document["consensus_params"]["evidence"][name])
        except (KeyError, TypeError, ValueError) as error:
            raise GenesisError(
                f"the genesis of {self.chain_id} has no whole number "
                f"consensus_params.evidence.{name}; CometBFT needs one too"
            ) from error


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
        return self.cometbft_folder / "config" / "config.toml"

    def read_transport(self) -> str:
        """Read how CometBFT calls the app, "socket" or "grpc".

        Raises
        ------
        HomeError
            CometBFT's configuration says something else, or what its gRPC cannot dial.
        """
        config = _read_toml(self.config_file)
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
    settings = _read_settings(path / SETTINGS_FILE)
    for file in (get_genesis_file(path), get_cometbft_folder(path) / "config" / "config.toml"):
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


def read_genesis_document(path: Path) -> GenesisDocument:
    """Read CometBFT's genesis file, or what a node's RPC answers to /genesis.

    Raises
    ------
    GenesisError
        When it cannot be read, or is not a genesis of this protocol and version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GenesisError(f"cannot read the genesis {path}: {error.strerror}") from error
    except ValueError as error:
        raise GenesisError(f"{path} is not JSON, so it is no genesis: {error}") from error
    if isinstance(document, dict) and isinstance(document.get("result"), dict):
        document = document["result"].get("genesis")
    return parse_genesis_document(document, str(path))


def parse_genesis_document(document: Any, source: str) -> GenesisDocument:
    """Read what CometBFT's genesis file holds; `source` is for people.

    Raises
    ------
    GenesisError
        When it is not a genesis of this protocol and version.
    """
    if not isinstance(document, dict) or "app_state" not in document:
        raise GenesisError(f"{source} is no genesis of a chain: it has no app_state")
    chain_id = document.get("chain_id")
    if not isinstance(chain_id, str) or not chain_id:
        raise GenesisError(f"{source} names no chain_id")
    try:
        version = document["consensus_params"]["version"]["app"]
    except (KeyError, TypeError):
        version = None
    if version != str(PROTOCOL_VERSION):
        raise GenesisError(
            f"{source} is of protocol version {version}, this is version {PROTOCOL_VERSION} "
            f"(consensus_params.version.app)"
        )
    return GenesisDocument(document, chain_id, parse_genesis(document["app_state"]))


def write_settings(path: Path, settings: Settings) -> None:
    """Write pol.toml into the home folder `path`."""
    import tomlkit  # noqa: PLC0415 (it writes comments; the app only reads, and stays small)

    document = tomlkit.document()
    document.add(tomlkit.comment("Settings of this node; CometBFT's are in cometbft/config/."))
    chain = tomlkit.table()
    chain.add(tomlkit.comment("Which chain this home is of. Changing these changes nothing else."))
    chain["id"] = settings.chain_id
    chain["genesis_digest"] = settings.genesis_digest.hex()
    app = tomlkit.table()
    app.add(tomlkit.comment("Where the app listens for CometBFT (its proxy_app)."))
    app["listen"] = settings.listen
    app.add(tomlkit.comment("The RPC of this node's CometBFT."))
    app["rpc"] = settings.rpc_url
    app.add(tomlkit.comment("Where it serves /metrics for Prometheus and /health."))
    if settings.metrics is None:
        app.add(tomlkit.comment('metrics = "127.0.0.1:26670"'))
    else:
        app["metrics"] = settings.metrics
    app.add(tomlkit.comment("Heights from snapshot to snapshot, for nodes that join; 0 for none."))
    app["snapshot_interval"] = settings.snapshot_interval
    app.add(tomlkit.comment("How many blocks CometBFT keeps at least; 0 is all of them."))
    app["keep_blocks"] = settings.keep_blocks
    verifier = tomlkit.table()
    verifier.add(tomlkit.comment("Threads of the process that verifies proofs."))
    verifier["threads"] = settings.threads
    verifier.add(tomlkit.comment("What it computes on, and the miner of `up`: cpu, cuda, cuda:1 …"))
    verifier["device"] = settings.device
    verifier.add(tomlkit.comment("Where the dataset's files lie, if not in /usr/share/datasets."))
    if settings.data_dir is None:
        verifier.add(tomlkit.comment('data_dir = "/path/to/files"'))
    else:
        verifier["data_dir"] = str(settings.data_dir)
    document["chain"], document["app"], document["verifier"] = chain, app, verifier
    (path / SETTINGS_FILE).write_text(tomlkit.dumps(document), encoding="utf-8")


def get_cometbft_folder(path: Path) -> Path:
    """Return CometBFT's own home in the home folder `path`."""
    return path / "cometbft"


def get_genesis_file(path: Path) -> Path:
    """Return the genesis document in the home folder `path`."""
    return get_cometbft_folder(path) / "config" / "genesis.json"


def get_consensus_key_file(path: Path) -> Path:
    """Return the file of CometBFT's validator key in the home folder `path`."""
    return get_cometbft_folder(path) / "config" / "priv_validator_key.json"


def get_signing_state_file(path: Path) -> Path:
    """Return the file in which CometBFT notes what its validator has signed last."""
    return get_cometbft_folder(path) / "data" / "priv_validator_state.json"


def get_node_key_file(path: Path) -> Path:
    """Return the file of the key by which CometBFT's peers know it."""
    return get_cometbft_folder(path) / "config" / "node_key.json"


def get_store_folder(path: Path) -> Path:
    """Return the app's LMDB environment in the home folder `path`."""
    return path / "app"


def get_account_file(path: Path) -> Path:
    """Return the account's key file in the home folder `path`."""
    return path / "account.json"


def compute_node_id(path: Path) -> str:
    """Compute what CometBFT calls the node in the home folder `path`: 20 bytes of its key's hash.

    Raises
    ------
    HomeError
        When its key file is damaged.
    """
    file = get_cometbft_folder(path) / "config" / "node_key.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        key = base64.b64decode(document["priv_key"]["value"])[-_PUBLIC_KEY_BYTES:]
    except (ValueError, KeyError, TypeError) as error:
        raise HomeError(f"{file} is damaged; restore it from a copy") from error
    return compute_address(key).hex()


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
    config = _read_toml(file)
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


def _read_settings(file: Path) -> Settings:
    """Read pol.toml strictly: a mistyped key must not pass for a default."""
    values = _read_toml(file)
    settings = Settings(
        chain_id=_take(file, values, "chain", "id", str),
        genesis_digest=_take_digest(file, values),
        listen=_take(file, values, "app", "listen", str),
        rpc_url=_take(file, values, "app", "rpc", str),
        threads=_take(file, values, "verifier", "threads", int),
        device=_take(file, values, "verifier", "device", str),
        data_dir=_take_data_dir(file, values),
        metrics=_take_optional(file, values, "app", "metrics", str),
        snapshot_interval=_take_snapshot_interval(file, values),
        keep_blocks=_take_optional(file, values, "app", "keep_blocks", int) or 0,
    )
    unknown = [
        f"{section}.{key}"
        for section, rest in values.items()
        for key in (rest if isinstance(rest, dict) else [""])
    ]
    if unknown:
        raise HomeError(f"{file}: take out what is no setting: {', '.join(unknown)}")
    if not settings.listen.startswith(("unix://", "tcp://")):
        raise HomeError(f"{file}: app.listen must begin with unix:// or tcp://")
    if not settings.rpc_url.startswith(("http://", "https://")):
        raise HomeError(f"{file}: app.rpc must begin with http:// or https://")
    if settings.keep_blocks < 0:
        raise HomeError(f"{file}: app.keep_blocks must be 0, which keeps all, or more")
    if not 1 <= settings.threads <= MAX_THREADS:
        raise HomeError(f"{file}: verifier.threads must be between 1 and {MAX_THREADS}")
    if not 0 <= settings.snapshot_interval <= MAX_SNAPSHOT_INTERVAL:
        raise HomeError(
            f"{file}: app.snapshot_interval must be between 0 and {MAX_SNAPSHOT_INTERVAL}"
        )
    return settings


def _take_digest(file: Path, values: dict[str, Any]) -> bytes:
    """Take the genesis digest out of the settings' values."""
    text = _take(file, values, "chain", "genesis_digest", str)
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise HomeError(f"{file}: chain.genesis_digest must be hexadecimal digits") from error


def _take_data_dir(file: Path, values: dict[str, Any]) -> Path | None:
    """Take the datasets' folder out of the settings' values; a relative one begins at the home."""
    text = _take_optional(file, values, "verifier", "data_dir", str)
    return None if text is None else file.parent / text


def _take_snapshot_interval(file: Path, values: dict[str, Any]) -> int:
    """Take the interval out of the settings' values; homes of before have none."""
    interval = _take_optional(file, values, "app", "snapshot_interval", int)
    return SNAPSHOT_INTERVAL if interval is None else interval


def _take(file: Path, values: dict[str, Any], section: str, key: str, kind: type[T]) -> T:
    """Take one value out of the settings' values."""
    table = values.get(section)
    value = table.pop(key, None) if isinstance(table, dict) else None
    if type(value) is not kind:
        raise HomeError(f"{file}: {section}.{key} must be given, as {kind.__name__}")
    return value


def _take_optional(
    file: Path, values: dict[str, Any], section: str, key: str, kind: type[T]
) -> T | None:
    """Take a value that need not be there."""
    table = values.get(section)
    if isinstance(table, dict) and key in table:
        return _take(file, values, section, key, kind)
    return None


def _read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file into plain values."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise HomeError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HomeError(f"{file} is not TOML: {error}") from error
