"""What the rules ask of a chain's scheme: which proofs it takes, and what they must show.

One module a scheme does the answering: `walk_scheme` (protocol sections 4 to 7) and `paper_scheme`
(section 14). Everything else of the rules is the same under both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pol_abci.rules.paper_scheme import PaperScheme
from pol_abci.rules.params import PaperParams, WalkParams
from pol_abci.rules.walk_scheme import WalkScheme

if TYPE_CHECKING:
    from pol_abci.rules.codec import GenerationRecord, Head, ProofMessage
    from pol_abci.rules.params import DifficultyParams, Params
    from pol_abci.rules.proof import Claim, TrueWalk

__all__ = ["PaperScheme", "Scheme", "WalkScheme", "get_scheme"]


class Scheme(Protocol):
    """A scheme with a chain's parameters for it."""

    @property
    def claim_type(self) -> type[Claim]:
        """The claims that its proofs make."""

    @property
    def stamp_bits(self) -> int:
        """Zero bits that a proof's stamp must show, 0 for none."""

    @property
    def max_tx_bytes(self) -> int:
        """Length of the longest transaction that its proofs may need, at least `MAX_TX_BYTES`."""

    def check_claim(self, head: Head, message: ProofMessage) -> None:
        """Check what can be told of a claim of the right type without redoing anything.

        Raises
        ------
        InvalidTx
            One of the scheme's own codes.
        """

    def compute_progress_delay_ms(
        self, difficulty: DifficultyParams, verdict: TrueWalk
    ) -> int | None:
        """Shortest time after the head's at which the new model is good enough; None: never."""

    def compute_next_seed(self, seed: bytes, record: GenerationRecord) -> bytes:
        """s_{n+1} from s_n and the generation that was made."""


def get_scheme(params: Params) -> Scheme:
    """The scheme that a genesis chose."""
    match params.scheme:
        case WalkParams() as walk:
            return WalkScheme(walk)
        case PaperParams() as paper:
            return PaperScheme(paper, params.task.batch_size)
