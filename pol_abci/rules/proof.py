"""What a proof of learning claims, and what recomputing it may find; protocol section 7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pol_abci.rules.params import Address

DIGEST_BYTES = 8


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


@dataclass(frozen=True, slots=True)
class TrueWalk:
    """The walk was redone and is as claimed. Whether it is good enough depends on the time.

    `score` in 1/65,536 bit; the counts are of the generation's evaluation sample.
    """

    score: int
    correct_head: int
    correct_ticket: int


@dataclass(frozen=True, slots=True)
class FalseWalk:
    """The walk is not as claimed; `reason` says where it parts, for people only."""

    reason: str


WalkVerdict = TrueWalk | FalseWalk
