"""The paper's two algorithms: line by line, and as a node and a miner run them."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import itertools
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pol_abci.learning import paper
from pol_abci.learning import weights as canonical
from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.prover import FalseRecord
from pol_abci.learning.task import Head, Task, load_task
from pol_abci.learning.weights import WeightsMismatch
from pol_abci.node.presets import load_preset
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.params import SCORE_UNIT, Address, PaperParams
from pol_abci.rules.proof import FalseWalk, PaperClaim, TrueWalk
from pol_abci.rules.requirements import iterate_paper_requirements

if TYPE_CHECKING:
    from torch import Tensor

ADDRESS = Address(bytes(range(20)))
SEED = bytes(range(32))


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(load_preset("paper-digits").params, None, "paper-test")


@pytest.fixture
def head(task: Task) -> Head:
    return Head(4, SEED, task.initial_weights)


def pass_by() -> None:
    """Nothing is asked between steps."""


def find(task: Task, head: Head, met: int) -> tuple[TrueWalk, PaperClaim]:
    """Mine until so many requirements are met."""
    prover = paper.open_prover(task, head, ADDRESS, itertools.count(1))
    found = prover.find(lambda score: score >= met * SCORE_UNIT, pass_by)
    return found.verdict, found.make_claim()  # type: ignore[return-value]  # the scheme's own


def verify(task: Task, head: Head, claim: PaperClaim) -> TrueWalk | FalseWalk:
    return paper.verify_claim(task, head, claim, pass_by)[0]


def repack(claim: PaperClaim, frame: bytes) -> PaperClaim:
    return replace(claim, weights=frame, weights_digest=hashlib.sha256(frame).digest())


# -- the paper's pseudo-code

ALGORITHM_1 = {  # what stands on the line that names each of the paper's
    1: "model.load(w)",
    2: "while True:",
    3: "p = choice.sample(",
    4: "b = task.train.get_batch(p)",
    5: "model.update(*b)",
    6: "model.update(*b)",
    7: "if check_requirements(w_before, w_after, get_r()):",
    8: "return p, model.previous",
}
CHECK = {
    10: "for r_i in r:",
    11: "if r_i % 2 == 1:",
    12: "if w_after[r_i // 2] > w_before[r_i // 2]:",
    13: "return False",
    15: "else:",
    16: "if w_after[r_i // 2] < w_before[r_i // 2]:",
    17: "return False",
    21: "return True",
}
ALGORITHM_2 = {
    1: "b = task.train.get_batch(p)",
    2: "task.bound.update(*b)",
    3: "return check_requirements(*_view_learnable(task), r) and accuracy_after > accuracy",
}


@pytest.mark.parametrize(
    ("function", "lines"),
    [
        (paper.create_proof, ALGORITHM_1),
        (paper.check_requirements, CHECK),
        (paper.verify_proof, ALGORITHM_2),
    ],
)
def test_the_paper_s_lines_stand_in_their_order(function: Any, lines: dict[int, str]) -> None:
    found = []
    for line in inspect.getsource(function).splitlines():
        code, _, comment = line.partition("#")
        for number in re.findall(r"line (\d+)", comment):
            assert code.strip().startswith(lines[int(number)]), line
            found.append(int(number))
    assert found == list(lines)


@pytest.mark.parametrize(
    ("r", "holds"),
    [
        ([], True),
        ([0], True),  # even: weight 0 must increase, and does
        ([1], False),
        ([3], True),  # odd: weight 1 must decrease, and does
        ([2], False),
        ([4], True),  # weight 2 stands still, which passes either way
        ([5], True),
        ([0, 3, 4, 5], True),
        ([0, 3, 4, 2], False),
    ],
)
def test_check_requirements_is_the_paper_s(r: list[int], holds: bool) -> None:
    w_before, w_after = [0.5, -1.0, 2.0], [0.75, -1.5, 2.0]
    assert paper.check_requirements(w_before, w_after, r) is holds


def test_met_requirements_are_counted_up_to_the_first_broken() -> None:
    w_before, w_after = [0.5, -1.0, 2.0], [0.75, -1.5, 2.0]
    for r in itertools.permutations([0, 1, 2, 3, 4, 5], 4):
        met = paper.count_met(w_before, w_after, r)
        assert paper.check_requirements(w_before, w_after, r[:met])
        assert met == len(r) or not paper.check_requirements(w_before, w_after, r[: met + 1])


def test_create_proof_walks_on_from_w_until_all_of_r_hold(task: Task, head: Head) -> None:
    r = list(itertools.islice(iterate_paper_requirements(SEED, ADDRESS, 7_234), 3))
    choice, again = random.Random(7), random.Random(7)
    p, w = paper.create_proof(task, head.weights, lambda: r, choice, pass_by)
    w, after = w.clone(), task.bound.weights.clone()
    # The same walk with every step looked at
    model = task.bound
    model.load(head.weights)
    while True:
        batch = again.sample(range(1_437), 4)
        before = model.weights.clone()
        model.update(*task.train.get_batch(batch))
        positions = task.model.learnable_positions
        pairs = [(before[positions[i // 2]], model.weights[positions[i // 2]], i % 2) for i in r]
        if all((new <= old) if odd else (new >= old) for old, new, odd in pairs):
            break
    assert (p, w.tolist(), after.tolist()) == (batch, before.tolist(), model.weights.tolist())


def test_verify_proof_says_what_the_rules_say_of_a_claim(task: Task, head: Head) -> None:
    verdict, claim = find(task, head, 2)
    requirements = list(iterate_paper_requirements(SEED, ADDRESS, 7_234))
    w = canonical.unpack(task.model, claim.weights)
    met = verdict.score // SCORE_UNIT
    rises = verdict.correct_ticket > verdict.correct_head
    for length in range(met + 2):
        holds = length <= met and rises
        assert paper.verify_proof(task, claim.ordinals, w, requirements[:length]) is holds


# -- claims


def test_what_a_miner_finds_is_what_a_node_verifies(task: Task, head: Head) -> None:
    verdict, claim = find(task, head, 3)
    seen, weights = paper.verify_claim(task, head, claim, pass_by)
    assert seen == verdict
    assert weights is not None
    assert verdict.score >= 3 * SCORE_UNIT
    after = canonical.from_bytes(task.model, weights)
    assert verdict.correct_ticket == count_correct(task, after)
    assert verdict.correct_head == count_correct(task, canonical.unpack(task.model, claim.weights))


def test_a_first_step_has_the_same_bits_everywhere(task: Task) -> None:
    task.bound.load(task.initial_weights)
    task.bound.update(*task.train.get_batch([0, 1, 2, 3]))
    assert canonical.compute_root(task.bound.weights).hex() == FIRST_STEP_ROOT


FIRST_STEP_ROOT = "3b9ef10f94d5aa7ebef8facc3526239ad116460c13ddbdb25bd637a97f4360cf"


def pack_values(values: Tensor, **changes: float) -> bytes:
    array = values.numpy().copy()
    for value in changes.values():
        array[5] = value
    return zstandard.ZstdCompressor().compress(array.astype("<f4").tobytes())


def test_false_claims_are_told_apart_in_words(task: Task, head: Head) -> None:
    _, claim = find(task, head, 1)
    w = canonical.unpack(task.model, claim.weights)
    size = 4 * task.model.size
    packer = zstandard.ZstdCompressor()
    unsized = zstandard.ZstdCompressor(write_content_size=False)
    false = {
        "root": replace(claim, weights_root=bytes(32)),
        "train set has 1437 images": replace(claim, ordinals=(0, 1, 2, 1_437)),
        f"{size - 4} bytes is announced": repack(claim, packer.compress(bytes(size - 4))),
        "1073741824 bytes is announced": repack(claim, packer.compress(bytes(2**30))[:60]),
        "18446744073709551615 bytes is announced": repack(claim, unsized.compress(bytes(size))),
        "unused data": repack(claim, claim.weights + b"\x00"),
        "did not decompress full frame": repack(claim, claim.weights[:-9]),
        "not one zstd frame": repack(claim, b"PK\x03\x04 something else"),
        "not finite": repack(claim, pack_values(w, value=np.nan)),
        "2^60": repack(claim, pack_values(w, value=2.0**61)),
    }
    for reason, each in false.items():
        verdict, weights = paper.verify_claim(task, head, each, pass_by)
        assert isinstance(verdict, FalseWalk), reason
        assert weights is None
        assert reason in verdict.reason


def test_a_frame_that_holds_more_than_it_says_is_never_unpacked(task: Task) -> None:
    size = 4 * task.model.size
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(2**24)))
    # The header of a frame of 16 MiB, made to announce what the model has
    assert zstandard.get_frame_parameters(bytes(frame)).content_size == 2**24
    start = frame.index((2**24).to_bytes(4, "little"))
    frame[start : start + 4] = size.to_bytes(4, "little")
    with pytest.raises(WeightsMismatch, match="not one zstd frame"):
        canonical.unpack(task.model, bytes(frame))


def test_a_claim_is_for_one_seed_and_one_address(task: Task, head: Head) -> None:
    verdict, claim = find(task, head, 6)
    others = [
        verify(task, Head(4, bytes(32), head.weights), claim),
        verify(task, head, replace(claim, address=Address(bytes(20)))),
    ]
    for other in others:
        assert isinstance(other, TrueWalk)
        assert other.score < verdict.score  # seven of eight chances each, fixed by the seeds


def test_the_anchor_counts_what_the_head_gets_right(task: Task, head: Head) -> None:
    _, claim = find(task, head, 1)
    scheme = task.params.scheme
    assert isinstance(scheme, PaperParams)
    anchored = replace(task, params=replace(task.params, scheme=replace(scheme, anchor=True)))
    verdict = verify(anchored, head, claim)
    assert isinstance(verdict, TrueWalk)
    assert verdict.correct_anchor == count_correct(task, head.weights)


def test_a_walk_goes_on_where_it_found_a_ticket(task: Task, head: Head) -> None:
    prover = paper.open_prover(task, head, ADDRESS, itertools.count(1))
    claims = [prover.find(lambda score: score >= 0, pass_by).make_claim() for _ in range(3)]
    for before, after in itertools.pairwise(claims):
        assert isinstance(after, PaperClaim)
        w = canonical.unpack(task.model, after.weights)
        assert canonical.compute_root(w) == before.weights_root


def test_a_generation_is_redone_from_its_transaction(task: Task, head: Head) -> None:
    verdict, claim = find(task, head, 2)
    record = GenerationRecord(
        generation=5,
        height=9,
        time_ms=0,
        interval_ms=0,
        difficulty=0,
        score=verdict.score,
        correct_head=verdict.correct_head,
        correct_ticket=verdict.correct_ticket,
        miner=ADDRESS,
        nonce=0,
        steps=1,
        weights_root=claim.weights_root,
        tx_hash=bytes(32),
        batch=claim.batch,
    )
    redone = paper.redo_generation(task, head, record, claim)
    assert (redone.root, redone.score) == (claim.weights_root, verdict.score)
    for other in (
        None,
        replace(claim, ordinals=claim.ordinals[::-1]),
        replace(claim, generation=3),
        repack(claim, claim.weights[:-1]),
    ):
        with pytest.raises(FalseRecord):
            paper.redo_generation(task, head, record, other)


def test_a_genesis_that_says_another_size_of_the_model_is_refused(task: Task) -> None:
    scheme = PaperParams(anchor=False, weights_bytes=29_380)
    with pytest.raises(GenesisError, match="the model's weights have 29384"):
        load_task(replace(task.params, scheme=scheme), None, "paper-test")


@given(st.data())
def test_bytes_from_strangers_are_weights_or_not(task: Task, data: st.DataObject) -> None:
    frame = bytearray(canonical.pack(task.initial_weights))
    start = data.draw(st.integers(0, 40) | st.integers(0, len(frame) - 1))
    end = data.draw(st.integers(start, min(len(frame), start + 8)))
    frame[start:end] = data.draw(st.binary(max_size=8))
    with contextlib.suppress(WeightsMismatch):
        assert len(canonical.unpack(task.model, bytes(frame))) == task.model.size
