"""The document and the implementation agree: second_client.py knows nothing but the document."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pol_abci.learning import evaluate
from pol_abci.learning import weights as canonical
from pol_abci.learning.exact.arithmetic import InvalidStep
from pol_abci.learning.golden import read_golden_walk
from pol_abci.learning.task import load_task
from pol_abci.learning.walk import Head, Walk
from pol_abci.rules.genesis import parse_params
from pol_abci.rules.params import Address
from tests.golden import second_client

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = read_golden_walk()
MADE = GOLDEN["made"]
PRESET = json.loads(second_client.PRESET.read_text())
TRAIN, TEST = second_client.load_train_and_test_set()
STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def golden_walk() -> dict[str, object]:
    return second_client.compute_golden_walk()


@pytest.mark.parametrize("part", ["first_root", "probes", "scores", "last_root", "correct"])
def test_a_reader_of_the_document_gets_the_golden_walk(
    golden_walk: dict[str, object], part: str
) -> None:
    assert golden_walk[part] == MADE[part]


def test_the_golden_file_has_nothing_that_was_not_compared(golden_walk: dict[str, object]) -> None:
    assert golden_walk.keys() == MADE.keys()
    assert len(MADE["probes"]) == len(MADE["scores"]) == GOLDEN["given"]["steps"]


def test_the_second_client_takes_nothing_from_the_package() -> None:
    text = Path(second_client.__file__).read_text()
    assert not re.search(r"^\s*(from|import) pol_abci", text, re.MULTILINE)


def test_a_reader_of_the_document_has_the_presets_datasets() -> None:
    assert TRAIN.compute_digest().hex() == PRESET["task"]["train_digest"]
    assert TEST.compute_digest().hex() == PRESET["task"]["test_digest"]


@dataclass(frozen=True)
class Case:
    """A walk that is in no file; `task` and `arithmetic` change the preset's."""

    chain_id: str
    seed: bytes
    address: bytes
    nonce: int
    task: tuple[tuple[str, object], ...] = ()
    arithmetic: tuple[tuple[str, object], ...] = ()

    @property
    def genesis(self) -> dict[str, Any]:
        return {
            **PRESET,
            "task": {**PRESET["task"], **dict(self.task)},
            "arithmetic": {**PRESET["arithmetic"], **dict(self.arithmetic)},
        }


# Just above the middle of two float32; its float64 is the middle, which would round down to 1.
RATE_ABOVE_A_TIE = "1.000000059604644775390625000000000000001"

CASES = {
    "smallest": Case("a", bytes(32), bytes(20), 0),
    "greatest": Case("pol-π-2", b"\xff" * 32, b"\xff" * 20, 2**64 - 1),
    "of a later seed": Case("pol-3", bytes(range(100, 132)), bytes(range(20, 0, -1)), 2**32 + 5),
    "other augmentation": Case(
        "pol-4", b"\x04" * 32, b"\x40" * 20, 4,
        task=(("augmentation", {"shift": 2, "flip": True, "cutout": 3}), ("batch_size", 11)),
    ),
    "no augmentation, other bits and channels": Case(
        "pol-5", b"\x05" * 32, b"\x50" * 20, 5,
        task=(
            ("augmentation", {"shift": 0, "flip": False, "cutout": 0}),
            ("channels", [3, 40, 80]),
        ),  # with these the weights are more than one chunk
        arithmetic=(("forward_bits", 11), ("backward_bits", 6)),
    ),
    "a rate that float32 has not": Case(
        "pol-6", b"\x06" * 32, b"\x60" * 20, 6, task=(("learning_rate", RATE_ABOVE_A_TIE),)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_walks_of_two_generations_agree(case: Case) -> None:
    task = load_task(parse_params(case.genesis), None, case.chain_id)
    figures = second_client.read_figures(case.genesis)
    head = second_client.Head(second_client.draw_first_weights(case.chain_id, figures), case.seed)
    assert second_client.encode_weights(head.weights) == canonical.to_bytes(task.initial_weights)
    weights = task.initial_weights
    for generation in range(2):
        walk = Walk(task, Head(generation, head.seed, weights), Address(case.address), case.nonce)
        documented = second_client.walk(TRAIN, figures, head, case.address, case.nonce)
        count = 0
        for expected in itertools.islice(documented, STEPS):
            step = walk.step()
            assert (step.t, step.probe, step.score) == (expected.t, expected.probe, expected.score)
            assert walk.weights_bytes() == second_client.encode_weights(expected.weights)
            count += 1
        assert count == STEPS
        assert walk.root() == second_client.compute_root(expected.weights)

        sample = second_client.draw_evaluation_sample(TEST, figures, head.seed)
        assert evaluate.draw_evaluation_sample(task, head.seed) == sample
        assert evaluate.count_correct(task, step.weights, sample) == second_client.count_correct(
            expected.weights, TEST, figures, sample
        )
        weights = step.weights.clone()
        head = second_client.Head(
            expected.weights,
            second_client.compute_next_seed(
                head.seed, case.address, case.nonce, STEPS, walk.root()
            ),
        )


def test_values_beyond_the_limit_end_a_walk_and_lose_an_image() -> None:
    case = CASES["smallest"]
    task = load_task(parse_params(case.genesis), None, case.chain_id)
    figures = second_client.read_figures(case.genesis)
    first = second_client.draw_first_weights(case.chain_id, figures)
    # Below 2^60 as a head has it; about half of the images make a feature beyond.
    weights = first | {"bn3.weight": first["bn3.weight"] * np.float32(2.0**59.9)}
    flat = canonical.from_bytes(task.model, second_client.encode_weights(weights))

    head = second_client.Head(weights, case.seed)
    assert not list(second_client.walk(TRAIN, figures, head, case.address, case.nonce))
    with pytest.raises(InvalidStep):
        Walk(task, Head(0, case.seed, flat), Address(case.address), case.nonce).step()

    ordinals = range(len(TEST.images))
    correct = second_client.count_correct(weights, TEST, figures, ordinals)
    assert evaluate.count_correct(task, flat) == correct
    assert 0 < correct < second_client.count_correct(first, TEST, figures, ordinals)
