"""Whole steps and evaluation of a converted residual module against the integer reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pol_abci.learning.exact.bound_model import BoundModel
from pol_abci.learning.exact.converter import convert
from pol_abci.rules.params import ArithmeticParams
from tests.unit.learning.residual_module import SmallResidual
from tests.unit.learning.residual_reference import ReferenceResidual

pytestmark = pytest.mark.usefixtures("_each_contraction")

if TYPE_CHECKING:
    from pol_abci.learning.exact.graph import Model
    from tests.unit.learning.integer_reference import Floats

SHAPE, CLASSES, BATCH = (9, 8, 2), 3, 2


def bind(model: Model, bits: tuple[int, int], rate: float, device: str = "cpu") -> BoundModel:
    arithmetic = ArithmeticParams(version=1, forward_bits=bits[0], backward_bits=bits[1])
    bound = BoundModel(model, BATCH, rate, arithmetic, torch.device(device))
    weights = model.initial_weights(b"seed")
    # Biases and betas that are not 0, so that a mistake with them shows.
    weights += torch.rand(model.size, generator=torch.Generator().manual_seed(1)) / 4
    bound.load(weights)
    return bound


def split(model: Model, flat: torch.Tensor) -> dict[str, Floats]:
    return {name: view.clone().numpy(force=True) for name, view in model.split(flat).items()}


def make_batch(seed: int) -> tuple[Floats, list[int]]:
    random = np.random.default_rng(seed)
    images = (random.integers(0, 256, (BATCH, *SHAPE)) / 256).astype(np.float32)
    return images, random.integers(0, CLASSES, BATCH).tolist()


@pytest.mark.parametrize("bits", [(16, 8), (8, 8), (20, 16)])
def test_steps_of_a_residual_module_are_the_definition(bits: tuple[int, int], device: str) -> None:
    rate = float(np.float32(0.01))
    model = convert(SmallResidual(CLASSES), SHAPE)
    bound = bind(model, bits, rate, device)
    definition = ReferenceResidual()
    expected = split(model, bound.weights)
    for seed in range(2):
        images, labels = make_batch(seed)
        bound.update(torch.from_numpy(images).to(device), torch.tensor(labels, device=device))
        expected = definition.update(expected, images, labels, rate, bits)
        for name, value in split(model, bound.weights).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{name}, step {seed}")


@pytest.mark.parametrize("bits", [8, 16])
def test_evaluation_of_a_residual_module_is_the_definition(bits: int) -> None:
    model = convert(SmallResidual(CLASSES), SHAPE)
    bound = bind(model, (16, 8), 0.01)
    for seed in range(2):
        images, labels = make_batch(seed)
        bound.update(torch.from_numpy(images), torch.tensor(labels))
    images = np.concatenate([make_batch(seed)[0] * np.float32(2.0**-seed) for seed in range(3)])
    given = images.copy()
    logits, is_valid = model.evaluate(bound.weights, torch.from_numpy(given), bits)
    expected = ReferenceResidual().evaluate(split(model, bound.weights), images, bits)
    np.testing.assert_array_equal(logits.numpy(), expected)
    assert is_valid.all()
    np.testing.assert_array_equal(given, images, err_msg="the caller's images were changed")
