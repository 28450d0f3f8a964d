"""Protocol section 3 a second time, from its definition alone: Python integers and fractions.

Nothing here is quick and nothing comes from the package. Contractions are sums of products of
integers; whatever the protocol does in float32 or float64 is one numpy or Python operation at a
time. Arrays are numpy's, images NHWC.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]  # float32; numpy's types lose that in arithmetic
Integers = NDArray[Any]  # Python integers, dtype object

EPSILON = np.float32(1e-5)
MOMENTUM = np.float32(0.1)


def round_to_float32(value: Fraction) -> np.float32:
    """The nearest float32 of an exact value by looking at the neighbours of a guess."""
    if abs(value) >= 2**128 - 2**103:
        return np.float32(math.copysign(math.inf, value))
    with np.errstate(over="ignore"):
        guess = np.float32(float(value))
    neighbours = [
        candidate
        for candidate in (
            np.nextafter(guess, np.float32(-np.inf)),
            guess,
            np.nextafter(guess, np.float32(np.inf)),
        )
        if np.isfinite(candidate)
    ]
    return min(
        neighbours,
        key=lambda c: (abs(Fraction(float(c)) - value), int(c.view(np.uint32)) & 1),
    )


def quantise(values: Floats, bits: int) -> tuple[Integers, Fraction]:
    """Q_bits as integers and their unit."""
    flat = [Fraction(float(value)) for value in values.ravel()]
    magnitude = max(abs(value) for value in flat)
    if magnitude < Fraction(1, 2**40):
        return np.zeros(values.shape, dtype=object), Fraction(1)
    stretched = magnitude * (1 + Fraction(2) ** (1 - bits))
    exponent = 0  # 2^(exponent-1) <= stretched < 2^exponent
    while stretched >= Fraction(2) ** exponent:
        exponent += 1
    while stretched < Fraction(2) ** (exponent - 1):
        exponent -= 1
    unit = Fraction(2) ** (exponent - bits + 1)
    integers = np.empty(len(flat), dtype=object)
    integers[:] = [round(value / unit) for value in flat]
    assert max(abs(integer) for integer in integers) < 2 ** (bits - 1)
    return integers.reshape(values.shape), unit


def to_floats(integers: Integers, unit: Fraction) -> Floats:
    """RN32(integer * unit), element by element."""
    rounded = [round_to_float32(Fraction(int(integer)) * unit) for integer in integers.ravel()]
    return np.array(rounded, dtype=np.float32).reshape(integers.shape)


def find_live_taps(size: int, kernel: int, stride: int, padding: int) -> list[int]:
    outputs = (size + 2 * padding - kernel) // stride + 1
    return [
        tap
        for tap in range(kernel)
        if any(0 <= out * stride - padding + tap < size for out in range(outputs))
    ]


Sides = int | tuple[int, int]
"""Vertical and horizontal, or one number for both."""


def get_pair(sides: Sides) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else sides


class ReferenceConv:
    """A convolution of one geometry; `visit` names every product that exists."""

    def __init__(
        self, height: int, width: int, kernel: Sides, stride: Sides, padding: Sides
    ) -> None:
        (k1, k2), (s1, s2), (p1, p2) = (get_pair(sides) for sides in (kernel, stride, padding))
        self.stride, self.padding = (s1, s2), (p1, p2)
        self.height, self.width = height, width
        self.out_height = (height + 2 * p1 - k1) // s1 + 1
        self.out_width = (width + 2 * p2 - k2) // s2 + 1
        self.taps = [
            (i, j)
            for i in find_live_taps(height, k1, s1, p1)
            for j in find_live_taps(width, k2, s2, p2)
        ]

    def visit(self) -> list[tuple[int, int, int, int, int]]:
        """(tap's number, output y, output x, input y, input x)."""
        visits = []
        for number, (i, j) in enumerate(self.taps):
            for oy in range(self.out_height):
                for ox in range(self.out_width):
                    y = oy * self.stride[0] - self.padding[0] + i
                    x = ox * self.stride[1] - self.padding[1] + j
                    if 0 <= y < self.height and 0 <= x < self.width:
                        visits.append((number, oy, ox, y, x))
        return visits

    def forward(self, inputs: Floats, weights: Floats, bits: int) -> Floats:
        """[N, H, W, C] and [taps * C, O] to [N, H', W', O]; one scale for all images."""
        x, x_unit = quantise(inputs, bits)
        w, w_unit = quantise(weights, bits)
        channels = inputs.shape[3]
        w = w.reshape(len(self.taps), channels, -1)
        shape = (len(inputs), self.out_height, self.out_width, w.shape[2])
        sums = np.zeros(shape, dtype=object)
        for tap, oy, ox, iy, ix in self.visit():
            sums[:, oy, ox] += x[:, iy, ix] @ w[tap]
        return to_floats(sums, x_unit * w_unit)

    def backward(
        self, inputs: Floats, weights: Floats, gradient: Floats, bits: int
    ) -> tuple[Floats, Floats]:
        """Gradients of the weights and of the inputs."""
        x, x_unit = quantise(inputs, bits)
        w, w_unit = quantise(weights, bits)
        g, g_unit = quantise(gradient, bits)
        w = w.reshape(len(self.taps), inputs.shape[3], -1)
        to_weights = np.zeros(w.shape, dtype=object)
        to_inputs = np.zeros(inputs.shape, dtype=object)
        for tap, oy, ox, iy, ix in self.visit():
            to_weights[tap] += x[:, iy, ix].T @ g[:, oy, ox]
            to_inputs[:, iy, ix] += g[:, oy, ox] @ w[tap].T
        return (
            to_floats(to_weights, x_unit * g_unit).reshape(weights.shape),
            to_floats(to_inputs, g_unit * w_unit),
        )


def take_maximum(windows: ReferenceConv, inputs: Floats) -> tuple[Floats, Integers]:
    """Max pooling: [N, H', W', C], and for each the number of the first tap that has it."""
    shape = (len(inputs), windows.out_height, windows.out_width, inputs.shape[3])
    outputs, winners = np.zeros(shape, dtype=np.float32), np.full(shape, -1)
    for tap, oy, ox, iy, ix in windows.visit():  # taps in row-major order
        is_new = (winners[:, oy, ox] < 0) | (inputs[:, iy, ix] > outputs[:, oy, ox])
        outputs[:, oy, ox][is_new] = inputs[:, iy, ix][is_new]
        winners[:, oy, ox][is_new] = tap
    return outputs, winners


def give_to_maximum(
    windows: ReferenceConv, winners: Integers, gradient: Floats, shape: tuple[int, ...]
) -> Floats:
    """The gradient of max pooling's inputs; those of one input are added in the order of taps."""
    result = np.zeros(shape, dtype=np.float32)
    for tap, oy, ox, iy, ix in windows.visit():
        is_winner = winners[:, oy, ox] == tap
        added = result[:, iy, ix] + gradient[:, oy, ox]
        result[:, iy, ix] = np.where(is_winner, added, result[:, iy, ix])
    return result


def take_mean(windows: ReferenceConv, inputs: Floats) -> Floats:
    """Average pooling without padding: the halving tree over taps."""
    seen: dict[tuple[int, int], list[Floats]] = {}
    for _, oy, ox, iy, ix in windows.visit():
        seen.setdefault((oy, ox), []).append(inputs[:, iy, ix])
    shape = (len(inputs), windows.out_height, windows.out_width, inputs.shape[3])
    outputs = np.zeros(shape, dtype=np.float32)
    for (oy, ox), rows in seen.items():
        outputs[:, oy, ox] = sum_tree(np.stack(rows)) / np.float32(len(rows))
    return outputs


def spread_mean(windows: ReferenceConv, gradient: Floats, shape: tuple[int, ...]) -> Floats:
    """The gradient of average pooling's inputs, added in the order of taps."""
    share = gradient / np.float32(len(windows.taps))
    result = np.zeros(shape, dtype=np.float32)
    for _, oy, ox, iy, ix in windows.visit():
        result[:, iy, ix] += share[:, oy, ox]
    return result


def contract(left: Floats, right: Floats, bits: int) -> Floats:
    """RN32 of the exact product of quantised matrices."""
    a, a_unit = quantise(left, bits)
    b, b_unit = quantise(right, bits)
    return to_floats(a @ b, a_unit * b_unit)


def sum_tree(rows: NDArray[Any]) -> NDArray[Any]:
    """The halving tree, one addition of rows at a time."""
    values = list(rows)
    while len(values) > 1:
        half = 1
        while 2 * half < len(values):
            half *= 2
        for index in range(half, len(values)):
            values[index - half] = values[index - half] + values[index]
        values = values[:half]
    return values[0]  # type: ignore[no-any-return]  # a row of an array


class ReferenceNorm:
    """BatchNorm over rows [R, C]; every line is one float32 operation an element."""

    def __init__(self, gamma: Floats, beta: Floats) -> None:
        self.gamma, self.beta = gamma, beta

    def forward(self, y: Floats) -> Floats:
        count = np.float32(len(y))
        self.mean = sum_tree(y) / count
        self.d = y - self.mean
        self.squares = sum_tree(self.d * self.d)
        self.inverse = np.float32(1) / np.sqrt(self.squares / count + EPSILON)
        return self.d * (self.inverse * self.gamma) + self.beta

    def update_running(self, mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
        new = self.squares / np.float32(len(self.d) - 1)
        return (
            mean + MOMENTUM * (self.mean - mean),
            variance + MOMENTUM * (new - variance),
        )

    def backward(self, g: Floats) -> tuple[Floats, Floats, Floats]:
        """Gradients of the inputs, gamma and beta."""
        count = np.float32(len(g))
        of_beta = sum_tree(g)
        of_gamma = sum_tree(g * self.d) * self.inverse
        inside = (g - of_beta / count) - self.d * (of_gamma * self.inverse / count)
        return inside * (self.inverse * self.gamma), of_gamma, of_beta


def compute_exp(x: float) -> float:
    k = float(round(x * 1.4426950408889634))
    r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    result = 1.0 / math.factorial(13)
    for i in range(12, -1, -1):
        result = result * r
        result = result + 1.0 / math.factorial(i)
    return math.ldexp(result, int(k))


def compute_softmax_gradient(logits: Floats, labels: list[int]) -> Floats:
    rows = []
    for row, label in zip(logits, labels, strict=True):
        values = [float(value) for value in row]
        powers = [compute_exp(max(value - max(values), -700.0)) for value in values]
        total = float(sum_tree(np.array(powers)))
        rows.append(
            [
                np.float32((power / total - (1.0 if index == label else 0.0)) / len(logits))
                for index, power in enumerate(powers)
            ]
        )
    return np.array(rows, dtype=np.float32)


class ReferenceCnn:
    """One whole step of the small convolutional model, on a dictionary of weights."""

    STRIDES = (1, 2, 2)

    def __init__(self, height: int, width: int) -> None:
        self.convs = []
        for stride in self.STRIDES:
            conv = ReferenceConv(height, width, 3, stride, 1)
            self.convs.append(conv)
            height, width = conv.out_height, conv.out_width

    def update(
        self,
        weights: dict[str, Floats],
        images: Floats,
        labels: list[int],
        rate: float,
        bits: tuple[int, int],
    ) -> dict[str, Floats]:
        forward_bits, backward_bits = bits
        new = {}
        tape = []
        x = images
        for number, conv in enumerate(self.convs, start=1):
            y = conv.forward(x, weights[f"conv{number}.weight"], forward_bits)
            norm = ReferenceNorm(weights[f"bn{number}.weight"], weights[f"bn{number}.bias"])
            out = norm.forward(y.reshape(-1, y.shape[3])).reshape(y.shape)
            new[f"bn{number}.running_mean"], new[f"bn{number}.running_var"] = norm.update_running(
                weights[f"bn{number}.running_mean"], weights[f"bn{number}.running_var"]
            )
            out = np.maximum(out, np.float32(0))
            tape.append((number, conv, x, norm, out))
            x = out
        flat = x.reshape(len(x), -1)
        logits = contract(flat, weights["fc.weight"], forward_bits) + weights["fc.bias"]
        g = compute_softmax_gradient(logits, labels)
        gradients = {
            "fc.weight": contract(np.ascontiguousarray(flat.T), g, backward_bits),
            "fc.bias": sum_tree(to_floats(*quantise(g, backward_bits))),
        }
        g = contract(g, np.ascontiguousarray(weights["fc.weight"].T), backward_bits)
        g = g.reshape(x.shape)
        for number, conv, inputs, norm, out in reversed(tape):
            g = np.where(out > 0, g, np.float32(0))
            rows, of_gamma, of_beta = norm.backward(g.reshape(-1, g.shape[3]))
            gradients[f"bn{number}.weight"], gradients[f"bn{number}.bias"] = of_gamma, of_beta
            gradients[f"conv{number}.weight"], g = conv.backward(
                inputs, weights[f"conv{number}.weight"], rows.reshape(g.shape), backward_bits
            )
        for name, gradient in gradients.items():
            new[name] = weights[name] - np.float32(rate) * gradient
        return new

    def evaluate(self, weights: dict[str, Floats], images: Floats, bits: int) -> Floats:
        """Logits, one image at a time."""
        logits = []
        for image in images:
            x = image[None]
            for number, conv in enumerate(self.convs, start=1):
                name = f"bn{number}"
                y = conv.forward(x, weights[f"conv{number}.weight"], bits)
                d = y - weights[f"{name}.running_mean"]
                inverse = np.float32(1) / np.sqrt(weights[f"{name}.running_var"] + EPSILON)
                out = d * (inverse * weights[f"{name}.weight"]) + weights[f"{name}.bias"]
                x = np.maximum(out, np.float32(0))
            row = contract(x.reshape(1, -1), weights["fc.weight"], bits) + weights["fc.bias"]
            logits.append(row[0])
        return np.array(logits)
