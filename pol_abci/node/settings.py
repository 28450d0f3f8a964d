"""pol.toml: the settings of a home's app and verifier, read strictly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pol_abci.node.layout import SETTINGS_FILE, HomeError, read_toml

if TYPE_CHECKING:
    from pathlib import Path

MAX_THREADS = 1_024
SNAPSHOT_INTERVAL = 200
"""Blocks that a node which joins has to execute at most, until it stands where the others do."""
MAX_SNAPSHOT_INTERVAL = 10**9
T = TypeVar("T")


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


def read_settings(file: Path) -> Settings:
    """Read pol.toml strictly: a mistyped key must not pass for a default."""
    values = read_toml(file)
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
