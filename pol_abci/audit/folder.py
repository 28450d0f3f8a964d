"""The folder of an audit: what was recomputed so far, so that an audit goes on where it ended.

<folder>/chain.json      the genesis that the audit believes, and nothing else
<folder>/store/          state, weights and records as recomputed, one transaction a block
<folder>/position.json   of the last two blocks, what the store has no place for
<folder>/proofs/N        the transaction that made generation N, where its record does not say all
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pol_abci.client.private_files import sync_folder
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import Genesis, compute_genesis_digest, genesis_to_json, parse_genesis
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

CHAIN_FILE = "chain.json"
POSITION_FILE = "position.json"
STORE_FOLDER = "store"
PROOFS_FOLDER = "proofs"


class AuditFolderError(PolError):
    """A folder that is no audit, or one of another chain, or damaged."""


@dataclass(frozen=True, slots=True)
class ChainGenesis:
    """What a chain begins with: all that an audit believes."""

    chain_id: str
    initial_height: int
    genesis: Genesis

    @property
    def digest(self) -> bytes:
        """The genesis digest."""
        return compute_genesis_digest(self.genesis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """An executed block, as far as the next one is held against it.

    `codes` and `faults` have an entry a transaction: what became of it, and why it failed, empty
    where it did not. `sets` are the validator sets, consensus key to power, of its height and the
    two after it.
    """

    height: int
    block_hash: bytes
    codes: tuple[int, ...]
    faults: tuple[str, ...]
    sets: tuple[dict[bytes, int], dict[bytes, int], dict[bytes, int]]

    def to_json(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "height": self.height,
            "block_hash": self.block_hash.hex(),
            "codes": self.codes,
            "faults": self.faults,
            "sets": [{key.hex(): power for key, power in each.items()} for each in self.sets],
        }

    @classmethod
    def parse(cls, document: Any) -> Position:
        """Read what `to_json` gave."""
        first, second, third = (
            {bytes.fromhex(key): int(power) for key, power in each.items()}
            for each in document["sets"]
        )
        return cls(
            height=document["height"],
            block_hash=bytes.fromhex(document["block_hash"]),
            codes=tuple(document["codes"]),
            faults=tuple(document["faults"]),
            sets=(first, second, third),
        )


class AuditFolder:
    """An audit's place on disk. `store` is its own; `close` gives it back."""

    def __init__(self, path: Path, chain: ChainGenesis) -> None:
        self.path = path
        self.chain = chain
        self.store = Store.open(
            path / STORE_FOLDER, chain_id=chain.chain_id, genesis_digest=chain.digest
        )

    @classmethod
    def open(cls, path: Path, chain: ChainGenesis) -> AuditFolder:
        """Open the audit of a chain, or begin one where there is none.

        Raises
        ------
        AuditFolderError
            When the folder is of another chain, or holds something else.
        StoreError
            When it cannot be written, or another audit runs in it.
        """
        if not (path / CHAIN_FILE).exists():
            _begin(path, chain)
        elif read_chain(path) != chain:
            raise AuditFolderError(
                f"{path} is the audit of another chain, or of this one from another genesis; "
                f"choose another folder with --out"
            )
        return cls(path, chain)

    def read_position(self) -> Position | None:
        """What goes with the last executed block; None before the first.

        Raises
        ------
        AuditFolderError
            When it is lost.
        """
        height = self.store.height
        if height == 0:
            return None
        try:
            positions = json.loads((self.path / POSITION_FILE).read_text())
            return next(
                Position.parse(document) for document in positions if document["height"] == height
            )
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
            raise AuditFolderError(
                f"{self.path / POSITION_FILE} has been lost or damaged; begin the audit again "
                f"after: rm -r {shlex.quote(str(self.path))}"
            ) from error

    def write_position(self, before: Position | None, position: Position) -> None:
        """Note a block that is about to be committed, beside the one before it.

        Whichever of the two the store is at after a crash, its entry is there.
        """
        positions = [each.to_json() for each in (before, position) if each is not None]
        _write(self.path / POSITION_FILE, json.dumps(positions).encode())

    def write_proof(self, generation: int, raw: bytes) -> None:
        """Keep the transaction that makes a generation, before its block is committed."""
        folder = self.path / PROOFS_FOLDER
        folder.mkdir(exist_ok=True)
        _write(folder / str(generation), raw)

    def read_proof(self, generation: int) -> bytes:
        """The transaction that made a generation.

        Raises
        ------
        AuditFolderError
            When it is lost.
        """
        file = self.path / PROOFS_FOLDER / str(generation)
        try:
            return file.read_bytes()
        except OSError as error:
            raise AuditFolderError(
                f"{file} has been lost ({error.strerror}); begin the audit again after: "
                f"rm -r {shlex.quote(str(self.path))}"
            ) from error

    def read_records(self) -> list[GenerationRecord]:
        """All generations so far, in order."""
        return [GenerationRecord.decode(data) for _, data in self.store.records(1, sys.maxsize)]

    def close(self) -> None:
        """Give the store back."""
        self.store.close()


def read_chain(path: Path) -> ChainGenesis:
    """Read what chain an audit's folder is of.

    Raises
    ------
    AuditFolderError
        When the folder is no audit.
    """
    try:
        document = json.loads((path / CHAIN_FILE).read_text())
        return ChainGenesis(
            document["chain_id"],
            document["initial_height"],
            parse_genesis(document["app_state"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuditFolderError(
            f"{path} is no audit: it has no {CHAIN_FILE} that can be read; `pol-abci replay` "
            f"makes one"
        ) from error


def _begin(path: Path, chain: ChainGenesis) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise AuditFolderError(f"{path} holds something else; choose a new folder with --out")
        document = {
            "chain_id": chain.chain_id,
            "initial_height": chain.initial_height,
            "app_state": genesis_to_json(chain.genesis),
        }
        _write(path / CHAIN_FILE, (json.dumps(document, indent=2) + "\n").encode())
    except OSError as error:
        raise AuditFolderError(f"cannot make the audit in {path}: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    """Put a file in place whole, and on the disk before what is done next."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)
