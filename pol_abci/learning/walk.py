"""The scheme `walk`: the paper's Algorithm 1 (creation) and Algorithm 2 (verification), changed.

Algorithm 1 is `Walk.step`, repeated until a score is good enough: draw a batch P, update the
weights on it, check the requirements R. Algorithm 2 is `verify_claim`: do the same steps again,
compare, and count what the model gets right. What differs from the paper is in protocol sections
4 to 7: batches are drawn from the head's seed, requirements from the walk's own last state. The
paper's own are in `paper`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.learning import weights as canonical
from pol_abci.learning.evaluate import count_correct, draw_evaluation_sample
from pol_abci.learning.exact.arithmetic import InvalidStep
from pol_abci.learning.prover import FalseRecord, Found, Redone
from pol_abci.learning.task import Head, Task, load_task
from pol_abci.rules.merkle import compute_weights_root
from pol_abci.rules.params import Address
from pol_abci.rules.proof import DIGEST_BYTES, FalseWalk, TrueWalk, WalkClaim
from pol_abci.rules.requirements import compute_score, iterate_requirements
from pol_abci.rules.seed import compute_first_probe, compute_probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from pol_abci.rules.codec import GenerationRecord
    from pol_abci.rules.params import Params
    from pol_abci.rules.proof import Claim, WalkVerdict

__all__ = [
    "EQUILIBRIUM_BITS",
    "NEEDS_PROOF",
    "Head",
    "Step",
    "Task",
    "Walk",
    "WalkProver",
    "get_ticket_share",
    "load_task",
    "open_prover",
    "redo_generation",
    "verify_claim",
]

EQUILIBRIUM_BITS = 2.9
"""Protocol section 2."""
NEEDS_PROOF = False
"""A record names the walk."""


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


class WalkProver:
    """Walks from a head, one nonce after another: `learning.prover.Prover`."""

    def __init__(self, task: Task, head: Head, address: Address, nonces: Iterator[int]) -> None:
        self._task, self._head, self._address, self._nonces = task, head, address, nonces
        self._nonce = 0
        self._walk: Walk | None = None
        self._sample: list[int] = []
        self._correct_head = 0

    def find(self, is_wanted: Callable[[int], bool], between_steps: Callable[[], None]) -> Found:
        """Algorithm 1: go on with the walk, and with the next nonce where it is over."""
        while True:
            between_steps()
            if self._walk is None:
                self._nonce = next(self._nonces)
                self._walk = Walk(self._task, self._head, self._address, self._nonce)
            walk = self._walk
            try:
                step = walk.step()
            except InvalidStep:
                self._walk = None
                continue
            if step.t == self._task.params.walk.max_steps:
                self._walk = None
            if step.score is not None and is_wanted(step.score):
                return self._weigh(walk, step, step.score)

    def _weigh(self, walk: Walk, step: Step, score: int) -> Found:
        """Count what the ticket's model gets right; the head's count is made once."""
        task, head, nonce = self._task, self._head, self._nonce
        if not self._sample:
            self._sample = draw_evaluation_sample(task, head.seed)
            self._correct_head = count_correct(task, head.weights, self._sample)
        correct = count_correct(task, step.weights, self._sample)

        def make_claim() -> WalkClaim:
            return WalkClaim(
                generation=head.generation,
                address=self._address,
                nonce=nonce,
                steps=step.t,
                step_digests=walk.digests,
                weights_root=walk.root(),
            )

        return Found(TrueWalk(score, self._correct_head, correct), make_claim)


def open_prover(task: Task, head: Head, address: Address, nonces: Iterator[int]) -> WalkProver:
    """Begin to walk from a head."""
    return WalkProver(task, head, address, nonces)


def get_ticket_share(params: Params) -> float:
    """Steps from min_steps on are tickets."""
    walk = params.walk
    return (walk.max_steps - walk.min_steps + 1) / walk.max_steps


def redo_generation(
    task: Task, head: Head, record: GenerationRecord, claim: Claim | None
) -> Redone:
    """Walk a generation's walk again: `learning.scheme.Scheme.redo_generation`."""
    del claim  # the record names all of the walk
    limits = task.params.walk
    if not limits.min_steps <= record.steps <= limits.max_steps:
        raise FalseRecord(f"no walk has {record.steps} steps")
    walk = Walk(task, head, Address(record.miner), record.nonce)
    try:
        for _ in range(record.steps):
            step = walk.step()
    except InvalidStep as error:
        raise FalseRecord(str(error)) from error
    weights_bytes = walk.weights_bytes()
    return Redone(weights_bytes, compute_weights_root(weights_bytes), step.score)


def verify_claim(
    task: Task,
    head: Head,
    claim: Claim,
    between_steps: Callable[[], None],
    between_images: Callable[[], None] | None = None,
) -> tuple[WalkVerdict, bytes | None]:
    """Algorithm 2: redo the walk of a claim, stopping at the first step that differs.

    See `learning.scheme.Scheme.verify_claim`.
    """
    params = task.params.walk
    assert isinstance(claim, WalkClaim)
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
        correct_head=count_correct(task, head.weights, sample, between_images),
        correct_ticket=count_correct(task, step.weights, sample, between_images),
    )
    return verdict, weights_bytes
