"""The paper's scheme: Algorithm 1 (creation of a proof) and Algorithm 2 (its verification).

`create_proof`, `check_requirements` and `verify_proof` are the paper's, line by line. The miner
runs the first two. A node runs `verify_claim`, which is Algorithm 2 with its line 3 as numbers,
because R grows shorter while the difficulty falls: `rules.paper_scheme` compares them when a block
asks. Protocol section 14.

    W, W'   flat weights before and after the last step    P   ordinals of its batch
    D, E    train set and test set                         S   batch size
    R       numbers r: weight r // 2 must decrease if r is odd, increase if it is even
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

from pol_abci.learning import weights as canonical
from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.exact.arithmetic import InvalidStep
from pol_abci.learning.prover import FalseRecord, Found, Redone
from pol_abci.learning.weights import WeightsMismatch
from pol_abci.rules.merkle import compute_weights_root
from pol_abci.rules.params import SCORE_UNIT, PaperParams
from pol_abci.rules.proof import FalseWalk, PaperClaim, TrueWalk
from pol_abci.rules.requirements import iterate_paper_requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from torch import Tensor

    from pol_abci.learning.task import Head, Task
    from pol_abci.rules.codec import GenerationRecord
    from pol_abci.rules.params import Address, Params
    from pol_abci.rules.proof import Claim, WalkVerdict

EQUILIBRIUM_BITS = 0.9
"""Measured on generations 30 to 300 of the `paper-digits` of docs/figures."""
NEEDS_PROOF = True
"""W is in the transaction and nowhere else."""


class Weights(Protocol):
    """The learnable values of a model, by the index that requirements have."""

    def __getitem__(self, index: int, /) -> float:
        """One value."""


@dataclass(frozen=True, slots=True)
class _Learnable:
    """Flat weights seen as their learnable values, without a copy of all of them."""

    flat: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    positions: np.ndarray[tuple[int], np.dtype[np.int64]]

    def __getitem__(self, index: int, /) -> float:
        return float(self.flat[self.positions[index]])


def create_proof(
    task: Task,
    w: Tensor,
    get_r: Callable[[], Sequence[int]],
    choice: random.Random,
    between_steps: Callable[[], None],
) -> tuple[list[int], Tensor]:
    """Algorithm 1: walk freely from W until a step meets all of R; gives P and W.

    Line numbers are the paper's; D and S are the task's. W' is left in `task.bound.weights`, W is
    `task.bound.previous`: buffers that the next step overwrites.

    Parameters
    ----------
    get_r
        R as it is now: requirements fall away with the difficulty while the walk goes on.
    choice
        Where the miner's free choice comes from.
    between_steps
        Called before each step; may raise to leave the walk.

    Raises
    ------
    InvalidStep
        When values blow up: nobody can walk on from there.
    """
    model = task.bound
    model.load(w)  # line 1: W' <- W
    while True:  # line 2: repeat
        between_steps()
        p = choice.sample(range(len(task.train)), task.train.batch_size)  # line 3
        b = task.train.get_batch(p)  # line 4
        model.update(*b)  # line 5: W <- W', line 6: W' <- update(W, B)
        w_before, w_after = _view_learnable(task)
        if check_requirements(w_before, w_after, get_r()):  # line 7: until it holds
            return p, model.previous  # line 8


def check_requirements(w_before: Weights, w_after: Weights, r: Sequence[int]) -> bool:
    """CheckRequirements(W, W', R) of Algorithm 1: whether every weight moved as required.

    A weight that stood still passes, as the paper has it.
    """
    for r_i in r:  # line 10
        if r_i % 2 == 1:  # line 11
            if w_after[r_i // 2] > w_before[r_i // 2]:  # line 12
                return False  # line 13
        else:  # noqa: PLR5501 - line 15, as printed
            if w_after[r_i // 2] < w_before[r_i // 2]:  # line 16
                return False  # line 17
    return True  # line 21


def verify_proof(task: Task, p: Sequence[int], w: Tensor, r: Sequence[int]) -> bool:
    """Algorithm 2: whether the last step from W on batch P meets R and gets more of E right.

    Line numbers are the paper's; D, S and E are the task's.

    Raises
    ------
    InvalidStep
        When there is no such step.
    """
    b = task.train.get_batch(p)  # line 1
    task.bound.load(w)
    task.bound.update(*b)  # line 2: W' <- update(W, B)
    accuracy, accuracy_after = (
        count_correct(task, task.bound.previous),
        count_correct(task, task.bound.weights),
    )
    return check_requirements(*_view_learnable(task), r) and accuracy_after > accuracy  # line 3


def count_met(w_before: Weights, w_after: Weights, r: Sequence[int]) -> int:
    """How many of R hold before the first that does not: the longest R that the step meets."""
    return next(
        (met for met, r_i in enumerate(r) if not check_requirements(w_before, w_after, [r_i])),
        len(r),
    )


class PaperProver:
    """A miner's free walk from a head, and what it comes by on the way: `learning.prover.Prover`.

    The walk goes on from where it is when a ticket is found, and begins at the head again only
    where its values blow up.
    """

    def __init__(self, task: Task, head: Head, address: Address, nonce: int) -> None:
        self._task, self._head, self._address = task, head, address
        self._choice = random.Random(nonce)
        self._requirements = list(_draw_requirements(task, head, address))
        self._at = head.weights
        self._correct_anchor = _count_anchor(task, head)

    def find(self, is_wanted: Callable[[int], bool], between_steps: Callable[[], None]) -> Found:
        """Algorithm 1, with R as short as is worth a look now."""

        def get_requirements() -> Sequence[int]:
            wanted = next(length for length in count() if is_wanted(SCORE_UNIT * length))
            return self._requirements[:wanted]

        while True:
            try:
                ordinals, weights = create_proof(
                    self._task, self._at, get_requirements, self._choice, between_steps
                )
            except InvalidStep:
                self._at = self._head.weights
                continue
            self._at = self._task.bound.weights
            return self._weigh(ordinals, weights)

    def _weigh(self, ordinals: list[int], weights: Tensor) -> Found:
        task, after = self._task, self._task.bound.weights
        verdict = TrueWalk(
            score=SCORE_UNIT * count_met(*_view_learnable(task), self._requirements),
            correct_head=count_correct(task, weights),
            correct_ticket=count_correct(task, after),
            correct_anchor=self._correct_anchor,
        )

        def make_claim() -> PaperClaim:
            packed = canonical.pack(weights)
            return PaperClaim(
                generation=self._head.generation,
                address=self._address,
                ordinals=tuple(ordinals),
                weights=packed,
                weights_digest=hashlib.sha256(packed).digest(),
                weights_root=canonical.compute_root(after),
            )

        return Found(verdict, make_claim)


def open_prover(task: Task, head: Head, address: Address, nonces: Iterator[int]) -> PaperProver:
    """Begin a free walk from a head."""
    return PaperProver(task, head, address, next(nonces))


def get_ticket_share(params: Params) -> float:
    """Every step is a ticket."""
    del params
    return 1.0


def verify_claim(
    task: Task,
    head: Head,
    claim: Claim,
    between_steps: Callable[[], None],
    between_images: Callable[[], None] | None = None,
) -> tuple[WalkVerdict, bytes | None]:
    """Algorithm 2 for a claim: `learning.scheme.Scheme.verify_claim`.

    Its line 3 becomes a score, 65,536 to each requirement met, and the counts of all of E.
    """
    assert isinstance(claim, PaperClaim)
    assert claim.generation == head.generation
    try:
        _redo_step(task, claim, between_steps)
    except (WeightsMismatch, InvalidStep) as error:
        return FalseWalk(str(error)), None
    weights, after = task.bound.previous, task.bound.weights
    weights_bytes = canonical.to_bytes(after)
    if compute_weights_root(weights_bytes) != claim.weights_root:
        return FalseWalk("the step's new weights have another root"), None
    requirements = list(_draw_requirements(task, head, claim.address))
    verdict = TrueWalk(
        score=SCORE_UNIT * count_met(*_view_learnable(task), requirements),
        correct_head=count_correct(task, weights, None, between_images),
        correct_ticket=count_correct(task, after, None, between_images),
        correct_anchor=_count_anchor(task, head, between_images),
    )
    return verdict, weights_bytes


def redo_generation(
    task: Task, head: Head, record: GenerationRecord, claim: Claim | None
) -> Redone:
    """Make a generation again out of its proof: `learning.scheme.Scheme.redo_generation`."""
    if not isinstance(claim, PaperClaim):
        raise FalseRecord("its transaction is no proof of this scheme")
    if (claim.generation, claim.address, claim.batch) != (
        head.generation,
        record.miner,
        record.batch,
    ):
        raise FalseRecord("its transaction is another proof")
    try:
        _redo_step(task, claim, lambda: None)
    except (WeightsMismatch, InvalidStep) as error:
        raise FalseRecord(str(error)) from error
    weights_bytes = canonical.to_bytes(task.bound.weights)
    requirements = list(_draw_requirements(task, head, claim.address))
    met = count_met(*_view_learnable(task), requirements)
    return Redone(weights_bytes, compute_weights_root(weights_bytes), SCORE_UNIT * met)


def _redo_step(task: Task, claim: PaperClaim, between_steps: Callable[[], None]) -> None:
    """Lines 1 and 2 of Algorithm 2: leaves W and W' in the task's model."""
    weights = canonical.unpack(task.model, claim.weights).to(task.device)
    size = len(task.train)
    if max(claim.ordinals) >= size:
        raise WeightsMismatch(f"ordinal {max(claim.ordinals)}: the train set has {size} images")
    between_steps()
    task.bound.load(weights)
    task.bound.update(*task.train.get_batch(claim.ordinals))


def _view_learnable(task: Task) -> tuple[_Learnable, _Learnable]:
    """W and W' of the step that was just done."""
    positions = task.model.learnable_positions
    before = task.bound.previous.numpy(force=True)
    after = task.bound.weights.numpy(force=True)
    return _Learnable(before, positions), _Learnable(after, positions)


def _draw_requirements(task: Task, head: Head, address: Address) -> Iterator[int]:
    return iterate_paper_requirements(head.seed, address, task.model.weight_count)


def _count_anchor(task: Task, head: Head, between_images: Callable[[], None] | None = None) -> int:
    """What the head gets right of all of E, where the chain asks; else 0."""
    scheme = task.params.scheme
    assert isinstance(scheme, PaperParams)
    return count_correct(task, head.weights, None, between_images) if scheme.anchor else 0
