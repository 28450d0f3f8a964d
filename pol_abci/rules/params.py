"""Parameters that a chain's genesis fixes for ever, protocol section 2.

Units stand in the names. `parse_params` reads the JSON form strictly: an unknown, missing or
out-of-range key is a `GenesisError` that names it. Amounts are decimal strings there, because not
every reader of JSON keeps 64-bit integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

Address = NewType("Address", bytes)
"""20 bytes: the start of SHA-256 of an ed25519 public key."""
Amount = NewType("Amount", int)
"""Base units, 0 <= amount < 2^63."""

PROTOCOL_VERSION = 1
ARITHMETIC_VERSION = 1
SCORE_UNIT = 65_536
"""Scores and difficulties are integers in 1/65,536 bit."""
MAX_DIFFICULTY = 4_096 * SCORE_UNIT
MAX_DRAWS = 4_096
"""Requirements drawn for one ticket, repeats included."""
MAX_SUPPLY = 2**63 - 1
MAX_TX_BYTES = 1_048_576
"""Of an encoded transaction, where no proof needs more; CometBFT's mempool has the same limit by
default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How a drawn image is changed: shift by at most `shift` pixels, flip, cut-out side or 0."""

    shift: int
    flip: bool
    cutout: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskParams:
    """What is learnt: architecture, data and step. The rate is a decimal string."""

    architecture: str
    channels: tuple[int, ...]
    dataset: str
    train_digest: bytes
    test_digest: bytes
    augmentation: Augmentation
    batch_size: int
    learning_rate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArithmeticParams:
    """Bits of the exact contractions, protocol section 3."""

    version: int
    forward_bits: int
    backward_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkParams:
    """Limits of a walk and of the progress asked of it, protocol sections 4 and 6."""

    min_steps: int
    max_steps: int
    progress: str  # "guard" or "strict"
    evaluation_samples: int
    stamp_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperParams:
    """What the paper's scheme leaves to a chain, protocol section 14.

    `weights_bytes` is the length of the model's canonical bytes, which every proof carries packed;
    with `anchor` a proof may not make less of E right than the head.
    """

    anchor: bool
    weights_bytes: int


SchemeParams = WalkParams | PaperParams


@dataclass(frozen=True, slots=True, kw_only=True)
class DifficultyParams:
    """ASERT with a slope, protocol section 8. Difficulties in 1/65,536 bit."""

    first: int
    target_interval_ms: int
    tau_intervals: int  # a bit for each tau_intervals * target_interval_ms of lateness
    slope: int  # fall within a target interval
    max_fall: int  # at one new generation


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerParams:
    """Coins, protocol section 10. Base units, a million to the coin."""

    reward: Amount
    halving_generations: int
    min_fee: Amount
    account_burn: Amount  # for an account that a transfer makes
    maturity_generations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareParams:
    """Ring of shares and validator set, protocol section 11."""

    slots: int
    max_validators: int
    liveness_window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Everything that genesis fixes but accounts, ring owners and first weights."""

    scheme: SchemeParams
    task: TaskParams
    arithmetic: ArithmeticParams
    difficulty: DifficultyParams
    ledger: LedgerParams
    shares: ShareParams

    @property
    def walk(self) -> WalkParams:
        """The walk scheme's own parameters; nothing asks for them on a chain of another scheme."""
        assert isinstance(self.scheme, WalkParams)
        return self.scheme
