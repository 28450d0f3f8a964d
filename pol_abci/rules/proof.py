"""What a proof of learning claims, and what recomputing it may find; protocol section 7."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from pol_abci.rules.params import Address

DIGEST_BYTES = 8
ORDINAL_BYTES = 4
"""Of each ordinal in the packed form of a batch P."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkClaim:
    """A walk as its miner claims it: everything that a verifier needs beside the head.

    `step_digests` holds the first 8 bytes of probe_1 … probe_steps, one after the other;
    `weights_root` is 32 bytes.
    """

    generation: int
    address: Address
    nonce: int
    steps: int
    step_digests: bytes
    weights_root: bytes

    batch: ClassVar[bytes] = b""
    """Batches follow from the nonce."""

    @property
    def key(self) -> Self:
        """What a verdict is remembered by."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperClaim:
    """The paper's proof, P and W: a last step that anybody can redo; protocol section 14.

    `ordinals` is P as drawn. `weights` are the canonical bytes of W as a zstd frame, of which
    `weights_digest` is the SHA-256; `weights_root` is root(W'), 32 bytes.
    """

    generation: int
    address: Address
    ordinals: tuple[int, ...]
    weights: bytes = field(compare=False, repr=False)
    weights_digest: bytes
    weights_root: bytes

    nonce: ClassVar[int] = 0
    """Nothing is drawn from one."""
    steps: ClassVar[int] = 1
    """What a verifier redoes; how many its maker did, nobody else knows."""

    @property
    def batch(self) -> bytes:
        """P packed: a u32 for each ordinal."""
        return b"".join(ordinal.to_bytes(ORDINAL_BYTES, "big") for ordinal in self.ordinals)

    @property
    def key(self) -> Self:
        """What a verdict is remembered by: equal to the claim, without the weight of W."""
        return replace(self, weights=b"")


Claim = WalkClaim | PaperClaim


@dataclass(frozen=True, slots=True)
class TrueWalk:
    """What was claimed of the walk was redone and is so; whether it is enough depends on the time.

    `score` in 1/65,536 bit. Under `walk` the counts are of the generation's evaluation sample,
    before the walk and after it. Under `paper` they are of all of E, of the W that the proof
    carries and of the W' that it makes; `correct_anchor` is the head's own, if the chain asks.
    """

    score: int
    correct_head: int
    correct_ticket: int
    correct_anchor: int = 0


@dataclass(frozen=True, slots=True)
class FalseWalk:
    """The walk is not as claimed; `reason` says where it parts, for people only."""

    reason: str


WalkVerdict = TrueWalk | FalseWalk
