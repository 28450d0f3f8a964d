"""A small digits chain in this process: the real rules, store and training, no sockets.

Difficulty and stamps are low, so that a proof is a matter of milliseconds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pol_abci.app.application import PolApplication
from pol_abci.app.replica import Replica
from pol_abci.app.verifier import Verifier
from pol_abci.app.verifier_messages import Configure
from pol_abci.client.keys import AccountKey
from pol_abci.client.transactions import build_proof
from pol_abci.learning.evaluate import count_correct, draw_evaluation_sample
from pol_abci.learning.walk import Head, Task, Walk, load_task, verify_claim
from pol_abci.learning.weights import compute_root, from_bytes, to_bytes
from pol_abci.rules.genesis import Genesis, GenesisAccount, compute_genesis_digest
from pol_abci.rules.params import MAX_DIFFICULTY, SCORE_UNIT, Address, Amount, Params
from pol_abci.rules.proof import Claim, TrueWalk, WalkClaim
from pol_abci.store.store import Store
from tests.unit.learning.digits_task import make_digits_params

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pol_abci.app.walk_queue import Standing
    from pol_abci.rules.proof import WalkVerdict

CHAIN_ID = "pol-digits-test"
FUNDS = Amount(1_000_000_000)
TARGET_MS = 4_000


@functools.cache
def load_digits_task() -> Task:
    """The task, loaded once a test run; its model is shared by everything in this process."""
    return load_task(make_test_params(), None, CHAIN_ID)


@functools.cache
def make_test_params() -> Params:
    """The digits preset, made easy: 3 bits, quick stamps, walks of at most 8 steps."""
    params = make_digits_params()
    return replace(
        params,
        scheme=replace(params.walk, max_steps=8, stamp_bits=4),
        difficulty=replace(params.difficulty, first=3 * SCORE_UNIT),
        ledger=replace(params.ledger, maturity_generations=2),
    )


def make_key(number: int) -> AccountKey:
    """An account key that is the same in every run."""
    return AccountKey(bytes([number]) * 32)


def make_consensus_key(number: int) -> AccountKey:
    """The key with which account `number` validates."""
    return make_key(100 + number)


def make_genesis(
    params: Params | None = None,
    *,
    validators: Sequence[tuple[int, int]] = ((1, 100),),
    funded: Sequence[int] = (),
) -> Genesis:
    """Accounts with funds: those that validate, by number and slots, and `funded` ones besides."""
    keys = {number: make_consensus_key(number).public_key for number, _ in validators}
    return Genesis(
        params=params or make_test_params(),
        accounts=tuple(
            GenesisAccount(
                address=make_key(number).address, balance=FUNDS, consensus_key=keys.get(number)
            )
            for number in (*keys, *funded)
        ),
        ring=tuple((make_key(number).address, slots) for number, slots in validators),
        weights_root=compute_root(load_digits_task().initial_weights),
    )


class InlineVerifier(Verifier):
    """The verifier without its process: a walk is redone when it is asked for.

    Queued walks wait for `walk_queued`, as they wait for the process. `walks` and `steps` count
    what was redone.
    """

    def __init__(self, params: Params) -> None:
        super().__init__(Configure(CHAIN_ID, params, b"", 1))
        self.status.alive = True
        self.walks = 0
        self.steps = 0
        self._task = replace(load_digits_task(), params=params)
        self._weights = b""
        self._made: dict[Claim, bytes] = {}

    def set_queue_limit(self, limit: int) -> None:
        """Have room for this many waiting walks."""
        self._queue.limit = limit

    def set_head(self, generation: int, seed: bytes, weights: bytes) -> None:
        super().set_head(generation, seed, weights)
        self._weights = weights

    async def verify(self, claim: Claim, *, is_decided: bool = False) -> WalkVerdict:
        del is_decided  # this one computes the same twice
        known = self.verdicts.get(claim)
        return self._walk(claim) if known is None else known

    async def compute_weights(self, claim: Claim) -> bytes:
        return self._made[claim]

    async def compute_initial_weights(self) -> bytes:
        return to_bytes(load_digits_task().initial_weights)

    def measure_accuracy(
        self, generation: int, weights: bytes, then: Callable[[int, int, int], None]
    ) -> None:
        flat = from_bytes(self._task.model, weights)
        then(generation, count_correct(self._task, flat), len(self._task.test))

    def enqueue(self, claim: Claim, raw: bytes, standing: Standing) -> None:
        self._queue.add(claim, raw, standing)

    def walk_queued(self) -> None:
        """Do what the process would do by and by."""
        while (entry := self._queue.pop()) is not None:
            claim, raw = entry
            verdict = self._walk(claim)
            if isinstance(verdict, TrueWalk):
                self.on_true_walk(claim, raw, verdict)
            else:
                self._queue.refuse(claim.address)

    def _walk(self, claim: Claim) -> WalkVerdict:
        self.walks += 1
        assert self._head is not None
        weights = from_bytes(self._task.model, self._weights)
        head = Head(self._head.generation, self._head.seed, weights)
        verdict, made = verify_claim(self._task, head, claim, self._count_step)
        if made is not None:
            self._made[claim] = made
        return self._remember(claim, verdict)

    def _count_step(self) -> None:
        self.steps += 1


@dataclass(slots=True)
class Clock:
    """A clock that tests set."""

    now_ms: int = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@dataclass(slots=True)
class DigitsNode:
    """An application over a store in a folder; `restart` is kill and start again."""

    path: Path
    genesis: Genesis = field(default_factory=make_genesis)
    clock: Clock = field(default_factory=Clock)
    initial_height: int = 1
    snapshot_interval: int = 0
    replica: Replica = field(init=False)
    verifier: InlineVerifier = field(init=False)
    application: PolApplication = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> PolApplication:
        """Open the store and make the application, as a new process would."""
        store = Store.open(
            self.path,
            chain_id=CHAIN_ID,
            genesis_digest=compute_genesis_digest(self.genesis),
        )
        self.verifier = InlineVerifier(self.genesis.params)
        self.replica = Replica(
            chain_id=CHAIN_ID,
            genesis=self.genesis,
            initial_height=self.initial_height,
            store=store,
            verifier=self.verifier,
            clock_ms=self.clock,
        )
        self.application = PolApplication(self.replica, self.snapshot_interval)
        return self.application

    def restart(self) -> PolApplication:
        """Lose everything that is not on disk."""
        self.close()
        return self.start()

    def close(self) -> None:
        """Give the store's folder back, as the end of the process would."""
        self.replica.store.close()

    def get_task_head(self) -> Head:
        """The head as a miner would have it."""
        head = self.replica.get_head()
        weights = self.replica.store.weights()
        return Head(head.generation, head.seed, from_bytes(load_digits_task().model, weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedClaim(WalkClaim):
    """A walk, whatever tests change about it, and the seed that its stamp is to cover."""

    seed: bytes


def search_claim(
    node: DigitsNode,
    address: Address,
    *,
    scores: range | None = None,
    is_wanted: Callable[[TrueWalk], bool] = lambda walk: walk.correct_ticket >= walk.correct_head,
    steps: int = 0,
) -> WalkClaim:
    """Mine: the first walk from the node's head whose last state is wanted.

    Parameters
    ----------
    scores
        What it may score; by default what is good even when the generation has just begun.
    is_wanted
        Asked of the walks with such scores; by default the model may not become worse.
    steps
        The walk has at least as many.
    """
    if scores is None:
        scores = range(node.replica.get_head().difficulty, MAX_DIFFICULTY)
    head = node.get_task_head()
    task = replace(load_digits_task(), params=node.genesis.params)
    sample = draw_evaluation_sample(task, head.seed)
    correct_head = count_correct(task, head.weights, sample)
    for nonce in range(10_000):
        walk = Walk(task, head, address, nonce)
        for _ in range(task.params.walk.max_steps):
            step = walk.step()
            if step.score is None or step.score not in scores or step.t < steps:
                continue
            correct = count_correct(task, step.weights, sample)
            if is_wanted(TrueWalk(step.score, correct_head, correct)):
                return MinedClaim(
                    generation=head.generation,
                    address=address,
                    nonce=nonce,
                    steps=step.t,
                    step_digests=walk.digests,
                    weights_root=walk.root(),
                    seed=head.seed,
                )
    raise AssertionError("no such walk among 10,000 nonces")


def sign_claim(
    key: AccountKey, claim: Claim, *, stamp_bits: int | None = None, chain_id: str = CHAIN_ID
) -> bytes:
    """The transaction that submits what `search_claim` found, stamped unless told otherwise."""
    assert isinstance(claim, MinedClaim), "only a mined claim knows the seed for its stamp"
    if stamp_bits is None:
        stamp_bits = make_test_params().walk.stamp_bits
    return build_proof(key, chain_id, claim, seed=claim.seed, stamp_bits=stamp_bits)
