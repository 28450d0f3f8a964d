"""The walk: the paper's Algorithm 1 (creation of a proof) and Algorithm 2 (its verification).

Algorithm 1 is `Walk.step`, repeated until a score is good enough: draw a batch P, update the
weights on it, check the requirements R. Algorithm 2 is `verify_claim`: do the same steps again,
compare, and count what the model gets right. What differs from the paper is in protocol sections
4 to 7: batches are drawn from the head's seed, requirements from the walk's own last state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.learning import weights as canonical
from pol_abci.learning.arithmetic import InvalidStep
from pol_abci.learning.evaluate import count_correct, draw_evaluation_sample
from pol_abci.learning.task import Head, Task, load_task
from pol_abci.rules.merkle import compute_weights_root
from pol_abci.rules.proof import DIGEST_BYTES, FalseWalk, TrueWalk
from pol_abci.rules.requirements import compute_score, iterate_requirements
from pol_abci.rules.seed import compute_first_probe, compute_probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pol_abci.rules.params import Address
    from pol_abci.rules.proof import WalkClaim, WalkVerdict

__all__ = ["Head", "Step", "Task", "Walk", "load_task", "verify_claim"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one step made.

    `score` in 1/65,536 bit, None before min_steps; `weights` is W^(t), flat, a buffer that the
    next step overwrites.
    """

    t: int
    probe: bytes
    score: int | None
    weights: Tensor


class Walk:
    """Algorithm 1: steps from a head that the address and the nonce determine.

    `digests` are the first bytes of the probes so far, as a claim has them. A task has room for
    one walk: making another ends this one.
    """

    def __init__(self, task: Task, head: Head, address: Address, nonce: int) -> None:
        self.digests = b""
        self._task, self._head, self._address, self._nonce = task, head, address, nonce
        self._t = 0
        self._load = task.bound.load(head.weights)
        self._probe = compute_first_probe(head.seed, self._encode_first_layer())

    def step(self) -> Step:
        """Take one step: W^(t) = update(W^(t-1), batch_t).

        Raises
        ------
        InvalidStep
            When its values blow up; the walk has no further steps.
        RuntimeError
            After max_steps, an invalid step, or a newer walk on this task: a bug of the caller.
        """
        task, params = self._task, self._task.params.walk
        if self._t == params.max_steps or self._load != task.bound.loads:
            raise RuntimeError("this walk is over")
        self._t += 1
        draw = task.train.draw(self._head.seed, self._address, self._nonce, self._t)
        try:
            task.bound.update(*task.train.gather(draw))
        except InvalidStep:
            self._t = params.max_steps
            raise
        probe_before, self._probe = (
            self._probe,
            compute_probe(self._probe, self._encode_first_layer()),
        )
        self.digests += self._probe[:DIGEST_BYTES]
        score = self._compute_score(probe_before) if self._t >= params.min_steps else None
        return Step(self._t, self._probe, score, task.bound.weights)

    def weights_bytes(self) -> bytes:
        """Canonical bytes of the weights after the last step."""
        return canonical.to_bytes(self._task.bound.weights)

    def root(self) -> bytes:
        """root(W^(t)) after the last step."""
        return compute_weights_root(self.weights_bytes())

    def _encode_first_layer(self) -> bytes:
        return canonical.to_bytes(self._task.bound.weights[: self._task.model.first_layer_size])

    def _compute_score(self, probe_before: bytes) -> int:
        """CheckRequirements of Algorithm 1, counted in place of passed or failed."""
        task = self._task
        before = task.bound.previous.numpy(force=True)
        after = task.bound.weights.numpy(force=True)
        positions = task.model.learnable_positions

        def get_move(index: int) -> int:
            position = positions[index]
            return int(after[position] > before[position]) - int(after[position] < before[position])

        requirements = iterate_requirements(
            self._head.seed,
            self._address,
            self._nonce,
            self._t,
            probe_before,
            task.model.weight_count,
        )
        return compute_score(requirements, get_move, self._probe)


def verify_claim(
    task: Task, head: Head, claim: WalkClaim, between_steps: Callable[[], None]
) -> tuple[WalkVerdict, bytes | None]:
    """Algorithm 2: redo the walk of a claim, stopping at the first step that differs.

    Parameters
    ----------
    head
        The generation that the claim extends.
    claim
        Of a form that the rules accept: min_steps to max_steps, a digest to each step.
    between_steps
        Called before each step; may raise to abandon the walk.

    Returns
    -------
    tuple
        The verdict, and W^(t)'s canonical bytes when the claim is true.
    """
    params = task.params.walk
    assert claim.generation == head.generation
    assert params.min_steps <= claim.steps <= params.max_steps
    assert len(claim.step_digests) == DIGEST_BYTES * claim.steps
    walk = Walk(task, head, claim.address, claim.nonce)
    for _ in range(claim.steps):
        between_steps()
        try:
            step = walk.step()
        except InvalidStep as error:
            return FalseWalk(f"step {len(walk.digests) // DIGEST_BYTES + 1}: {error}"), None
        if not claim.step_digests.startswith(walk.digests):
            return FalseWalk(f"step {step.t} differs from the claim's digest"), None
    weights_bytes = walk.weights_bytes()
    if compute_weights_root(weights_bytes) != claim.weights_root:
        return FalseWalk("the walk's last weights have another root"), None
    assert step.score is not None
    sample = draw_evaluation_sample(task, head.seed)
    verdict = TrueWalk(
        score=step.score,
        correct_head=count_correct(task, head.weights, sample),
        correct_ticket=count_correct(task, step.weights, sample),
    )
    return verdict, weights_bytes
