"""Convolutions as im2col and exact matrix products; protocol section 3.

Weights are [taps * C, O], taps in row-major order; taps that never see data do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from pol_abci.learning.exact.arithmetic import TreeSum, compute_magnitude
from pol_abci.learning.exact.contraction import choose_contraction, contract, make_operand
from pol_abci.learning.exact.layer import MemoryUse, TensorSpec
from pol_abci.learning.exact.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pol_abci.learning.exact.contraction import Contraction, Scale
    from pol_abci.learning.exact.layer import Binding, BoundLayer, Evaluation
    from pol_abci.learning.exact.window import Axis, Pair
    from pol_abci.learning.exact.workspace import Shape, Workspace

# A tile's matrix fits what cores have of second-level cache.
_TILE_BYTES = 3 * 2**19
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
    def window(self) -> Window:
        """What each output sees."""
        return Window.over(self.input_shape, self.kernel, self.stride, self.padding)

    @property
    def products(self) -> int:
        """Products to each output value: live taps times channels."""
        return self.window.taps * self.input_shape[2]

    @property
    def is_pointwise(self) -> bool:
        """Whether each output sees one input, the one at its own place."""
        return self.window.taps == 1 and self.window.output_shape == self.input_shape[:2]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The weight [products, filters], and the bias [filters] where there is one."""
        weight = TensorSpec(f"{self.name}.weight", (self.products, self.filters), True)
        bias = TensorSpec(f"{self.name}.bias", (self.filters,), True)
        return (weight, bias) if self.has_bias else (weight,)

    @property
    def output_shape(self) -> Shape:
        """(H, W, filters)."""
        return (*self.window.output_shape, self.filters)

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        return _BoundConv2d(self, binding, is_first=is_first)

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """[N, H, W, C] to [N, H', W', filters]."""
        size, name = inputs.shape[0], f"{self.name}.weight"
        outputs = evaluation.workspace.get(None, (size, *self.output_shape), torch.float32)
        contraction = evaluation.choose_contraction(name, outputs.numel())
        im2col = Im2col(self, size, contraction, evaluation.workspace, "padded")
        units, digits = evaluation.quantise(contraction, inputs, im2col.inside)
        for tile in im2col.tiles:
            out = outputs[tile.images].view(-1, self.filters)
            matrix = tile.fill(max(digits[tile.images]))
            evaluation.contract(contraction, matrix, name, units[tile.images], out)
        if self.has_bias:
            outputs.add_(evaluation.weights[f"{self.name}.bias"])
        return outputs

    def describe(self) -> str:
        """`convolution`, name, filters, kernel, stride, padding, whether there is a bias."""
        numbers = (self.filters, *self.kernel, *self.stride, *self.padding, int(self.has_bias))
        return f"convolution {self.name} {' '.join(map(str, numbers))}"


class Im2col:
    """Padded integers of a convolution's inputs, and by tile the matrix of what each output sees.

    A tile is some of the images: as many as keep its matrix in a core's cache. `inside`
    [D, N, H, W, C] is where the integers go. `padded` names their memory, which is shared; with
    None it is this object's own.
    """

    def __init__(
        self,
        layer: Conv2d,
        batch_size: int,
        contraction: Contraction,
        workspace: Workspace,
        padded: str | None,
    ) -> None:
        rows, columns, channels = layer.window.rows, layer.window.columns, layer.input_shape[2]
        shape = (contraction.digits, batch_size, rows.padded, columns.padded, channels)
        images = workspace.get(padded, shape, contraction.stored)
        if shape[2:] != layer.input_shape:
            images.zero_()
        self.inside = images[:, :, rows.inside, columns.inside]
        digit, image, row, column, channel = images.stride()
        pixels = (rows.output, columns.output)
        windows = images.as_strided(
            (*shape[:2], *pixels, rows.taps, columns.taps, channels),
            (digit, image, row * layer.stride[0], column * layer.stride[1], row, column, channel),
            rows.start * row + columns.start * column,
        )
        size = _count_images_of_tile(layer, batch_size, contraction)
        self.tiles = [
            Tile(layer, start, windows[:, start : start + size], contraction, workspace)
            for start in range(0, batch_size, size)
        ]


def _count_images_of_tile(layer: Conv2d, batch_size: int, contraction: Contraction) -> int:
    """Images whose matrix fits a cache, or is about as big as that of the weights."""
    pixels = layer.window.pixels
    bytes_of_row = layer.products * min(contraction.digits, 2) * contraction.dtype.itemsize
    rows = max(_TILE_BYTES // bytes_of_row, layer.filters)
    tiles = -(-batch_size // max(1, rows // pixels))
    return -(-batch_size // tiles)


class Tile:
    """Some images of a batch: `images` and `rows` say which, of [N, …] and of [R, …]."""

    def __init__(
        self,
        layer: Conv2d,
        start: int,
        windows: Tensor,
        contraction: Contraction,
        workspace: Workspace,
    ) -> None:
        digits, self.size = windows.shape[:2]
        self.images = slice(start, start + self.size)
        pixels = layer.window.pixels
        self.rows = slice(start * pixels, (start + self.size) * pixels)
        shape = (digits, self.size * pixels, layer.products)
        self._windows, self._target = windows, None
        if contraction.dtype == contraction.stored and windows[0].is_contiguous():
            self._matrix = windows.view(shape)
        elif layer.input_shape[2] < _MIN_CHANNELS_OF_ROW_MAJOR_COLUMNS:
            self._windows = windows.permute(0, 4, 5, 6, 1, 2, 3)
            self._target = workspace.get("columns", tuple(self._windows.shape), contraction.dtype)
            self._matrix = self._target.view(digits, layer.products, -1).transpose(1, 2)
        else:
            self._target = workspace.get("columns", tuple(windows.shape), contraction.dtype)
            self._matrix = self._target.view(shape)

    def fill(self, digits: int) -> Tensor:
        """The matrix [D, R, K] of the integers inside now, until another one is filled."""
        if self._target is not None:
            self._target[:digits].copy_(self._windows[:digits])
        return self._matrix[:digits]


class Col2im:
    """The sum of gradients [R, K] of what each output saw, at the inputs that it saw.

    Two passes of one axis each. All terms are integers and their sums are exact in `dtype`, so
    that the order does not matter.
    """

    def __init__(
        self, layer: Conv2d, batch_size: int, dtype: torch.dtype, workspace: Workspace
    ) -> None:
        rows, columns = layer.window.rows, layer.window.columns
        height, width, channels = layer.input_shape
        lines = batch_size * rows.output
        self.matrix = workspace.get("columns", (lines * columns.output, layer.products), dtype)
        taps = self.matrix.view(lines, columns.output, rows.taps, columns.taps, channels)
        wide = workspace.get("wide", (lines, width, rows.taps, channels), dtype)
        self._across = _Sum(columns, taps.unbind(3), wide)
        lines_of_images = wide.view(batch_size, rows.output, width, rows.taps, channels)
        self._images = workspace.get("images", (batch_size, height, width, channels), dtype)
        self._down = _Sum(rows, lines_of_images.unbind(3), self._images)

    def sum(self, exponent: int, out: Tensor) -> None:
        """Write RN32 of the sums, in units of 2^exponent, to `out` [N, H, W, C]."""
        self._across.compute()
        self._down.compute()
        out.copy_(self._images).mul_(2.0**exponent)


class _Sum:
    """Sums, along the second axis of `out`, of what each input's outputs give back to it.

    `sources` hold that by tap, each [_, outputs, …]. A tap that all inputs are seen through is
    copied, which saves zeroing.
    """

    def __init__(self, axis: Axis, sources: Sequence[Tensor], out: Tensor) -> None:
        self._out = out
        self._first: Tensor | None = None
        self._terms = []
        for tap, source in enumerate(sources):
            inputs, outputs = axis.meet(tap)
            target, term = out[:, inputs], source[:, outputs]
            if self._first is None and target.shape == out.shape:
                self._first = term
            else:
                self._terms.append((target, term))

    def compute(self) -> None:
        if self._first is None:
            self._out.zero_()
        else:
            self._out.copy_(self._first)
        for target, term in self._terms:
            target.add_(term)


class _Weights:
    """A convolution's weights as operands of a contraction."""

    def __init__(self, values: Tensor, contraction: Contraction, workspace: Workspace) -> None:
        self._values, self._contraction = values, contraction
        shape = (contraction.digits, *values.shape)
        self._stored = workspace.get("weights", shape, contraction.stored)
        self._wide = None
        if contraction.dtype != contraction.stored:
            self._wide = workspace.get("wide-weights", shape, contraction.dtype)

    def quantise(self, magnitude: float) -> tuple[Tensor, Scale]:
        """[D, K, O] as they are now, until others are quantised."""
        scale = self._contraction.quantise(self._values, magnitude, self._stored)
        stored = self._stored if self._wide is None else self._wide.copy_(self._stored)
        return stored[: scale.digits], scale


class _BoundConv2d:
    def __init__(self, layer: Conv2d, binding: Binding, *, is_first: bool) -> None:
        size, workspace = binding.batch_size, binding.workspace
        self._binding, self._name = binding, f"{layer.name}.weight"
        self._weights = binding.weights[self._name]
        self._gradient = binding.gradients[self._name]
        self._outputs = workspace.get(None, (size, *layer.output_shape), torch.float32)
        self._output_matrix = self._outputs.view(-1, layer.filters)
        rows = self._output_matrix.shape[0]
        seen_by = layer.window.taps * layer.filters
        arithmetic, products = binding.arithmetic, rows * layer.products * layer.filters
        self._forward = choose_contraction(
            arithmetic.forward_bits,
            binding.device,
            products=products,
            shortest=layer.products,
            longest=layer.products,
        )
        self._backward = choose_contraction(
            arithmetic.backward_bits,
            binding.device,
            products=products,
            shortest=layer.filters,
            longest=max(rows, seen_by),
        )
        backward = self._backward
        self._im2col_forward = Im2col(layer, size, self._forward, workspace, None)
        self._im2col_backward = self._im2col_forward
        self._has_same_operands = (self._forward.bits, self._forward.dtype) == (
            backward.bits,
            backward.dtype,
        )
        if not self._has_same_operands:
            self._im2col_backward = Im2col(layer, size, backward, workspace, None)
        self._forward_weights = _Weights(self._weights, self._forward, workspace)
        self._backward_weights = _Weights(self._weights, backward, workspace)
        shape = (backward.digits, rows, layer.filters)
        self._quantised_gradient = workspace.get("gradient", shape, backward.stored)
        self._bias = None
        if layer.has_bias:
            self._bias = binding.weights[f"{layer.name}.bias"]
            self._to_bias = binding.gradients[f"{layer.name}.bias"]
            self._sum = TreeSum(workspace.get("sum", shape[1:], torch.float32))
        self._total = workspace.get(
            "total", tuple(self._weights.shape), backward.choose_sum_dtype(rows)
        )
        self._is_first = is_first
        self._col2im: dict[int, Col2im] = {}
        if not is_first:
            self._input_gradient = workspace.get(None, (size, *layer.input_shape), torch.float32)
            if not layer.is_pointwise:
                dtype = backward.choose_sum_dtype(seen_by)
                self._col2im = {
                    tile.size: Col2im(layer, tile.size, dtype, workspace)
                    for tile in self._im2col_backward.tiles
                }

    def forward(self, inputs: Tensor) -> Tensor:
        magnitude = compute_magnitude(inputs)
        self._weights_magnitude = self._binding.get_magnitude(self._name)
        scale = self._forward.quantise(inputs, magnitude, self._im2col_forward.inside)
        weights, weights_scale = self._forward_weights.quantise(self._weights_magnitude)
        exponent = scale.exponent + weights_scale.exponent
        for tile in self._im2col_forward.tiles:
            out = self._output_matrix[tile.rows]
            contract(self._forward, tile.fill(scale.digits), weights, exponent, out)
        if not self._has_same_operands:
            scale = self._backward.quantise(inputs, magnitude, self._im2col_backward.inside)
        self._inputs_scale = scale
        return self._outputs if self._bias is None else self._outputs.add_(self._bias)

    def backward(self, gradient: Tensor) -> Tensor:
        backward, quantised = self._backward, self._quantised_gradient
        rows = gradient.view(self._output_matrix.shape)
        outputs, scale = make_operand(backward, rows, compute_magnitude(rows), quantised)
        if self._bias is not None:
            backward.restore(quantised, scale, self._sum.buffer)
            self._to_bias.copy_(self._sum.reduce())
        weights, weights_scale = self._backward_weights.quantise(self._weights_magnitude)
        to_weights = scale.exponent + self._inputs_scale.exponent
        to_inputs = scale.exponent + weights_scale.exponent
        tiles = self._im2col_backward.tiles
        if len(tiles) > 1:
            self._total.zero_()
        for tile in tiles:
            columns = tile.fill(self._inputs_scale.digits).transpose(1, 2)
            part = outputs[:, tile.rows]
            if len(tiles) > 1:
                self._total.add_(backward.multiply(columns, part).to(self._total.dtype))
            else:
                contract(backward, columns, part, to_weights, self._gradient)
            if not self._is_first:
                self._give_back(part, weights, to_inputs, tile)
        if len(tiles) > 1:
            self._gradient.copy_(self._total).mul_(2.0**to_weights)
        return gradient if self._is_first else self._input_gradient

    def _give_back(self, outputs: Tensor, weights: Tensor, exponent: int, tile: Tile) -> None:
        """Write the gradient of a tile's images, from that of its outputs [D, R, O]."""
        result, transposed = self._input_gradient[tile.images], weights.transpose(1, 2)
        if not self._col2im:
            out = result.view(outputs.shape[1], -1)
            contract(self._backward, outputs, transposed, exponent, out)
            return
        col2im = self._col2im[tile.size]
        self._backward.multiply(outputs, transposed, out=col2im.matrix)
        col2im.sum(exponent, result)
