"""Every layer's forward and backward pass against integers, at the shapes that go wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pol_abci.learning.exact.convolution import Conv2d
from pol_abci.learning.exact.layer import Evaluation
from pol_abci.learning.exact.layers import BatchNorm, Linear, ReLU
from tests.unit.learning import integer_reference as reference
from tests.unit.learning.bind_layer import CPU, bind, make

pytestmark = pytest.mark.usefixtures("_each_contraction")


def make_convolution(
    shape: tuple[int, int, int], filters: int, kernel: int, stride: int, padding: int
) -> Conv2d:
    return Conv2d("conv", shape, filters, (kernel, kernel), (stride, stride), (padding, padding))


CONVOLUTIONS = {
    # name: batch, height, width, channels, filters, kernel, stride, padding
    "stride 1": (2, 5, 5, 3, 4, 3, 1, 1),
    "stride 2, even": (2, 6, 6, 3, 4, 3, 2, 1),
    "stride 2, odd": (2, 7, 7, 3, 4, 3, 2, 1),
    "not square": (2, 5, 8, 2, 3, 3, 2, 1),
    "one channel, one image": (1, 4, 4, 1, 2, 3, 1, 1),
    "1x1 input: one live tap of nine": (4, 1, 1, 5, 3, 3, 1, 1),
    "2x2 input at stride 2: four live taps": (3, 2, 2, 9, 3, 3, 2, 1),
    "1x1 kernel at stride 2": (2, 4, 4, 3, 5, 1, 2, 0),
    "7x7 kernel": (1, 8, 8, 3, 4, 7, 2, 3),
    "wide input": (2, 3, 3, 10, 12, 3, 1, 1),
}


@pytest.mark.parametrize("bits", [(16, 8), (8, 8), (20, 20)])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_is_the_definition(case: str, bits: tuple[int, int]) -> None:
    batch, height, width, channels, filters, kernel, stride, padding = CONVOLUTIONS[case]
    layer = make_convolution((height, width, channels), filters, kernel, stride, padding)
    definition = reference.ReferenceConv(height, width, kernel, stride, padding)
    assert layer.products == len(definition.taps) * channels
    weights = make(layer.products, filters, seed=1)
    bound, gradients = bind(layer, {"conv.weight": weights}, batch, bits)
    for seed in (2, 3):  # twice: buffers are used again
        inputs = make(batch, height, width, channels, seed=seed)
        gradient = make(batch, *layer.output_shape, seed=seed + 10, scale=1e-3)
        outputs = bound.forward(torch.from_numpy(inputs.copy()))
        np.testing.assert_array_equal(outputs.numpy(), definition.forward(inputs, weights, bits[0]))
        to_inputs = bound.backward(torch.from_numpy(gradient.copy()))
        expected = definition.backward(inputs, weights, gradient, bits[1])
        np.testing.assert_array_equal(gradients["conv.weight"].numpy(), expected[0])
        np.testing.assert_array_equal(to_inputs.numpy(), expected[1])


@pytest.mark.parametrize("value", [127 / 128, 2.0**60 * 127 / 128])
def test_convolution_of_saturated_operands_is_exact(value: float) -> None:
    # 1,152 products of 127 * 127 pass 2^24; five images of 64 rows of 2^120 pass float32's range
    # before three others bring the sum back into it.
    batch, side, channels, filters = 8, 8, 128, 2
    layer = make_convolution((side, side, channels), filters, 3, 1, 1)
    inputs = np.full((batch, side, side, channels), value, dtype=np.float32)
    inputs[5:] *= -1
    weights = np.full((layer.products, filters), value, dtype=np.float32)
    gradient = np.full((batch, side, side, filters), value, dtype=np.float32)
    bound, gradients = bind(layer, {"conv.weight": weights}, batch, (8, 8))
    outputs = bound.forward(torch.from_numpy(inputs.copy())).numpy()
    to_inputs = bound.backward(torch.from_numpy(gradient.copy())).numpy()
    definition = reference.ReferenceConv(side, side, 3, 1, 1)
    # All channels and filters are alike: the reference needs one of each, times their number.
    seen = np.zeros((side, side), dtype=int)
    spread = np.zeros((side, side), dtype=int)
    for _, oy, ox, iy, ix in definition.visit():
        seen[oy, ox] += 1
        spread[iy, ix] += 1
    signs = np.sign(inputs[:, 0, 0, 0]).astype(int)
    integer, unit = reference.quantise(np.array([value], dtype=np.float32), 8)
    square, squared_unit = int(integer[0]) ** 2, unit * unit

    def to_float(count: int) -> np.float32:
        return reference.round_to_float32(count * square * squared_unit)

    for image in range(batch):
        for y in range(side):
            for x in range(side):
                expected = to_float(int(signs[image]) * int(seen[y, x]) * channels)
                assert (outputs[image, y, x] == expected).all()
                assert (to_inputs[image, y, x] == to_float(int(spread[y, x]) * filters)).all()
    tap_counts = [0] * len(definition.taps)
    for tap, *_ in definition.visit():
        tap_counts[tap] += 1
    to_weights = gradients["conv.weight"].numpy().reshape(len(definition.taps), channels, filters)
    for tap, count in enumerate(tap_counts):
        assert (to_weights[tap] == to_float(count * int(signs.sum()))).all()


def test_gradients_of_inputs_are_exact_where_taps_add_up_beyond_float32() -> None:
    layer = make_convolution((9, 9, 1), 40, 7, 1, 3)
    random = np.random.default_rng(7)
    weights, inputs, gradient = (
        random.uniform(0.9, 0.99, shape).astype(np.float32)
        for shape in ((49, 40), (1, 9, 9, 1), (1, 9, 9, 40))
    )
    bound, _ = bind(layer, {"conv.weight": weights}, 1, (8, 8))
    bound.forward(torch.from_numpy(inputs.copy()))
    to_inputs = bound.backward(torch.from_numpy(gradient.copy()))
    definition = reference.ReferenceConv(9, 9, 7, 1, 3)
    _, expected = definition.backward(inputs, weights, gradient, 8)
    np.testing.assert_array_equal(to_inputs.numpy(), expected)


def test_cancelling_products_beyond_float32_leave_the_exact_rest() -> None:
    layer = Linear("fc", (1024,), 2)
    value = 2.0**60 * 127 / 128
    weights = np.full((1024, 2), value, dtype=np.float32)
    inputs = np.full((2, 1024), value, dtype=np.float32)
    inputs[:, 512:] *= -1
    inputs[1, 0] = 0.0
    bound, _ = bind(layer, {"fc.weight": weights, "fc.bias": make(2, seed=1)}, 2, (8, 8))
    outputs = bound.forward(torch.from_numpy(inputs)).numpy()
    assert np.isfinite(outputs[0]).all()
    assert (outputs[1] == -(value**2)).all()
    evaluation = Evaluation(
        {"fc.weight": torch.from_numpy(weights), "fc.bias": torch.zeros(2)}, 8, CPU
    )
    evaluation.begin(len(inputs))
    evaluated = layer.evaluate(torch.from_numpy(inputs), evaluation)
    assert evaluated.tolist() == [[0.0, 0.0], [-(value**2)] * 2]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((5, 3), (2, 1), (2, 1)), ((1, 4), (1, 3), (0, 0)), ((2, 2), (3, 3), (0, 1))],
)
@pytest.mark.parametrize("bits", [(16, 8), (8, 8)])
def test_convolution_of_any_window_with_a_bias_is_the_definition(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    bits: tuple[int, int],
) -> None:
    layer = Conv2d("conv", (7, 6, 3), 4, kernel, stride, padding, has_bias=True)
    definition = reference.ReferenceConv(7, 6, kernel, stride, padding)
    weights, bias = make(layer.products, 4, seed=1), make(4, seed=2)
    bound, gradients = bind(layer, {"conv.weight": weights, "conv.bias": bias}, 2, bits)
    inputs, gradient = make(2, 7, 6, 3, seed=3), make(2, *layer.output_shape, seed=4)
    outputs = bound.forward(torch.from_numpy(inputs.copy())).numpy()
    np.testing.assert_array_equal(outputs, definition.forward(inputs, weights, bits[0]) + bias)
    to_inputs = bound.backward(torch.from_numpy(gradient.copy())).numpy()
    to_weights, expected = definition.backward(inputs, weights, gradient, bits[1])
    np.testing.assert_array_equal(to_inputs, expected)
    np.testing.assert_array_equal(gradients["conv.weight"].numpy(), to_weights)
    quantised = reference.to_floats(*reference.quantise(gradient, bits[1])).reshape(-1, 4)
    np.testing.assert_array_equal(gradients["conv.bias"].numpy(), reference.sum_tree(quantised))


def test_a_first_convolution_gives_its_weights_gradient() -> None:
    layer = make_convolution((6, 6, 1), 3, 3, 1, 1)
    weights, inputs = make(9, 3, seed=1), make(2, 6, 6, 1, seed=2)
    gradient = make(2, 6, 6, 3, seed=3)
    bound, gradients = bind(layer, {"conv.weight": weights}, 2, is_first=True)
    bound.forward(torch.from_numpy(inputs.copy()))
    bound.backward(torch.from_numpy(gradient.copy()))
    definition = reference.ReferenceConv(6, 6, 3, 1, 1)
    expected, _ = definition.backward(inputs, weights, gradient, 8)
    np.testing.assert_array_equal(gradients["conv.weight"].numpy(), expected)


@pytest.mark.parametrize("bits", [(16, 8), (8, 8), (20, 20)])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_linear_is_the_definition(batch: int, bits: tuple[int, int]) -> None:
    layer = Linear("fc", (33,), 7)
    weights = {"fc.weight": make(33, 7, seed=1), "fc.bias": make(7, seed=2)}
    inputs, gradient = make(batch, 33, seed=3), make(batch, 7, seed=4, scale=0.1)
    bound, gradients = bind(layer, weights, batch, bits)
    outputs = bound.forward(torch.from_numpy(inputs.copy()))
    expected = reference.contract(inputs, weights["fc.weight"], bits[0]) + weights["fc.bias"]
    np.testing.assert_array_equal(outputs.numpy(), expected)
    to_inputs = bound.backward(torch.from_numpy(gradient.copy()))
    np.testing.assert_array_equal(
        to_inputs.numpy(),
        reference.contract(gradient, np.ascontiguousarray(weights["fc.weight"].T), bits[1]),
    )
    np.testing.assert_array_equal(
        gradients["fc.weight"].numpy(),
        reference.contract(np.ascontiguousarray(inputs.T), gradient, bits[1]),
    )
    np.testing.assert_array_equal(
        gradients["fc.bias"].numpy(),
        reference.sum_tree(reference.to_floats(*reference.quantise(gradient, bits[1]))),
    )


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (3, 2, 2, 4), (5, 3, 3, 2), (16, 4, 4, 8)])
@pytest.mark.parametrize("scale", [1.0, 1e-22, 1e4])
def test_batch_norm_is_the_definition(shape: tuple[int, ...], scale: float) -> None:
    channels = shape[3]
    layer = BatchNorm("bn", shape[1:])
    weights = {
        "bn.weight": make(channels, seed=1),
        "bn.bias": make(channels, seed=2),
        "bn.running_mean": make(channels, seed=3),
        "bn.running_var": np.abs(make(channels, seed=4)),
    }
    inputs, gradient = make(*shape, seed=5, scale=scale), make(*shape, seed=6)
    bound, gradients = bind(layer, weights, shape[0])
    norm = reference.ReferenceNorm(weights["bn.weight"], weights["bn.bias"])
    outputs = bound.forward(torch.from_numpy(inputs.copy())).numpy()
    np.testing.assert_array_equal(
        outputs.reshape(-1, channels), norm.forward(inputs.reshape(-1, channels))
    )
    to_inputs = bound.backward(torch.from_numpy(gradient.copy())).numpy()
    expected, of_gamma, of_beta = norm.backward(gradient.reshape(-1, channels))
    np.testing.assert_array_equal(to_inputs.reshape(-1, channels), expected)
    np.testing.assert_array_equal(gradients["bn.weight"].numpy(), of_gamma)
    np.testing.assert_array_equal(gradients["bn.bias"].numpy(), of_beta)
    mean, variance = norm.update_running(weights["bn.running_mean"], weights["bn.running_var"])
    for name, value in (("bn.running_mean", mean), ("bn.running_var", variance)):
        updated = weights[name] - np.float32(0.1) * gradients[name].numpy()
        np.testing.assert_array_equal(updated, value)


def test_relu_passes_where_its_output_is_above_zero() -> None:
    bound, _ = bind(ReLU((4,)), {}, 1)
    outputs = bound.forward(torch.tensor([[-1.0, 0.0, -0.0, 2.0]]))
    assert outputs.tolist() == [[0.0, 0.0, 0.0, 2.0]]
    # Even an infinite gradient is stopped, where a product with a mask would make it no number.
    gradient = bound.backward(torch.tensor([[float("inf"), 3.0, 4.0, 5.0]]))
    assert gradient.tolist() == [[0.0, 0.0, 0.0, 5.0]]


def test_taps_in_two_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="one piece"):
        _ = make_convolution((1, 1, 1), 1, 3, 2, 2).window
