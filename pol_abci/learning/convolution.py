"""Convolutions as im2col and exact matrix products; protocol section 3.

Weights are [taps * C, O], taps in row-major order; taps that never see data do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from pol_abci.learning.arithmetic import Contraction, TreeSum, compute_magnitude, quantise
from pol_abci.learning.axis import Axis
from pol_abci.learning.layer import MemoryUse, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.axis import Pair
    from pol_abci.learning.layer import Binding, BoundLayer, Evaluation, Shape
    from pol_abci.learning.workspace import Workspace

# Narrower inputs make im2col copy runs of a few numbers; with columns first the runs are rows.
_MIN_CHANNELS_OF_ROW_MAJOR_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Conv2d:
    """A convolution; its taps that never see data do not exist."""

    name: str
    input_shape: Shape
    filters: int
    kernel: Pair
    stride: Pair
    padding: Pair
    has_bias: bool = False

    memory: ClassVar = MemoryUse()

    @property
    def rows(self) -> Axis:
        """The vertical axis."""
        return Axis(self.input_shape[0], self.kernel[0], self.stride[0], self.padding[0])

    @property
    def columns(self) -> Axis:
        """The horizontal axis."""
        return Axis(self.input_shape[1], self.kernel[1], self.stride[1], self.padding[1])

    @property
    def products(self) -> int:
        """Products to each output value: live taps times channels."""
        return self.rows.taps * self.columns.taps * self.input_shape[2]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The weight [products, filters], and the bias [filters] where there is one."""
        weight = TensorSpec(f"{self.name}.weight", (self.products, self.filters), True)
        bias = TensorSpec(f"{self.name}.bias", (self.filters,), True)
        return (weight, bias) if self.has_bias else (weight,)

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
        im2col = Im2col(
            self, inputs.shape[0], evaluation.contraction.dtype, evaluation.workspace, "evaluated"
        )
        im2col.clear()
        im2col.inside.copy_(quantised)
        outputs = evaluation.contract(im2col.fill(), exponent, f"{self.name}.weight")
        if self.has_bias:
            outputs.add_(evaluation.weights[f"{self.name}.bias"])
        return outputs.view(inputs.shape[0], *self.output_shape)

    def describe(self) -> str:
        """`convolution`, name, filters, kernel, stride, padding, whether there is a bias."""
        numbers = (self.filters, *self.kernel, *self.stride, *self.padding, int(self.has_bias))
        return f"convolution {self.name} {' '.join(map(str, numbers))}"


class Im2col:
    """Padded inputs of a convolution, and the matrix [R, K] of what each output sees.

    `padded` names the memory of the inputs, which others may use between two calls of `fill`; with
    None it is this object's own, and stays clear around them.
    """

    def __init__(
        self,
        layer: Conv2d,
        batch_size: int,
        dtype: torch.dtype,
        workspace: Workspace,
        padded: str | None,
    ) -> None:
        rows, columns, channels = layer.rows, layer.columns, layer.input_shape[2]
        shape = (batch_size, rows.padded, columns.padded, channels)
        self._padded = workspace.get(padded, shape, torch.float32)
        self._is_framed = shape[1:] != layer.input_shape
        self.clear()
        self.inside = self._padded[:, rows.inside, columns.inside]
        image, row, column, channel = self._padded.stride()
        windows = self._padded.as_strided(
            (batch_size, rows.output, columns.output, rows.taps, columns.taps, channels),
            (image, row * layer.stride[0], column * layer.stride[1], row, column, channel),
            rows.start * row + columns.start * column,
        )
        outputs = batch_size * rows.output * columns.output
        if channels < _MIN_CHANNELS_OF_ROW_MAJOR_COLUMNS:
            windows = windows.permute(3, 4, 5, 0, 1, 2)
        self._windows = windows
        self._target = workspace.get("columns", tuple(windows.shape), dtype)
        if channels < _MIN_CHANNELS_OF_ROW_MAJOR_COLUMNS:
            self._matrix = self._target.view(layer.products, outputs).t()
        else:
            self._matrix = self._target.view(outputs, layer.products)

    def clear(self) -> None:
        """Put zeros around the inputs, where another may have been at that memory."""
        if self._is_framed:
            self._padded.zero_()

    def fill(self) -> Tensor:
        """The matrix [R, K] of the inputs that lie in `inside` now, until another one is filled."""
        self._target.copy_(self._windows)
        return self._matrix


class Col2im:
    """The sum of gradients [R, K] of what each output saw, at the inputs that it saw.

    Two passes of one axis each. All terms are multiples of one unit and their sums are exact in
    `dtype`, so that the order does not matter.
    """

    def __init__(
        self, layer: Conv2d, batch_size: int, dtype: torch.dtype, workspace: Workspace
    ) -> None:
        rows, columns, channels = layer.rows, layer.columns, layer.input_shape[2]
        lines = batch_size * rows.output
        self.matrix = workspace.get("columns", (lines * columns.output, layer.products), dtype)
        taps = self.matrix.view(lines, columns.output, rows.taps, columns.taps, channels)
        self._wide = workspace.get("wide", (lines, columns.padded, rows.taps, channels), dtype)
        self._across = [
            (self._wide[:, columns.seen_by(tap)], taps[:, :, :, tap]) for tap in range(columns.taps)
        ]
        wide = self._wide.view(batch_size, rows.output, columns.padded, rows.taps, channels)
        self._images = workspace.get(
            "images", (batch_size, rows.padded, columns.padded, channels), dtype
        )
        self._down = [
            (self._images[:, rows.seen_by(tap)], wide[:, :, :, tap]) for tap in range(rows.taps)
        ]
        self._inside = self._images[:, rows.inside, columns.inside]

    def sum(self, out: Tensor) -> Tensor:
        """Write RN32 of the sums of what `matrix` holds to `out` [N, H, W, C]."""
        self._wide.zero_()
        for target, source in self._across:
            target.add_(source)
        self._images.zero_()
        for target, source in self._down:
            target.add_(source)
        return out.copy_(self._inside)


class _BoundConv2d:
    def __init__(self, layer: Conv2d, binding: Binding, *, is_first: bool) -> None:
        size, workspace = binding.batch_size, binding.workspace
        name = f"{layer.name}.weight"
        self._weights, self._gradient = binding.weights[name], binding.gradients[name]
        self._forward = Contraction(binding.arithmetic.forward_bits)
        self._backward = Contraction(binding.arithmetic.backward_bits)
        # Of forward inputs nothing is needed later: all layers have them in one place.
        self._im2col_forward = Im2col(layer, size, self._forward.dtype, workspace, "inputs")
        self._im2col_backward = Im2col(layer, size, self._backward.dtype, workspace, None)
        self._quantised_weights = workspace.get(
            "weights", tuple(self._weights.shape), torch.float32
        )
        self._outputs = workspace.get(None, (size, *layer.output_shape), torch.float32)
        self._output_matrix = self._outputs.view(-1, layer.filters)
        shape = tuple(self._output_matrix.shape)
        self._quantised_gradient = workspace.get("gradient", shape, torch.float32)
        self._rows = shape[0]
        self._bias = None
        if layer.has_bias:
            self._bias = binding.weights[f"{layer.name}.bias"]
            self._to_bias = binding.gradients[f"{layer.name}.bias"]
            self._sum = TreeSum(workspace.get("sum", shape, torch.float32))
        self._input_products = layer.rows.taps * layer.columns.taps * layer.filters
        self._col2im = None
        if not is_first:
            dtype = (
                self._backward.dtype
                if self._backward.is_exact_in_dtype(self._input_products)
                else torch.float64
            )
            assert self._input_products <= self._backward.max_products
            self._col2im = Col2im(layer, size, dtype, workspace)
            self._input_gradient = workspace.get(None, (size, *layer.input_shape), torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        forward, backward = self._forward, self._backward
        self._inputs_magnitude = compute_magnitude(inputs)
        self._weights_magnitude = compute_magnitude(self._weights)
        self._im2col_forward.clear()
        exponent = quantise(
            inputs, self._inputs_magnitude, forward.bits, self._im2col_forward.inside
        ) + quantise(self._weights, self._weights_magnitude, forward.bits, self._quantised_weights)
        matrix = self._im2col_forward.fill()
        weights = self._quantised_weights.to(forward.dtype)
        lift = forward.compute_lift(exponent, matrix.shape[1])
        forward.contract(matrix, weights if lift == 1.0 else weights / lift, self._output_matrix)
        if lift != 1.0:
            self._outputs.mul_(lift)
        self._inputs_exponent = quantise(
            inputs, self._inputs_magnitude, backward.bits, self._im2col_backward.inside
        )
        return self._outputs if self._bias is None else self._outputs.add_(self._bias)

    def backward(self, gradient: Tensor) -> Tensor:
        backward = self._backward
        rows = gradient.view(self._output_matrix.shape)
        quantised = self._quantised_gradient
        exponent = quantise(rows, compute_magnitude(rows), backward.bits, quantised)
        if self._bias is not None:
            self._sum.buffer.copy_(quantised)
            self._to_bias.copy_(self._sum.reduce())
        weights_exponent = quantise(
            self._weights, self._weights_magnitude, backward.bits, self._quantised_weights
        )
        lift = backward.compute_lift(
            exponent + max(self._inputs_exponent, weights_exponent),
            max(self._rows, self._input_products),
        )
        if lift != 1.0:
            quantised.div_(lift)
        outputs = quantised.to(backward.dtype)
        columns = self._im2col_backward.fill()
        backward.contract(columns.t(), outputs, self._gradient)
        if lift != 1.0:
            self._gradient.mul_(lift)
        if self._col2im is None:
            return gradient
        weights = self._quantised_weights.to(self._col2im.matrix.dtype)
        torch.mm(outputs.to(weights.dtype), weights.t(), out=self._col2im.matrix)
        result = self._col2im.sum(self._input_gradient)
        return result if lift == 1.0 else result.mul_(lift)
