"""What a node answers, each as a frozen dataclass of bytes, integers and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pol_abci.rules.errors import CODE_OK

if TYPE_CHECKING:
    from pol_abci.rules.merkle_proofs import ProofOp


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """A header's fields that this package reads. `app_hash` is of the height before."""

    chain_id: str
    height: int
    time_ms: int
    app_hash: bytes
    proposer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """Where a node stands. `latest_height` is 0 before the first block."""

    chain_id: str
    version: str
    latest_height: int
    latest_time_ms: int
    catching_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """How other nodes reach a node: its id, 40 hexadecimal digits, and its port for them."""

    node_id: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """Where a node's consensus stands on its next block: of `total` power, what has voted."""

    height: int
    round: int
    prevotes: int
    precommits: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGenesis:
    """CometBFT's genesis document, with the application's part as it stands there."""

    chain_id: str
    initial_height: int
    app_state: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block and its transactions' raw bytes."""

    header: BlockHeader
    hash: bytes
    txs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TxEvent:
    """An event of the application."""

    type: str
    attributes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TxResult:
    """What became of a transaction in its block."""

    code: int
    log: str
    events: tuple[TxEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResults:
    """What the application answered to a block."""

    height: int
    txs: tuple[TxResult, ...]
    events: tuple[TxEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbciInfo:
    """The application's own height and app hash."""

    version: str
    app_version: int
    height: int
    app_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """An answer of the application, not verified. `value` is empty for an absent key."""

    code: int
    log: str
    height: int
    key: bytes
    value: bytes
    ops: tuple[ProofOp, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """What CheckTx said of a transaction; `code` as in `rules.errors`."""

    code: int
    log: str
    hash: bytes

    @property
    def is_accepted(self) -> bool:
        """Whether the transaction is in the node's mempool."""
        return self.code == CODE_OK
