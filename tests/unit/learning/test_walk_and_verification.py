"""Algorithm 1 and 2: what a walk makes, and which claims verification refuses, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import torch

from pol_abci.learning import weights as canonical
from pol_abci.learning.calibrate import measure_steps_per_second
from pol_abci.learning.evaluate import count_correct, draw_evaluation_sample
from pol_abci.learning.walk import Head, Task, Walk, load_task, verify_claim
from pol_abci.rules.errors import GenesisError, PolError
from pol_abci.rules.params import Address, Params
from pol_abci.rules.proof import FalseWalk, TrueWalk, WalkClaim
from pol_abci.rules.requirements import compute_score, iterate_requirements
from pol_abci.rules.seed import Stream, compute_first_probe, compute_probe
from tests.unit.learning.digits_task import ADDRESS, CHAIN_ID

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 6


def count_calls() -> tuple[Callable[[], None], list[None]]:
    calls: list[None] = []
    return lambda: calls.append(None), calls


def make_claim(task: Task, head: Head, nonce: int = 3) -> WalkClaim:
    walk = Walk(task, head, ADDRESS, nonce)
    for _ in range(STEPS):
        walk.step()
    return WalkClaim(
        generation=head.generation,
        address=ADDRESS,
        nonce=nonce,
        steps=STEPS,
        step_digests=walk.digests,
        weights_root=walk.root(),
    )


def test_probes_chain_from_the_seed_over_the_first_layer(
    digits_task: Task, first_head: Head
) -> None:
    walk = Walk(digits_task, first_head, ADDRESS, 0)
    first_layer = digits_task.initial_weights[:72]
    probe = compute_first_probe(first_head.seed, canonical.to_bytes(first_layer))
    for t in range(1, 4):
        step = walk.step()
        probe = compute_probe(probe, canonical.to_bytes(step.weights[:72]))
        assert (step.t, step.probe) == (t, probe)
        assert walk.digests[-8:] == probe[:8]
    assert len(walk.digests) == 3 * 8
    assert walk.weights_bytes() == canonical.to_bytes(step.weights)
    assert walk.root() == canonical.compute_root(step.weights)


def test_probes_know_one_zero(digits_task: Task, first_head: Head) -> None:
    plus, minus = first_head.weights.clone(), first_head.weights.clone()
    plus[5], minus[5] = 0.0, -0.0
    heads = [replace(first_head, weights=weights) for weights in (plus, minus)]
    probes = [Walk(digits_task, head, ADDRESS, 0).step().probe for head in heads]
    assert probes[0] == probes[1]


def test_scores_count_moves_of_learnable_weights(digits_task: Task, first_head: Head) -> None:
    walk = Walk(digits_task, first_head, ADDRESS, 1)
    before, probe = digits_task.initial_weights, b""
    positions = digits_task.model.learnable_positions
    for t in range(1, 9):
        step = walk.step()
        if t == 1:
            assert step.score is None  # below min_steps
        else:
            moves = torch.sign(step.weights - before)[torch.from_numpy(positions)].int().tolist()
            requirements = iterate_requirements(
                first_head.seed, ADDRESS, 1, t, probe, digits_task.model.weight_count
            )
            assert step.score == compute_score(requirements, moves.__getitem__, step.probe)
        before, probe = step.weights.clone(), step.probe


def test_a_walk_depends_on_seed_address_and_nonce(digits_task: Task, first_head: Head) -> None:
    walks = [
        (first_head, ADDRESS, 0),
        (first_head, ADDRESS, 1),
        (first_head, Address(bytes(20)), 0),
        (replace(first_head, seed=bytes(32)), ADDRESS, 0),
    ]
    roots = []
    for head, address, nonce in walks:
        walk = Walk(digits_task, head, address, nonce)
        walk.step()
        roots.append(walk.root())
    assert len(set(roots)) == len(walks)


def test_a_walk_ends_at_max_steps_and_when_another_begins(
    digits_task: Task, first_head: Head
) -> None:
    walk = Walk(digits_task, first_head, ADDRESS, 0)
    for _ in range(digits_task.params.walk.max_steps):
        walk.step()
    with pytest.raises(RuntimeError, match="over"):
        walk.step()
    older = Walk(digits_task, first_head, ADDRESS, 0)
    Walk(digits_task, first_head, ADDRESS, 1)
    with pytest.raises(RuntimeError, match="over"):
        older.step()


def test_walking_leaves_the_head_as_it_was(digits_task: Task, first_head: Head) -> None:
    before = first_head.weights.clone()
    Walk(digits_task, first_head, ADDRESS, 0).step()
    assert torch.equal(first_head.weights, before)


def test_a_true_claim_gives_score_counts_and_weights(digits_task: Task, first_head: Head) -> None:
    claim = make_claim(digits_task, first_head)
    walk = Walk(digits_task, first_head, ADDRESS, claim.nonce)
    last = [walk.step() for _ in range(STEPS)][-1]
    expected_weights = last.weights.clone()
    between, calls = count_calls()
    verdict, data = verify_claim(digits_task, first_head, claim, between)
    assert data == canonical.to_bytes(expected_weights)
    sample = draw_evaluation_sample(digits_task, first_head.seed)
    assert verdict == TrueWalk(
        score=cast("int", last.score),
        correct_head=count_correct(digits_task, first_head.weights, sample),
        correct_ticket=count_correct(digits_task, expected_weights, sample),
    )
    assert len(calls) == STEPS


def test_a_claim_is_true_on_each_device(
    digits_task: Task, first_head: Head, digits_params: Params, device: str
) -> None:
    claim = make_claim(digits_task, first_head)
    expected = verify_claim(digits_task, first_head, claim, lambda: None)
    task = load_task(digits_params, None, CHAIN_ID, device=device)
    # The head's weights lie where the node's messages put them, in the processor's memory.
    assert verify_claim(task, first_head, claim, lambda: None) == expected


@pytest.mark.parametrize("false_step", [1, 2, 4, STEPS])
def test_a_false_digest_is_refused_after_exactly_that_step(
    digits_task: Task, first_head: Head, false_step: int
) -> None:
    claim = make_claim(digits_task, first_head)
    digests = bytearray(claim.step_digests)
    digests[8 * false_step - 1] ^= 1
    between, calls = count_calls()
    false = replace(claim, step_digests=bytes(digests))
    verdict, data = verify_claim(digits_task, first_head, false, between)
    assert isinstance(verdict, FalseWalk)
    assert f"step {false_step}" in verdict.reason
    assert data is None
    assert len(calls) == false_step


def test_a_wrong_root_is_refused(digits_task: Task, first_head: Head) -> None:
    claim = replace(make_claim(digits_task, first_head), weights_root=bytes(32))
    verdict, data = verify_claim(digits_task, first_head, claim, lambda: None)
    assert isinstance(verdict, FalseWalk)
    assert "root" in verdict.reason
    assert data is None


@pytest.mark.parametrize(
    "change", [{"nonce": 4}, {"address": Address(bytes(20))}], ids=["nonce", "address"]
)
def test_the_walk_of_another_nonce_or_address_is_refused_at_once(
    digits_task: Task, first_head: Head, change: dict[str, object]
) -> None:
    claim = replace(make_claim(digits_task, first_head), **change)  # type: ignore[arg-type]  # either field
    between, calls = count_calls()
    verdict, _ = verify_claim(digits_task, first_head, claim, between)
    assert isinstance(verdict, FalseWalk)
    assert len(calls) == 1


def test_a_walk_that_blows_up_is_false(digits_task: Task, first_head: Head) -> None:
    claim = make_claim(digits_task, first_head)
    weights = first_head.weights.clone()
    digits_task.model.split(weights)["bn1.weight"].fill_(2.0**60)
    verdict, data = verify_claim(
        digits_task, replace(first_head, weights=weights), claim, lambda: None
    )
    assert isinstance(verdict, FalseWalk)
    assert "step 1" in verdict.reason
    assert data is None


def test_verification_can_be_abandoned_between_steps(digits_task: Task, first_head: Head) -> None:
    class Abandoned(Exception):
        pass

    between, calls = count_calls()

    def abandon_at_the_third() -> None:
        between()
        if len(calls) == 3:
            raise Abandoned

    with pytest.raises(Abandoned):
        verify_claim(
            digits_task, first_head, make_claim(digits_task, first_head), abandon_at_the_third
        )


def test_the_sample_is_drawn_from_the_generations_seed(digits_task: Task) -> None:
    sample = draw_evaluation_sample(digits_task, bytes(32))
    assert sample == Stream("evaluation", bytes(32)).draw_distinct(128, 360)


def test_counts_add_up_over_any_parts_of_the_test_set(digits_task: Task) -> None:
    weights = digits_task.initial_weights
    parts = [range(100), range(100, 101), range(101, 360)]
    assert count_correct(digits_task, weights) == sum(
        count_correct(digits_task, weights, part) for part in parts
    )


def test_images_that_blow_up_count_as_wrong(digits_task: Task) -> None:
    weights = digits_task.initial_weights.clone()
    views = digits_task.model.split(weights)
    views["bn1.weight"].fill_(2.0**59)
    views["bn1.running_var"].zero_()
    assert count_correct(digits_task, weights) == 0


def test_steps_learn(digits_task: Task, first_head: Head) -> None:
    weights = first_head.weights
    for generation in range(19):
        head = Head(generation, bytes([generation]) * 32, weights)
        walk = Walk(digits_task, head, ADDRESS, 0)
        for _ in range(digits_task.params.walk.max_steps):
            weights = walk.step().weights
        weights = weights.clone()
    assert count_correct(digits_task, weights) > 0.85 * len(digits_task.test)


def test_a_task_is_checked_against_its_genesis(digits_task: Task, digits_params: Params) -> None:
    root = canonical.compute_root(digits_task.initial_weights)
    load_task(digits_params, root, CHAIN_ID)
    with pytest.raises(GenesisError, match="another chain"):
        load_task(digits_params, root, "pol-other")


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("task", {"train_digest": bytes(32)}, "train set of digits"),
        ("task", {"test_digest": bytes(32)}, "test set of digits"),
        ("task", {"batch_size": 2_000}, "1437 images"),
        ("task", {"learning_rate": "fast"}, "not a decimal"),
        ("task", {"learning_rate": "-0.1"}, "not above 0"),
        ("task", {"learning_rate": "1e-60"}, "not above 0"),
        ("task", {"learning_rate": "1e60"}, "not a decimal"),
        ("scheme", {"evaluation_samples": 361}, "360 images"),
        ("arithmetic", {"version": 2}, "arithmetic version 2"),
        ("arithmetic", {"forward_bits": 23}, "forward_bits 23"),
        ("arithmetic", {"backward_bits": 1}, "backward_bits 1"),
    ],
)
def test_a_task_that_cannot_run_is_refused_in_words(
    digits_params: Params, section: str, change: dict[str, object], message: str
) -> None:
    changed = replace(getattr(digits_params, section), **change)
    with pytest.raises(PolError, match=message):
        load_task(replace(digits_params, **{section: changed}), None, CHAIN_ID)


def test_bits_at_which_a_sum_would_not_be_exact_are_refused(digits_params: Params) -> None:
    task = replace(digits_params.task, batch_size=64)  # 4,096 rows in the first convolution
    arithmetic = replace(digits_params.arithmetic, backward_bits=22)
    with pytest.raises(GenesisError, match="4096 products would not be exact"):
        load_task(replace(digits_params, task=task, arithmetic=arithmetic), None, CHAIN_ID)


def test_the_measured_rate_is_of_real_steps(digits_task: Task) -> None:
    assert measure_steps_per_second(digits_task, 0.05) > 1.0
