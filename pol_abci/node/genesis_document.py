"""CometBFT's genesis file, and what this protocol reads in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pol_abci.rules.errors import GenesisError
from pol_abci.rules.genesis import Genesis, parse_genesis
from pol_abci.rules.params import PROTOCOL_VERSION

if TYPE_CHECKING:
    from pathlib import Path


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
