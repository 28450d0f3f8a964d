"""Choosing nonces by gradients that were computed once at the head.

An attacker keeps the gradient of every image at the head, in each place that the augmentation can
shift it to. The mean of a batch's kept gradients guesses which way its step will move a weight.
Where the requirements are known before the walk, nonces can be sorted by that guess and most never
tried. `walk` draws them from the state after the step before: the guess comes when a step has been
paid for, and can save the next one at most.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pol_abci.learning.walk import Walk
from pol_abci.rules.params import SCORE_UNIT
from pol_abci.rules.requirements import compute_score, iterate_requirements
from pol_abci.rules.seed import hash_fields
from studies.attacks.gains import Efforts, estimate_gain, measure_in_steps
from studies.attacks.report import Row
from studies.attacks.scene import (
    MINER,
    get_moves,
    learn_head,
    load_digits,
)
from studies.attacks.surrogate import compute_gradient, compute_image_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pol_abci.learning.walk import Head, Task
    from studies.attacks.gains import Gain

CASES = ((2, 6), (2, 12), (2, 20), (2, 32), (3, 32))
"""min_steps, and bits of difficulty."""
DRAWS = 200
"""Draws of requirements to each step."""
PROBE_SHARE = 0.69
"""Of a step, what it takes to have its probe: without the gradients of weights that lie behind the
first layer. Counted in products, which favours the attacker: small operations are left out."""
KNOWN_BITS = 10
NONCES_AT_ONCE = 2_048
TRIED_AT_ONCE = 64
IMAGES = 1_437
_CHUNK = 256
_CLASSES = 20


def measure(walks: int = 200, known: int = 16) -> Iterator[Row]:
    """Rows for both ways of drawing requirements."""
    task, head = load_digits(), learn_head()
    steps = task.params.walk.max_steps
    right, gains = measure_walk(task, head, walks)
    for (min_steps, bits), gain in gains.items():
        honest = steps / (steps + 1 - min_steps)
        name = (
            f"walks of {min_steps} steps, the last done where cached gradients promise enough; "
            f"{bits} bits, `min_steps` {min_steps}"
        )
        note = (
            f"a cached gradient names the move rightly in {right:.0%}; "
            f"a step's probe is counted as {PROBE_SHARE} of it"
        )
        cells = (f"{honest:.3f} * 2^d", f"{honest / gain.middle:.3f} * 2^d", str(gain))
        yield Row("walk", (name, *cells, note))
    bare, charged = measure_known(task, head, known)
    for name, gain in (
        ("nonces by cached gradients, if R were known before the walk", bare),
        ("the same, with each look-up in the cache counted", charged),
    ):
        cells = (f"{2**KNOWN_BITS}", f"{2**KNOWN_BITS / gain.middle:.0f}", str(gain))
        cache = IMAGES * 9 // 16
        note = f"{KNOWN_BITS} requirements; {cache} steps' worth of cache, once a head, left out"
        yield Row("rejected", (name, *cells, note))


def measure_walk(task: Task, head: Head, walks: int) -> tuple[float, dict[tuple[int, int], Gain]]:
    """How often a cached gradient names a move rightly; the gain by min_steps and bits.

    Half of the walks teach how far a guess of some size can be trusted, and how much promise a
    second step should have; the other half are the attack.
    """
    trials = []
    for nonce in range(walks):
        batch = task.train.gather(task.train.draw(head.seed, MINER, nonce, 2))
        gradient = compute_gradient(task.model, head.weights, *batch, by_batch=False)
        guess = -gradient.numpy()[task.model.learnable_positions]
        walk = Walk(task, head, MINER, nonce)
        walk.step()
        probe = walk.step().probe
        trials.append(_Trial(guess / np.abs(guess).mean(), np.array(get_moves(task)), probe))
    learnt, attacked = trials[: walks // 2], trials[walks // 2 :]
    trust = _calibrate(learnt)
    steps = task.params.walk.max_steps
    gains = {}
    for min_steps, bits in CASES:
        lessons = [_weigh_promise(task, head, trial, trust, bits) for trial in learnt]
        least = max(
            np.quantile(
                np.concatenate([anyone for anyone, _ in lessons]), np.linspace(0, 0.99, 34)
            ),
            key=lambda least: -_attack(lessons, least, min_steps).steps_per_ticket,
        )
        weighed = [_weigh_promise(task, head, trial, trust, bits) for trial in attacked]
        honest = steps / (steps + 1 - min_steps)
        gains[min_steps, bits] = estimate_gain(honest, _attack(weighed, least, min_steps))
    right = np.mean([trial.right.mean() for trial in trials])
    return float(right), gains


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """A second step: what was guessed of each weight, how it moved, and the step's probe."""

    guess: NDArray[np.float32]
    moves: NDArray[np.int64]
    probe: bytes

    @property
    def right(self) -> NDArray[np.bool_]:
        """Of the weights that moved: whether they were guessed rightly."""
        moved = self.moves != 0
        result: NDArray[np.bool_] = np.sign(self.guess[moved]) == self.moves[moved]
        return result


@dataclass(frozen=True, slots=True, eq=False)
class _Trust:
    """How likely a guess is right, by bounds of its size."""

    sizes: NDArray[np.float64]
    odds: NDArray[np.float64]

    def get_bits(self, promised: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log2 of how likely guesses, positive where they promise a requirement, make it met.

        Beside a fair coin: 1 is certain, 0 nothing known.
        """
        odds = self.odds[np.searchsorted(self.sizes, np.abs(promised))]
        return 1 + np.log2(np.where(promised > 0, odds, 1 - odds))


def _calibrate(trials: list[_Trial]) -> _Trust:
    sizes = np.concatenate([np.abs(trial.guess[trial.moves != 0]) for trial in trials])
    right = np.concatenate([trial.right for trial in trials])
    bounds = np.quantile(sizes, np.linspace(0, 1, _CLASSES + 1)[1:-1])
    places = np.searchsorted(bounds, sizes)
    odds = np.bincount(places, right, _CLASSES) / np.bincount(places, minlength=_CLASSES)
    return _Trust(bounds, odds)


def _weigh_promise(
    task: Task, head: Head, trial: _Trial, trust: _Trust, bits: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Promise, in bits, of `DRAWS` draws of requirements, and of draws that the step meets.

    Given that a step meets its requirements, their weights are any, and their directions those in
    which these moved: so that tickets of any score can be drawn, which no search would find.
    """
    draws = []
    for draw in range(DRAWS):
        probe_before = hash_fields("probe", trial.probe, draw)
        requirements = iterate_requirements(
            head.seed, MINER, draw, 2, probe_before, task.model.weight_count
        )
        moved = ((i, way) for i, way in requirements if trial.moves[i])
        draws.append(list(itertools.islice(moved, bits)))
    drawn = np.array(draws)
    guesses = trial.guess[drawn[..., 0]]
    anyone = trust.get_bits(guesses * drawn[..., 1]).sum(1)
    winner = trust.get_bits(guesses * trial.moves[drawn[..., 0]]).sum(1)
    return anyone, winner


def _attack(
    trials: list[tuple[NDArray[np.float64], NDArray[np.float64]]], least: float, min_steps: int
) -> Efforts:
    """Do the last step of a shortest walk where the promise is at least this.

    Tickets times 2^bits. The step before the last is done as far as its probe, and wholly where the
    last one is done; those before it wholly.
    """
    rest = (1 - PROBE_SHARE) + 1
    return Efforts.of(
        [
            (
                min_steps - 2 + PROBE_SHARE + rest * float((anyone >= least).mean()),
                float((winner >= least).mean()),
            )
            for anyone, winner in trials
        ]
    )


def measure_known(task: Task, head: Head, targets: int) -> tuple[Gain, Gain]:
    """Gain in steps, and gain with look-ups counted, R being known."""
    requirements = [list(_take(task, head, target))[:KNOWN_BITS] for target in range(targets)]
    columns = sorted({index for each in requirements for index, _ in each})
    place = {index: column for column, index in enumerate(columns)}
    cache = _compute_cache(task, head, columns)
    nonce = 0
    steps: list[float] = []
    looked: list[float] = []
    for required in requirements:
        at = [place[index] for index, _ in required]
        wanted = np.array([direction for _, direction in required])
        done = seen = 0
        is_met = False
        while not is_met:
            nonces = range(nonce, nonce + NONCES_AT_ONCE)
            nonce, seen = nonces.stop, seen + NONCES_AT_ONCE
            margins = _guess(task, head, cache[:, at], nonces) * wanted
            # The worst of the guesses, each beside the spread of its weight's guesses.
            surest = np.argsort((margins / np.abs(margins).mean(0)).min(1))[::-1]
            for tried in surest[:TRIED_AT_ONCE]:
                done += 1
                is_met = _is_met(task, head, nonces[int(tried)], required)
                if is_met:
                    break
        steps.append(done)
        looked.append(seen)
    batch = task.train.gather(task.train.draw(head.seed, MINER, 0, 1))
    (look_up,) = measure_in_steps(
        lambda: task.bound.update(*batch),
        lambda: _guess(task, head, cache[:, :KNOWN_BITS], range(64)),
    )
    honest = float(2**KNOWN_BITS)
    ones = [1.0] * targets
    bare = Efforts.of(list(zip(steps, ones, strict=True)))
    costs = [s + n * look_up / 64 for s, n in zip(steps, looked, strict=True)]
    charged = Efforts.of(list(zip(costs, ones, strict=True)))
    return estimate_gain(honest, bare), estimate_gain(honest, charged)


def _take(task: Task, head: Head, target: int) -> Iterator[tuple[int, int]]:
    """Requirements as they would be if nothing of the walk entered."""
    return iterate_requirements(head.seed, MINER, target, 1, head.seed, task.model.weight_count)


def _compute_cache(task: Task, head: Head, columns: list[int]) -> NDArray[np.float32]:
    """Gradients [image * 9 + shift, column] of learnable weights, at the head."""
    positions = torch.from_numpy(task.model.learnable_positions)[columns]
    draw = task.train.draw(bytes(32), MINER, 0, 1)
    images, labels = [], []
    for ordinal in range(IMAGES):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                draw.ordinals[:], draw.shifts[:] = [ordinal], [(dy, dx)]
                image, label = task.train.gather(draw)
                images.append(image)
                labels.append(label)
    parts = [
        compute_image_gradients(task.model, head.weights, torch.cat(i), torch.cat(k))[:, positions]
        for i, k in (
            (images[start : start + _CHUNK], labels[start : start + _CHUNK])
            for start in range(0, len(images), _CHUNK)
        )
    ]
    return torch.cat(parts).numpy()


def _guess(
    task: Task, head: Head, cache: NDArray[np.float32], nonces: range
) -> NDArray[np.float32]:
    """Moves [nonce, column] that the cache expects of the first batch of each nonce."""
    places = []
    for nonce in nonces:
        draw = task.train.draw(head.seed, MINER, nonce, 1)
        places.append(
            [
                9 * ordinal + 3 * (dy + 1) + dx + 1
                for ordinal, (dy, dx) in zip(draw.ordinals, draw.shifts, strict=True)
            ]
        )
    guess: NDArray[np.float32] = -cache[np.array(places)].mean(1)
    return guess


def _is_met(task: Task, head: Head, nonce: int, required: list[tuple[int, int]]) -> bool:
    task.bound.load(head.weights)
    task.bound.update(*task.train.gather(task.train.draw(head.seed, MINER, nonce, 1)))
    moves = get_moves(task)
    return compute_score(required, moves.__getitem__, bytes(32)) >= KNOWN_BITS * SCORE_UNIT
