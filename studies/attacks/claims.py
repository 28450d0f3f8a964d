"""Claims of walks, honest and not, put to the verification that every node does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.learning.walk import Walk, verify_claim
from pol_abci.rules.proof import DIGEST_BYTES, FalseWalk, WalkClaim
from studies.attacks.scene import MINER

if TYPE_CHECKING:
    from pol_abci.learning.walk import Head, Task

STEPS = 8


def make_claim(task: Task, head: Head, nonce: int = 0, steps: int = STEPS) -> WalkClaim:
    """An honest walk of the miner."""
    walk = Walk(task, head, MINER, nonce)
    for _ in range(steps):
        walk.step()
    return WalkClaim(
        generation=head.generation,
        address=MINER,
        nonce=nonce,
        steps=steps,
        step_digests=walk.digests,
        weights_root=walk.root(),
    )


def judge(task: Task, head: Head, claim: WalkClaim) -> tuple[str, int]:
    """What verification says of a claim, and how many steps it took."""
    calls: list[None] = []
    verdict, _ = verify_claim(task, head, claim, lambda: calls.append(None))
    if isinstance(verdict, FalseWalk):
        return f"refused: {verdict.reason}", len(calls)
    return "true", len(calls)


def count_digests(claim: WalkClaim) -> int:
    """Steps that a claim has digests for."""
    return len(claim.step_digests) // DIGEST_BYTES
