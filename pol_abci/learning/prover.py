"""What looking for a proof, and redoing one, give: the same values under every scheme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.rules.proof import Claim, TrueWalk


class FalseRecord(PolError):
    """A record of a generation that no proof of the scheme can have made."""


@dataclass(frozen=True, slots=True)
class Found:
    """A ticket: what verifying it will find, and the claim that it makes when it is worth one."""

    verdict: TrueWalk
    make_claim: Callable[[], Claim]


@dataclass(frozen=True, slots=True)
class Redone:
    """A generation made again: canonical bytes of its weights, their root, the score."""

    weights: bytes
    root: bytes
    score: int | None


class Prover(Protocol):
    """Looks for tickets from one head for one address, step after step: Algorithm 1."""

    def find(self, is_wanted: Callable[[int], bool], between_steps: Callable[[], None]) -> Found:
        """Go on until a step's score is wanted.

        Parameters
        ----------
        is_wanted
            Whether a ticket of a score, in 1/65,536 bit, is worth looking at now. Whoever wants a
            score wants every higher one.
        between_steps
            Called before each step; may raise to leave the search.
        """
