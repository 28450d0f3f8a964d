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

# A tile's matrix of float64 fits what cores have of second-level cache.
_TILE_VALUES = 3 * 2**16
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
    def is_pointwise(self) -> bool:
        """Whether each output sees one input, the one at its own place."""
        shape = (self.rows.output, self.columns.output)
        return self.rows.taps * self.columns.taps == 1 and shape == self.input_shape[:2]

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
        size, dtype = inputs.shape[0], evaluation.contraction.dtype
        im2col = Im2col(self, size, dtype, evaluation.workspace, "padded")
        im2col.inside.copy_(quantised)
        outputs = evaluation.workspace.get(None, (size, *self.output_shape), torch.float32)
        matrix = outputs.view(-1, self.filters)
        for tile in im2col.tiles:
            rows = tile.fill()
            evaluation.contract(rows, exponent, f"{self.name}.weight", matrix[tile.rows])
        if self.has_bias:
            outputs.add_(evaluation.weights[f"{self.name}.bias"])
        return outputs

    def describe(self) -> str:
        """`convolution`, name, filters, kernel, stride, padding, whether there is a bias."""
        numbers = (self.filters, *self.kernel, *self.stride, *self.padding, int(self.has_bias))
        return f"convolution {self.name} {' '.join(map(str, numbers))}"


class Im2col:
    """Padded inputs of a convolution, and by tile the matrix [R, K] of what each output sees.

    A tile is some of the images: as many as keep its matrix in a core's cache. `padded` names the
    memory of the inputs, which is shared; with None it is this object's own.
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
        images = workspace.get(padded, shape, torch.float32)
        if shape[1:] != layer.input_shape:
            images.zero_()
        self.inside = images[:, rows.inside, columns.inside]
        image, row, column, channel = images.stride()
        windows = images.as_strided(
            (batch_size, rows.output, columns.output, rows.taps, columns.taps, channels),
            (image, row * layer.stride[0], column * layer.stride[1], row, column, channel),
            rows.start * row + columns.start * column,
        )
        size = _count_images_of_tile(layer, batch_size)
        self.tiles = [
            Tile(layer, start, windows[start : start + size], dtype, workspace)
            for start in range(0, batch_size, size)
        ]


def _count_images_of_tile(layer: Conv2d, batch_size: int) -> int:
    """Images whose matrix fits a cache, or is about as big as that of the weights."""
    pixels = layer.rows.output * layer.columns.output
    rows = max(_TILE_VALUES // layer.products, layer.filters)
    tiles = -(-batch_size // max(1, rows // pixels))
    return -(-batch_size // tiles)


class Tile:
    """Some images of a batch: `images` and `rows` say which, of [N, …] and of [R, …]."""

    def __init__(
        self,
        layer: Conv2d,
        start: int,
        windows: Tensor,
        dtype: torch.dtype,
        workspace: Workspace,
    ) -> None:
        self.size = windows.shape[0]
        self.images = slice(start, start + self.size)
        pixels = layer.rows.output * layer.columns.output
        self.rows = slice(start * pixels, (start + self.size) * pixels)
        shape = (self.size * pixels, layer.products)
        self._windows, self._target = windows, None
        if dtype == torch.float32 and windows.is_contiguous():
            self._matrix = windows.view(shape)
        elif layer.input_shape[2] < _MIN_CHANNELS_OF_ROW_MAJOR_COLUMNS:
            self._windows = windows.permute(3, 4, 5, 0, 1, 2)
            self._target = workspace.get("columns", tuple(self._windows.shape), dtype)
            self._matrix = self._target.view(layer.products, -1).t()
        else:
            self._target = workspace.get("columns", tuple(windows.shape), dtype)
            self._matrix = self._target.view(shape)

    def fill(self) -> Tensor:
        """The matrix [R, K] of the inputs that lie inside now, until another one is filled."""
        if self._target is not None:
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
        self._im2col_forward = Im2col(layer, size, self._forward.dtype, workspace, None)
        self._im2col_backward = self._im2col_forward
        self._has_same_bits = self._forward.bits == self._backward.bits
        if not self._has_same_bits:
            self._im2col_backward = Im2col(layer, size, self._backward.dtype, workspace, None)
        self._quantised_weights = workspace.get(
            "weights", tuple(self._weights.shape), torch.float32
        )
        self._wide_weights = workspace.get(
            "wide-weights", (layer.products, layer.filters), torch.float64
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
        self._total = workspace.get("total", tuple(self._weights.shape), torch.float64)
        assert self._rows <= self._backward.max_products
        self._input_products = layer.rows.taps * layer.columns.taps * layer.filters
        self._is_first = is_first
        self._col2im: dict[int, Col2im] = {}
        if not is_first:
            dtype = (
                self._backward.dtype
                if self._backward.is_exact_in_dtype(self._input_products)
                else torch.float64
            )
            assert self._input_products <= self._backward.max_products
            self._input_gradient = workspace.get(None, (size, *layer.input_shape), torch.float32)
            if not layer.is_pointwise:
                self._col2im = {
                    tile.size: Col2im(layer, tile.size, dtype, workspace)
                    for tile in self._im2col_backward.tiles
                }

    def forward(self, inputs: Tensor) -> Tensor:
        forward, backward = self._forward, self._backward
        magnitude = compute_magnitude(inputs)
        self._weights_magnitude = compute_magnitude(self._weights)
        self._inputs_exponent = quantise(
            inputs, magnitude, forward.bits, self._im2col_forward.inside
        )
        exponent, weights = self._quantise_weights(forward)
        lift = forward.compute_lift(self._inputs_exponent + exponent, weights.shape[0])
        if lift != 1.0:
            weights = weights / lift
        for tile in self._im2col_forward.tiles:
            forward.contract(tile.fill(), weights, self._output_matrix[tile.rows])
        if lift != 1.0:
            self._outputs.mul_(lift)
        if not self._has_same_bits:
            self._inputs_exponent = quantise(
                inputs, magnitude, backward.bits, self._im2col_backward.inside
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
        weights_exponent, weights = self._quantise_weights(backward)
        lift = backward.compute_lift(
            exponent + max(self._inputs_exponent, weights_exponent),
            max(self._rows, self._input_products),
        )
        if lift != 1.0:
            quantised.div_(lift)
        outputs = quantised.to(backward.dtype)
        tiles = self._im2col_backward.tiles
        if len(tiles) > 1:
            self._total.zero_()
        for tile in tiles:
            columns, part = tile.fill().t(), outputs[tile.rows]
            if len(tiles) > 1:
                backward.add_product(columns, part, self._total)
            else:
                backward.contract(columns, part, self._gradient)
            if not self._is_first:
                self._give_back(part, weights, tile)
        if len(tiles) > 1:
            self._gradient.copy_(self._total)
        if lift != 1.0:
            self._gradient.mul_(lift)
            if not self._is_first:
                self._input_gradient.mul_(lift)
        return gradient if self._is_first else self._input_gradient

    def _quantise_weights(self, contraction: Contraction) -> tuple[int, Tensor]:
        """The exponent, and Q of the weights in the contraction's type."""
        quantised = self._quantised_weights
        exponent = quantise(self._weights, self._weights_magnitude, contraction.bits, quantised)
        if contraction.dtype == torch.float32:
            return exponent, quantised
        return exponent, self._wide_weights.copy_(quantised)

    def _give_back(self, outputs: Tensor, weights: Tensor, tile: Tile) -> None:
        """Write the gradient of a tile's images, from that of its outputs [R, O]."""
        result = self._input_gradient[tile.images]
        if not self._col2im:
            self._backward.contract(outputs, weights.t(), result.view(outputs.shape[0], -1))
            return
        col2im = self._col2im[tile.size]
        dtype = col2im.matrix.dtype
        torch.mm(outputs.to(dtype), weights.to(dtype).t(), out=col2im.matrix)
        col2im.sum(result)
