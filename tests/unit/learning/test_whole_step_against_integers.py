"""Whole steps and evaluation of a small model against the integer reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pol_abci.learning.exact.arithmetic import InvalidStep
from pol_abci.learning.exact.bound_model import BoundModel
from pol_abci.learning.models import build_model
from pol_abci.rules.params import ArithmeticParams
from tests.unit.learning import integer_reference as reference

pytestmark = pytest.mark.usefixtures("_each_contraction")

if TYPE_CHECKING:
    from pol_abci.learning.exact.graph import Model

HEIGHT, WIDTH, CLASSES, BATCH = 5, 6, 3, 3
RATE = 2.0**-4


@pytest.fixture
def model() -> Model:
    return build_model("cnn", (2, 3, 4), (HEIGHT, WIDTH, 2), CLASSES)


def bind(
    model: Model, bits: tuple[int, int], rate: float = RATE, device: str = "cpu"
) -> BoundModel:
    arithmetic = ArithmeticParams(version=1, forward_bits=bits[0], backward_bits=bits[1])
    bound = BoundModel(model, BATCH, rate, arithmetic, torch.device(device))
    bound.load(model.initial_weights(b"seed"))
    return bound


def split(model: Model, flat: torch.Tensor) -> dict[str, reference.Floats]:
    return {name: view.clone().numpy(force=True) for name, view in model.split(flat).items()}


def make_batch(seed: int) -> tuple[reference.Floats, list[int]]:
    random = np.random.default_rng(seed)
    images = (random.integers(0, 256, (BATCH, HEIGHT, WIDTH, 2)) / 256).astype(np.float32)
    return images, random.integers(0, CLASSES, BATCH).tolist()


@pytest.mark.parametrize("bits", [(16, 8), (8, 8), (20, 16)])
@pytest.mark.parametrize("rate", [RATE, float(np.float32(0.001))])
def test_three_steps_are_the_definition(
    model: Model, bits: tuple[int, int], rate: float, device: str
) -> None:
    bound = bind(model, bits, rate, device)
    definition = reference.ReferenceCnn(HEIGHT, WIDTH)
    expected = split(model, bound.weights)
    for seed in range(3):
        images, labels = make_batch(seed)
        before = bound.weights.clone()
        bound.update(
            torch.from_numpy(images.copy()).to(device), torch.tensor(labels, device=device)
        )
        expected = definition.update(expected, images, labels, rate, bits)
        for name, value in split(model, bound.weights).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{name}, step {seed}")
        assert torch.equal(bound.previous, before)


@pytest.mark.parametrize("bits", [8, 16])
def test_evaluation_is_the_definition_and_does_not_depend_on_the_batch(
    model: Model, bits: int
) -> None:
    bound = bind(model, (16, 8))
    for seed in range(4):
        images, labels = make_batch(seed)
        bound.update(torch.from_numpy(images), torch.tensor(labels))
    images = np.concatenate([make_batch(seed)[0] * np.float32(2.0**-seed) for seed in range(4)])
    logits, is_valid = model.evaluate(bound.weights, torch.from_numpy(images.copy()), bits)
    definition = reference.ReferenceCnn(HEIGHT, WIDTH)
    expected = definition.evaluate(split(model, bound.weights), images, bits)
    np.testing.assert_array_equal(logits.numpy(), expected)
    assert is_valid.all()
    alone, _ = model.evaluate(bound.weights, torch.from_numpy(images[5:6].copy()), bits)
    np.testing.assert_array_equal(alone.numpy(), expected[5:6])


def test_values_that_blow_up_end_the_step(model: Model) -> None:
    bound = bind(model, (16, 8), rate=2.0**70)
    images, labels = make_batch(1)
    with pytest.raises(InvalidStep):
        bound.update(torch.from_numpy(images), torch.tensor(labels))


@pytest.mark.parametrize("name", ["bn1.running_var", "bn3.running_mean", "fc.bias", "conv2.weight"])
def test_any_weight_or_statistic_that_is_too_big_ends_the_step(model: Model, name: str) -> None:
    bound = bind(model, (16, 8))
    model.split(bound.weights)[name].flatten()[0] = 2.0**61
    images, labels = make_batch(1)
    with pytest.raises(InvalidStep):
        bound.update(torch.from_numpy(images), torch.tensor(labels))


def test_an_image_that_blows_up_in_evaluation_voids_itself_alone(model: Model) -> None:
    bound = bind(model, (16, 8))
    images, _ = make_batch(1)
    expected, _ = model.evaluate(bound.weights, torch.from_numpy(images.copy()), 16)
    model.split(bound.weights)["bn1.weight"].fill_(2.0**58)
    model.split(bound.weights)["bn1.running_var"].zero_()
    images[1] = 0.0  # stays small where the others grow
    logits, is_valid = model.evaluate(bound.weights, torch.from_numpy(images.copy()), 16)
    assert is_valid.tolist() == [False, True, False]
    assert logits[1].isfinite().all()
    assert not torch.equal(logits, expected)
