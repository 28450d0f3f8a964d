"""The scheme `paper` in the rules: proofs that carry P and W, as printed; protocol section 14.

R is the first ceil(d(now)) of the requirements that `requirements` draws. A verdict's score is
65,536 times the number of them that were met before the first that was not, so "all of R are met"
and "score >= d(now)" are one comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pol_abci.rules.errors import InvalidBatch
from pol_abci.rules.params import MAX_TX_BYTES, Address
from pol_abci.rules.proof import PaperClaim
from pol_abci.rules.seed import compute_next_paper_seed

if TYPE_CHECKING:
    from pol_abci.rules.codec import GenerationRecord, Head, ProofMessage
    from pol_abci.rules.params import DifficultyParams, PaperParams
    from pol_abci.rules.proof import Claim, TrueWalk

_ORDINAL_BYTES = 5
"""Of the longest varint of 32 bits."""
_OTHER_BYTES = 1_024
"""Key, signature, roots, numbers and lengths of a proof, with room."""


@dataclass(frozen=True, slots=True)
class PaperScheme:
    """`rules.scheme.Scheme` for the paper's algorithms to the letter."""

    paper: PaperParams
    batch_size: int

    claim_type: ClassVar[type[Claim]] = PaperClaim
    stamp_bits: ClassVar[int] = 0

    @property
    def max_tx_bytes(self) -> int:
        """Room for W as zstd packs what can't be packed (its COMPRESSBOUND), and for P."""
        size = self.paper.weights_bytes
        frame = size + size // 256 + 64
        return max(MAX_TX_BYTES, frame + _ORDINAL_BYTES * self.batch_size + _OTHER_BYTES)

    def check_claim(self, head: Head, message: ProofMessage) -> None:
        """Check the form of P. Which ordinals D has, the learning knows.

        Raises
        ------
        InvalidBatch
        """
        del head
        claim = message.claim
        assert isinstance(claim, PaperClaim), "the type of the claim has been checked"
        # Verify P is S different numbers
        if len(claim.ordinals) != self.batch_size:
            raise InvalidBatch(f"{len(claim.ordinals)} ordinals: a batch has {self.batch_size}")
        if len(dict.fromkeys(claim.ordinals)) < self.batch_size:
            raise InvalidBatch("give each ordinal of a batch once")

    def compute_progress_delay_ms(
        self, difficulty: DifficultyParams, verdict: TrueWalk
    ) -> int | None:
        """Algorithm 2's accuracy(W', E) > accuracy(W, E), and the anchor if the chain has it."""
        del difficulty
        is_better = verdict.correct_ticket > verdict.correct_head
        return 0 if is_better and verdict.correct_ticket >= verdict.correct_anchor else None

    def compute_next_seed(self, seed: bytes, record: GenerationRecord) -> bytes:
        """s_{n+1} from the address, P and root(W')."""
        return compute_next_paper_seed(
            seed, Address(record.miner), record.batch, record.weights_root
        )
