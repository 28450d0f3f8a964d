"""Convolutions without a bias, as im2col and exact matrix products; protocol section 3.

Weights are [taps * C, O], taps in row-major order; taps that never see data do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from pol_abci.learning.arithmetic import Contraction, compute_magnitude, quantise
from pol_abci.learning.layer import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.layer import Binding, BoundLayer, Evaluation, Shape

# Narrower inputs make im2col copy runs of a few numbers; with columns first the runs are rows.
_MIN_CHANNELS_OF_ROW_MAJOR_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a convolution: which taps ever see data, and the padding that they need."""

    size: int
    kernel: int
    stride: int
    padding: int
    output: int = field(init=False)
    taps: int = field(init=False)
    padded: int = field(init=False)
    """Size with the padding that live taps reach."""
    before: int = field(init=False)
    """Of that padding, what comes before the data."""
    start: int = field(init=False)
    """Position in the padded axis that the first live tap of output 0 sees."""

    def __post_init__(self) -> None:
        output = (self.size + 2 * self.padding - self.kernel) // self.stride + 1
        live = [
            tap
            for tap in range(self.kernel)
            if any(0 <= o * self.stride - self.padding + tap < self.size for o in range(output))
        ]
        if not live or live[-1] - live[0] + 1 != len(live):
            raise ValueError(
                f"a kernel of {self.kernel} at stride {self.stride}, padding {self.padding} over "
                f"{self.size} inputs: its live taps are not in one piece"
            )
        offset = live[0] - self.padding
        before = max(0, -offset)
        after = max(0, (output - 1) * self.stride + offset + len(live) - self.size)
        for name, value in (
            ("output", output),
            ("taps", len(live)),
            ("padded", before + self.size + after),
            ("before", before),
            ("start", offset + before),
        ):
            object.__setattr__(self, name, value)

    @property
    def inside(self) -> slice:
        """Where the data lies in the padded axis."""
        return slice(self.before, self.before + self.size)

    def seen_by(self, tap: int) -> slice:
        """Positions of the padded axis that a live tap sees, one an output."""
        first = self.start + tap
        return slice(first, first + (self.output - 1) * self.stride + 1, self.stride)


@dataclass(frozen=True, slots=True)
class Conv2d:
    """A convolution without bias; its taps that never see data do not exist."""

    name: str
    input_shape: Shape
    filters: int
    kernel: int
    stride: int
    padding: int

    @property
    def rows(self) -> Axis:
        """The vertical axis."""
        return Axis(self.input_shape[0], self.kernel, self.stride, self.padding)

    @property
    def columns(self) -> Axis:
        """The horizontal axis."""
        return Axis(self.input_shape[1], self.kernel, self.stride, self.padding)

    @property
    def products(self) -> int:
        """Products to each output value: live taps times channels."""
        return self.rows.taps * self.columns.taps * self.input_shape[2]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The weight [products, filters]."""
        return (TensorSpec(f"{self.name}.weight", (self.products, self.filters), True),)

    @property
    def output_shape(self) -> Shape:
        """(H, W, filters)."""
        return (self.rows.output, self.columns.output, self.filters)

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        return _BoundConv2d(self, binding, is_first=is_first)

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """[N, H, W, C] to [N, H', W', filters]."""
        quantised, exponent = evaluation.quantise(inputs)
        im2col = Im2col(self, inputs.shape[0], evaluation.contraction.dtype, inputs.device)
        im2col.inside.copy_(quantised)
        outputs = evaluation.contract(im2col.fill(), exponent, f"{self.name}.weight")
        return outputs.view(inputs.shape[0], *self.output_shape)


class Im2col:
    """Padded inputs of a convolution, and the matrix [R, K] of what each output sees."""

    def __init__(
        self, layer: Conv2d, batch_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        rows, columns, channels = layer.rows, layer.columns, layer.input_shape[2]
        padded = torch.zeros(batch_size, rows.padded, columns.padded, channels, device=device)
        self.inside = padded[:, rows.inside, columns.inside]
        image, row, column, channel = padded.stride()
        windows = padded.as_strided(
            (batch_size, rows.output, columns.output, rows.taps, columns.taps, channels),
            (image, row * layer.stride, column * layer.stride, row, column, channel),
            rows.start * row + columns.start * column,
        )
        outputs = batch_size * rows.output * columns.output
        if channels < _MIN_CHANNELS_OF_ROW_MAJOR_COLUMNS:
            windows = windows.permute(3, 4, 5, 0, 1, 2)
            columns_first = torch.empty(windows.shape, dtype=dtype, device=device)
            self._target = columns_first
            self._matrix = columns_first.view(layer.products, outputs).t()
        else:
            self._target = torch.empty(windows.shape, dtype=dtype, device=device)
            self._matrix = self._target.view(outputs, layer.products)
        self._windows = windows

    def fill(self) -> Tensor:
        """The matrix [R, K] of the inputs that lie in `inside` now."""
        self._target.copy_(self._windows)
        return self._matrix


class Col2im:
    """The sum of gradients [R, K] of what each output saw, at the inputs that it saw.

    Two passes of one axis each. All terms are multiples of one unit and their sums are exact in
    `dtype`, so that the order does not matter.
    """

    def __init__(
        self, layer: Conv2d, batch_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        rows, columns, channels = layer.rows, layer.columns, layer.input_shape[2]
        lines = batch_size * rows.output
        self.matrix = torch.empty(
            lines * columns.output, layer.products, dtype=dtype, device=device
        )
        taps = self.matrix.view(lines, columns.output, rows.taps, columns.taps, channels)
        self._wide = torch.zeros(
            lines, columns.padded, rows.taps, channels, dtype=dtype, device=device
        )
        self._across = [
            (self._wide[:, columns.seen_by(tap)], taps[:, :, :, tap]) for tap in range(columns.taps)
        ]
        wide = self._wide.view(batch_size, rows.output, columns.padded, rows.taps, channels)
        self._images = torch.zeros(
            batch_size, rows.padded, columns.padded, channels, dtype=dtype, device=device
        )
        self._down = [
            (self._images[:, rows.seen_by(tap)], wide[:, :, :, tap]) for tap in range(rows.taps)
        ]
        self._inside = self._images[:, rows.inside, columns.inside]
        self._result = torch.empty(batch_size, *layer.input_shape, device=device)

    def sum(self) -> Tensor:
        """RN32 of the sums of what `matrix` holds, [N, H, W, C]."""
        self._wide.zero_()
        for target, source in self._across:
            target.add_(source)
        self._images.zero_()
        for target, source in self._down:
            target.add_(source)
        return self._result.copy_(self._inside)


class _BoundConv2d:
    def __init__(self, layer: Conv2d, binding: Binding, *, is_first: bool) -> None:
        size, device = binding.batch_size, binding.device
        name = f"{layer.name}.weight"
        self._weights, self._gradient = binding.weights[name], binding.gradients[name]
        self._forward = Contraction(binding.arithmetic.forward_bits)
        self._backward = Contraction(binding.arithmetic.backward_bits)
        self._im2col_forward = Im2col(layer, size, self._forward.dtype, device)
        self._im2col_backward = Im2col(layer, size, self._backward.dtype, device)
        self._quantised_weights = torch.empty_like(self._weights)
        shape = (size, *layer.output_shape)
        self._outputs = torch.empty(shape, device=device)
        self._output_matrix = self._outputs.view(-1, layer.filters)
        self._quantised_gradient = torch.empty_like(self._output_matrix)
        self._rows = self._output_matrix.shape[0]
        self._input_products = layer.rows.taps * layer.columns.taps * layer.filters
        self._col2im = None
        if not is_first:
            dtype = (
                self._backward.dtype
                if self._backward.is_exact_in_dtype(self._input_products)
                else torch.float64
            )
            assert self._input_products <= self._backward.max_products
            self._col2im = Col2im(layer, size, dtype, device)

    def forward(self, inputs: Tensor) -> Tensor:
        forward, backward = self._forward, self._backward
        inputs_magnitude = compute_magnitude(inputs)
        weights_magnitude = compute_magnitude(self._weights)
        quantised = self._quantised_weights
        exponent = quantise(
            inputs, inputs_magnitude, forward.bits, self._im2col_forward.inside
        ) + quantise(self._weights, weights_magnitude, forward.bits, quantised)
        matrix = self._im2col_forward.fill()
        weights = quantised.to(forward.dtype)
        lift = forward.compute_lift(exponent, matrix.shape[1])
        forward.contract(matrix, weights if lift == 1.0 else weights / lift, self._output_matrix)
        if lift != 1.0:
            self._outputs.mul_(lift)
        self._inputs_exponent = quantise(
            inputs, inputs_magnitude, backward.bits, self._im2col_backward.inside
        )
        self._columns = self._im2col_backward.fill()
        self._weights_exponent = quantise(
            self._weights, weights_magnitude, backward.bits, quantised
        )
        return self._outputs

    def backward(self, gradient: Tensor) -> Tensor:
        backward = self._backward
        rows = gradient.view(self._output_matrix.shape)
        quantised = self._quantised_gradient
        exponent = quantise(rows, compute_magnitude(rows), backward.bits, quantised)
        lift = backward.compute_lift(
            exponent + max(self._inputs_exponent, self._weights_exponent),
            max(self._rows, self._input_products),
        )
        if lift != 1.0:
            quantised.div_(lift)
        outputs = quantised.to(backward.dtype)
        backward.contract(self._columns.t(), outputs, self._gradient)
        if lift != 1.0:
            self._gradient.mul_(lift)
        if self._col2im is None:
            return gradient
        weights = self._quantised_weights.to(self._col2im.matrix.dtype)
        torch.mm(outputs.to(weights.dtype), weights.t(), out=self._col2im.matrix)
        result = self._col2im.sum()
        return result if lift == 1.0 else result.mul_(lift)
