"""The scheme `walk` in the rules: proofs that name a walk from the head; protocol sections 4 to 7.

The requirements and the score are in `requirements`: they are drawn while the walk is redone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pol_abci.rules.codec import encode_unstamped_body
from pol_abci.rules.errors import InvalidStamp, InvalidSteps
from pol_abci.rules.params import MAX_TX_BYTES, Address
from pol_abci.rules.proof import DIGEST_BYTES, WalkClaim
from pol_abci.rules.seed import compute_next_seed, is_stamped

if TYPE_CHECKING:
    from pol_abci.rules.codec import GenerationRecord, Head, ProofMessage
    from pol_abci.rules.params import DifficultyParams, WalkParams
    from pol_abci.rules.proof import Claim, TrueWalk


@dataclass(frozen=True, slots=True)
class WalkScheme:
    """`rules.scheme.Scheme` for chains of walks."""

    walk: WalkParams

    claim_type: ClassVar[type[Claim]] = WalkClaim
    max_tx_bytes: ClassVar[int] = MAX_TX_BYTES

    @property
    def stamp_bits(self) -> int:
        """Of genesis."""
        return self.walk.stamp_bits

    def check_claim(self, head: Head, message: ProofMessage) -> None:
        """Check a walk's length, and the stamp.

        Raises
        ------
        InvalidSteps, InvalidStamp
        """
        claim, walk = message.claim, self.walk
        assert isinstance(claim, WalkClaim), "the type of the claim has been checked"
        # Verify its length
        if not walk.min_steps <= claim.steps <= walk.max_steps:
            raise InvalidSteps(f"{claim.steps} steps: give {walk.min_steps} to {walk.max_steps}")
        if len(claim.step_digests) != DIGEST_BYTES * claim.steps:
            raise InvalidSteps(f"give {DIGEST_BYTES} bytes of digest for each step")
        # Verify its maker has worked for the verifiers' attention since the head is there
        body = encode_unstamped_body(message)
        if not is_stamped(head.seed, claim.address, body, message.stamp, walk.stamp_bits):
            raise InvalidStamp(f"find a stamp with {walk.stamp_bits} zero bits for the head's seed")

    def compute_progress_delay_ms(
        self, difficulty: DifficultyParams, verdict: TrueWalk
    ) -> int | None:
        """Shortest time after the head's at which the walk's last model is good enough.

        Under "guard" the model may classify one image of the sample less than the head for each
        target interval that has passed, up to a quarter of the sample; under "strict", the
        paper's rule, it must classify more.
        """
        missing = verdict.correct_head - verdict.correct_ticket
        if self.walk.progress == "strict":
            return 0 if missing < 0 else None
        if missing > self.walk.evaluation_samples // 4:
            return None
        return max(0, missing) * difficulty.target_interval_ms

    def compute_next_seed(self, seed: bytes, record: GenerationRecord) -> bytes:
        """s_{n+1} of protocol section 9."""
        miner = Address(record.miner)
        return compute_next_seed(seed, miner, record.nonce, record.steps, record.weights_root)
