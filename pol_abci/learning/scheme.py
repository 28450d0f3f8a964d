"""The schemes' learning behind one interface: making proofs, verifying them, redoing generations.

A module a scheme: `walk` and `paper`. The verifier, the miner and the audit know none of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pol_abci.learning import paper, walk
from pol_abci.rules.params import PaperParams, SchemeParams, WalkParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pol_abci.learning.prover import Prover, Redone
    from pol_abci.learning.task import Head, Task
    from pol_abci.rules.codec import GenerationRecord
    from pol_abci.rules.params import Address, Params
    from pol_abci.rules.proof import Claim, WalkVerdict


class Scheme(Protocol):
    """What a scheme's module offers.

    `EQUILIBRIUM_BITS` is how far the difficulty of a generation's start lies above log2 of all
    steps in a target interval where blocks come at their target. `NEEDS_PROOF` says whether a
    generation is redone from its transaction, or from its record alone.
    """

    EQUILIBRIUM_BITS: float
    NEEDS_PROOF: bool

    def open_prover(
        self, task: Task, head: Head, address: Address, nonces: Iterator[int]
    ) -> Prover:
        """Begin to look for proofs from a head; what is left to chance follows from `nonces`."""

    def verify_claim(
        self,
        task: Task,
        head: Head,
        claim: Claim,
        between_steps: Callable[[], None],
        between_images: Callable[[], None] | None = ...,
    ) -> tuple[WalkVerdict, bytes | None]:
        """Redo what a claim of the scheme says, from the head that it extends.

        Parameters
        ----------
        claim
            Of a form that the rules accept.
        between_steps
            Called before each step; may raise to abandon the claim.
        between_images
            Called between images that are evaluated; may raise likewise.

        Returns
        -------
        tuple
            The verdict, and the new weights' canonical bytes when the claim is true.
        """

    def redo_generation(
        self, task: Task, head: Head, record: GenerationRecord, claim: Claim | None
    ) -> Redone:
        """Make a generation again from the head before it, whatever the record says of the result.

        Raises
        ------
        FalseRecord
            When it can't be made.
        """

    def get_ticket_share(self, params: Params) -> float:
        """Tickets to a step."""


_SCHEMES: dict[type[SchemeParams], Scheme] = {WalkParams: walk, PaperParams: paper}


def get_scheme(params: Params) -> Scheme:
    """The learning of the scheme that a genesis chose."""
    return _SCHEMES[type(params.scheme)]
