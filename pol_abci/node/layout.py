"""Where a home folder, all that one node owns, has what.

    <home>/pol.toml       settings of the app, and which chain this is
    <home>/account.json   the account's key, mode 0600
    <home>/cometbft/      CometBFT's own home: config/, data/
    <home>/app/           the app's store
    <home>/logs/          one log a process

Functions take the home folder's path, and look at nothing in it but for `compute_node_id`.
"""

from __future__ import annotations

import base64
import json
import tomllib
from typing import TYPE_CHECKING, Any

from pol_abci.rules.address import compute_address
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS_FILE = "pol.toml"
_PUBLIC_KEY_BYTES = 32


class HomeError(PolError):
    """A folder that is no home, or not the home that its files say."""


def get_cometbft_folder(path: Path) -> Path:
    """Return CometBFT's own home in the home folder `path`."""
    return path / "cometbft"


def get_genesis_file(path: Path) -> Path:
    """Return the genesis document in the home folder `path`."""
    return get_cometbft_folder(path) / "config" / "genesis.json"


def get_config_file(path: Path) -> Path:
    """Return CometBFT's configuration in the home folder `path`."""
    return get_cometbft_folder(path) / "config" / "config.toml"


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
    file = get_node_key_file(path)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        key = base64.b64decode(document["priv_key"]["value"])[-_PUBLIC_KEY_BYTES:]
    except (ValueError, KeyError, TypeError) as error:
        raise HomeError(f"{file} is damaged; restore it from a copy") from error
    return compute_address(key).hex()


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file into plain values."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise HomeError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HomeError(f"{file} is not TOML: {error}") from error
