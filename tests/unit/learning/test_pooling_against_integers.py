"""Pooling layers, forward and backward, against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pol_abci.learning.exact.layer import Evaluation
from pol_abci.learning.exact.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from tests.unit.learning import integer_reference as reference
from tests.unit.learning.bind_layer import CPU, bind, make

POOLS: dict[
    str, tuple[tuple[int, int, int, int], reference.Sides, reference.Sides, reference.Sides]
] = {
    # name: (batch, height, width, channels), kernel, stride, padding
    "torchvision's": ((2, 8, 8, 5), 3, 2, 1),
    "odd sides": ((2, 7, 5, 3), 3, 2, 1),
    "windows side by side": ((1, 6, 6, 2), 2, 2, 0),
    "gaps between windows": ((2, 7, 7, 2), 2, 3, 0),
    "every window overlaps": ((1, 5, 6, 3), 3, 1, 1),
    "not square": ((2, 6, 5, 2), (3, 2), (2, 1), (1, 0)),
    "one pixel": ((3, 1, 1, 4), 3, 2, 1),
}


def make_with_ties(shape: tuple[int, ...], seed: int) -> reference.Floats:
    """Few different values, most below zero: padding must not win, and the first of equals must."""
    return np.random.default_rng(seed).integers(-6, 2, shape).astype(np.float32)


@pytest.mark.parametrize("case", POOLS)
def test_max_pooling_is_the_definition(case: str) -> None:
    shape, *window = POOLS[case]
    layer = MaxPool2d(shape[1:], *(reference.get_pair(sides) for sides in window))
    windows = reference.ReferenceConv(*shape[1:3], *window)
    bound, _ = bind(layer, {}, shape[0])
    for seed in (1, 2):  # twice: buffers are used again
        inputs = make_with_ties(shape, seed)
        outputs = bound.forward(torch.from_numpy(inputs.copy()))
        expected, winners = reference.take_maximum(windows, inputs)
        np.testing.assert_array_equal(outputs.numpy(), expected)
        gradient = make(*outputs.shape, seed=seed)
        to_inputs = bound.backward(torch.from_numpy(gradient.copy()))
        np.testing.assert_array_equal(
            to_inputs.numpy(), reference.give_to_maximum(windows, winners, gradient, shape)
        )
        evaluated = layer.evaluate(torch.from_numpy(inputs), Evaluation({}, 8, CPU))
        np.testing.assert_array_equal(evaluated.numpy(), expected)


def test_max_pooling_gives_an_infinite_gradient_to_the_winner_alone() -> None:
    bound, _ = bind(MaxPool2d((1, 3, 1), (1, 2), (1, 1), (0, 0)), {}, 1)
    bound.forward(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1))
    gradient = bound.backward(torch.tensor([1.0, float("inf")]).view(1, 1, 2, 1))
    assert gradient.flatten().tolist() == [0.0, 1.0, float("inf")]


def test_no_number_wins_a_maximum() -> None:
    bound, _ = bind(MaxPool2d((1, 3, 1), (1, 3), (1, 1), (0, 0)), {}, 1)
    outputs = bound.forward(torch.tensor([1.0, float("nan"), 3.0]).view(1, 1, 3, 1))
    assert outputs.isnan().all()


@pytest.mark.parametrize("case", [name for name, pool in POOLS.items() if pool[3] == 0])
def test_average_pooling_is_the_definition(case: str) -> None:
    shape, kernel, stride, _ = POOLS[case]
    check_average(shape, kernel, stride)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), ((2, 3), (1, 2)), (5, 1)])
def test_average_pooling_of_overlapping_windows_is_the_definition(
    kernel: reference.Sides, stride: reference.Sides
) -> None:
    check_average((2, 7, 6, 3), kernel, stride)


def check_average(
    shape: tuple[int, int, int, int], kernel: reference.Sides, stride: reference.Sides
) -> None:
    layer = AvgPool2d(shape[1:], reference.get_pair(kernel), reference.get_pair(stride))
    windows = reference.ReferenceConv(*shape[1:3], kernel, stride, 0)
    bound, _ = bind(layer, {}, shape[0])
    for seed in (1, 2):
        inputs = make(*shape, seed=seed)
        outputs = bound.forward(torch.from_numpy(inputs.copy()))
        expected = reference.take_mean(windows, inputs)
        np.testing.assert_array_equal(outputs.numpy(), expected)
        gradient = make(*outputs.shape, seed=seed + 5)
        to_inputs = bound.backward(torch.from_numpy(gradient.copy()))
        np.testing.assert_array_equal(
            to_inputs.numpy(), reference.spread_mean(windows, gradient, shape)
        )
        evaluated = layer.evaluate(torch.from_numpy(inputs), Evaluation({}, 8, CPU))
        np.testing.assert_array_equal(evaluated.numpy(), expected)


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (1, 3, 3, 2), (3, 4, 4, 5), (2, 5, 2, 1)])
def test_global_average_pooling_is_the_definition(shape: tuple[int, int, int, int]) -> None:
    batch, height, width, channels = shape
    layer = GlobalAvgPool2d(shape[1:])
    bound, _ = bind(layer, {}, batch)
    inputs, gradient = make(*shape, seed=1), make(batch, 1, 1, channels, seed=2)
    count = np.float32(height * width)
    outputs = bound.forward(torch.from_numpy(inputs.copy()))
    pixels = inputs.reshape(batch, -1, channels).transpose(1, 0, 2)
    expected = (reference.sum_tree(pixels) / count).reshape(batch, 1, 1, channels)
    np.testing.assert_array_equal(outputs.numpy(), expected)
    to_inputs = bound.backward(torch.from_numpy(gradient.copy()))
    np.testing.assert_array_equal(to_inputs.numpy(), np.broadcast_to(gradient / count, shape))
    evaluated = layer.evaluate(torch.from_numpy(inputs), Evaluation({}, 8, CPU))
    np.testing.assert_array_equal(evaluated.numpy(), expected)
