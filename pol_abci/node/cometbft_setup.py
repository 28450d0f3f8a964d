"""The files of a new home's CometBFT: its own, changed as the preset and the caller want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit

from pol_abci.node.building import make_cometbft_files
from pol_abci.node.layout import HomeError, get_cometbft_folder, get_config_file
from pol_abci.rules.scheme import get_scheme as get_rules

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.node.joining import StateSync
    from pol_abci.node.presets import Preset

BLOCK_OVERHEAD_BYTES = 2**18
"""Room in a block beside the longest transaction; one full of transfers is executed in seconds."""
MIN_BODY_BYTES = 1_000_000
"""CometBFT's own limit of a request to its RPC."""
LISTEN = "unix://app.sock"
"""Where the app listens, relative to the home: a longer name may not fit into a socket's."""
PROXY_APPS = {"socket": LISTEN, "grpc": f"passthrough:///{LISTEN}"}
"""What CometBFT dials then: gRPC's own resolver knows no relative path."""
_MAX_PORT = 65_535


def compute_max_body_bytes(max_tx_bytes: int) -> int:
    """Return the longest request that a node's RPC takes: a transaction in base64, and room."""
    return max(MIN_BODY_BYTES, -(-max_tx_bytes // 3) * 4 + BLOCK_OVERHEAD_BYTES)


def init_cometbft(
    folder: Path,
    cometbft: Path,
    preset: Preset,
    *,
    rpc_port: int,
    p2p_port: int,
    transport: str,
    peers: str = "",
    state_sync: StateSync | None = None,
) -> None:
    """Let CometBFT make its keys and files, then set what the preset and the caller change."""
    for flag, port in (("--rpc-port", rpc_port), ("--p2p-port", p2p_port)):
        if not 1 <= port <= _MAX_PORT:
            raise HomeError(f"{flag} {port}: ports are between 1 and {_MAX_PORT}")
    if rpc_port == p2p_port:
        raise HomeError(f"--rpc-port and --p2p-port are both {rpc_port}; choose two ports")
    make_cometbft_files(get_cometbft_folder(folder), cometbft)
    max_tx_bytes = get_rules(preset.params).max_tx_bytes
    change_config(
        folder,
        preset.config,
        {
            "abci": transport,
            "proxy_app": PROXY_APPS[transport],
            "mempool": {"max_tx_bytes": max_tx_bytes},
            "rpc": {
                "laddr": f"tcp://127.0.0.1:{rpc_port}",
                "max_body_bytes": compute_max_body_bytes(max_tx_bytes),
            },
            "p2p": {"laddr": f"tcp://0.0.0.0:{p2p_port}", "persistent_peers": peers},
        },
        {} if state_sync is None else {"statesync": state_sync.compose_config()},
    )


def change_config(folder: Path, *changes: dict[str, Any]) -> None:
    """Set values in the configuration of a home's CometBFT, one set after the other."""
    file = get_config_file(folder)
    config = tomlkit.parse(file.read_text(encoding="utf-8"))
    for values in changes:
        _override(config, values, file)
    file.write_text(tomlkit.dumps(config), encoding="utf-8")


def _override(config: Any, values: dict[str, Any], file: Path) -> None:
    """Set values in a TOML document, comments and order kept. Every key must be there already."""
    for key, value in values.items():
        if key not in config:
            raise HomeError(f"this CometBFT wrote a {file.name} without {key}; it is a wrong one")
        if isinstance(value, dict):
            _override(config[key], value, file)
        else:
            config[key] = value
