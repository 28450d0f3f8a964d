"""The layers of protocol section 3: what each computes, and its steps at a fixed batch size.

A description (`Conv2d`, `BatchNorm`, …) knows its tensors, its output's shape and how to evaluate
any number of images. `bind` gives the layer that trains: forward and backward written by hand over
buffers that are made once, because at the small presets the overhead of operations decides.

Shapes are NHWC without the batch: an image is (H, W, C), a flat one (F,). Convolution weights are
[taps * C, O], taps in row-major order; linear weights are [in, out].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import torch

from pol_abci.learning.arithmetic import (
    Contraction,
    TreeSum,
    compute_inverse_root,
    compute_magnitude,
    quantise,
    quantise_images,
    round_to_float32,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pol_abci.rules.params import ArithmeticParams

Shape = tuple[int, ...]

EPSILON = round_to_float32(Fraction("1e-5"))
"""Added to a variance before its root."""
MOMENTUM = round_to_float32(Fraction("0.1"))
"""Of running statistics."""

# Narrower inputs make im2col copy runs of a few numbers; with columns first the runs are rows.
_MIN_CHANNELS_OF_ROW_MAJOR_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of the model's weights: its name, shape, and whether steps learn it."""

    name: str
    shape: Shape
    is_learnable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a layer is bound to: views of flat weights and gradients, sizes and bits.

    `gradients` holds, for a running statistic r with new value x, r - x: the update is then the
    same two operations for every value, with the momentum in place of the rate.
    """

    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    batch_size: int
    arithmetic: ArithmeticParams
    device: torch.device


class BoundLayer(Protocol):
    """A layer that trains at a fixed batch size. Results are buffers, valid until the next step."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs [N, …]; may destroy `inputs`. Raises `InvalidStep`."""
        ...

    def backward(self, gradient: Tensor) -> Tensor:
        """Write the gradients of weights, return that of the inputs. May destroy `gradient`."""
        ...


class Layer(Protocol):
    """A layer's description."""

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Its weights, in canonical order."""
        ...

    @property
    def output_shape(self) -> Shape:
        """Of one image."""
        ...

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains.

        Nobody asks for the gradient of images: the first layer's `backward` returns its argument.
        """
        ...

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """Outputs [N, …] with a scale per image and running statistics."""
        ...


class Evaluation:
    """A model's weights quantised for evaluation, and which images of a batch stay valid."""

    def __init__(self, weights: Mapping[str, Tensor], bits: int) -> None:
        self.weights = weights
        self.contraction = Contraction(bits)
        self.is_valid: Tensor | None = None
        self._quantised: dict[str, tuple[Tensor, int]] = {}

    def get_quantised_weights(self, name: str) -> tuple[Tensor, int]:
        """Q of a weight in the contraction's type, and its exponent."""
        if name not in self._quantised:
            weights = self.weights[name]
            values = torch.empty_like(weights)
            exponent = quantise(weights, compute_magnitude(weights), self.contraction.bits, values)
            self._quantised[name] = (values.to(self.contraction.dtype), exponent)
        return self._quantised[name]

    def quantise(self, values: Tensor) -> tuple[Tensor, int]:
        """Q of each image; images that are not finite, or too big, are noted as invalid."""
        quantised, is_valid, exponent = quantise_images(values, self.contraction.bits)
        self.is_valid = is_valid if self.is_valid is None else self.is_valid & is_valid
        return quantised, exponent

    def contract(self, rows: Tensor, exponent: int, name: str) -> Tensor:
        """RN32 of the exact product of quantised rows [R, K] and a weight [K, O]."""
        weights, weights_exponent = self.get_quantised_weights(name)
        out = torch.empty(rows.shape[0], weights.shape[1], device=rows.device)
        lift = self.contraction.compute_lift(exponent + weights_exponent, rows.shape[1])
        self.contraction.contract(rows if lift == 1.0 else rows / lift, weights, out)
        return out if lift == 1.0 else out.mul_(lift)


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


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Normalisation over the rows of a batch, with running statistics for evaluation."""

    name: str
    input_shape: Shape

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """gamma, beta, running mean and running variance, each [C]."""
        shape = self.input_shape[-1:]
        return (
            TensorSpec(f"{self.name}.weight", shape, True),
            TensorSpec(f"{self.name}.bias", shape, True),
            TensorSpec(f"{self.name}.running_mean", shape, False),
            TensorSpec(f"{self.name}.running_var", shape, False),
        )

    @property
    def output_shape(self) -> Shape:
        """That of the input."""
        return self.input_shape

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        assert not is_first
        return _BoundBatchNorm(self, binding)

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """Normalise with the running statistics."""
        gamma, beta, mean, variance = (evaluation.weights[spec.name] for spec in self.tensors)
        inverse = compute_inverse_root(torch.add(variance, EPSILON), torch.ones_like(variance))
        return torch.sub(inputs, mean).mul_(inverse.mul_(gamma)).add_(beta)


class _BoundBatchNorm:
    def __init__(self, layer: BatchNorm, binding: Binding) -> None:
        names = [spec.name for spec in layer.tensors]
        self._gamma, self._beta, self._running_mean, self._running_variance = (
            binding.weights[name] for name in names
        )
        self._to_gamma, self._to_beta, self._to_mean, self._to_variance = (
            binding.gradients[name] for name in names
        )
        device, channels = binding.device, layer.input_shape[-1]
        shape = (binding.batch_size, *layer.input_shape)
        self._outputs = torch.empty(shape, device=device)
        self._output_rows = self._outputs.view(-1, channels)
        rows = self._output_rows.shape[0]
        assert rows > 1, "statistics of one row do not exist"
        # Divisors are tensors: a scalar may be turned into a product with its reciprocal.
        self._one = torch.tensor([1.0], device=device)
        self._count = torch.tensor([float(rows)], device=device)
        self._count_less_one = torch.tensor([float(rows - 1)], device=device)
        self._sum = TreeSum((rows, channels), device)
        self._sums = TreeSum((rows, 2, channels), device)
        self._gradients, self._products = self._sums.buffer[:, 0], self._sums.buffer[:, 1]
        self._mean, self._slope, self._variance = torch.empty(3, channels, device=device)

    def forward(self, inputs: Tensor) -> Tensor:
        deviations = inputs.view(self._output_rows.shape)
        self._sum.buffer.copy_(deviations)
        torch.div(self._sum.reduce(), self._count, out=self._mean)
        deviations.sub_(self._mean)
        torch.mul(deviations, deviations, out=self._sum.buffer)
        squares = self._sum.reduce()
        torch.sub(self._running_mean, self._mean, out=self._to_mean)
        torch.div(squares, self._count_less_one, out=self._variance)
        torch.sub(self._running_variance, self._variance, out=self._to_variance)
        torch.div(squares, self._count, out=self._variance)
        self._inverse = compute_inverse_root(self._variance.add_(EPSILON), self._one)
        torch.mul(self._inverse, self._gamma, out=self._slope)
        torch.mul(deviations, self._slope, out=self._output_rows).add_(self._beta)
        self._deviations = deviations
        return self._outputs

    def backward(self, gradient: Tensor) -> Tensor:
        rows, deviations = gradient.view(self._output_rows.shape), self._deviations
        self._gradients.copy_(rows)
        torch.mul(rows, deviations, out=self._products)
        of_beta, products = self._sums.reduce()
        self._to_beta.copy_(of_beta)
        of_gamma = torch.mul(products, self._inverse, out=self._to_gamma)
        rows.sub_(of_beta.div_(self._count))
        rows.sub_(deviations.mul_(torch.mul(of_gamma, self._inverse).div_(self._count)))
        rows.mul_(self._slope)
        return gradient


@dataclass(frozen=True, slots=True)
class ReLU:
    """max(x, 0)."""

    input_shape: Shape

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """None."""
        return ()

    @property
    def output_shape(self) -> Shape:
        """That of the input."""
        return self.input_shape

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        del binding, is_first
        return _BoundReLU()

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """In place."""
        del evaluation
        return inputs.clamp_min_(0.0)


class _BoundReLU:
    def forward(self, inputs: Tensor) -> Tensor:
        self._outputs = inputs.clamp_min_(0.0)
        return self._outputs

    def backward(self, gradient: Tensor) -> Tensor:
        # Passes where the output is above 0; a product with a mask would make inf * 0.
        return gradient.masked_fill_(self._outputs <= 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Flatten:
    """(H, W, C) to (H * W * C,) in that order."""

    input_shape: Shape

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """None."""
        return ()

    @property
    def output_shape(self) -> Shape:
        """One axis."""
        size = 1
        for length in self.input_shape:
            size *= length
        return (size,)

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        del is_first
        return _BoundFlatten(
            (binding.batch_size, *self.input_shape), (binding.batch_size, *self.output_shape)
        )

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """A view."""
        del evaluation
        return inputs.reshape(inputs.shape[0], -1)


class _BoundFlatten:
    def __init__(self, images: Shape, rows: Shape) -> None:
        self._images, self._rows = images, rows

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.view(self._rows)

    def backward(self, gradient: Tensor) -> Tensor:
        return gradient.view(self._images)


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix and a bias."""

    name: str
    input_shape: Shape
    outputs: int

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The weight [in, out] and the bias [out]."""
        return (
            TensorSpec(f"{self.name}.weight", (self.input_shape[0], self.outputs), True),
            TensorSpec(f"{self.name}.bias", (self.outputs,), True),
        )

    @property
    def output_shape(self) -> Shape:
        """(outputs,)."""
        return (self.outputs,)

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        assert not is_first
        return _BoundLinear(self, binding)

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """[N, in] to [N, out]."""
        quantised, exponent = evaluation.quantise(inputs)
        rows = quantised.to(evaluation.contraction.dtype)
        outputs = evaluation.contract(rows, exponent, f"{self.name}.weight")
        return outputs.add_(evaluation.weights[f"{self.name}.bias"])


class _BoundLinear:
    def __init__(self, layer: Linear, binding: Binding) -> None:
        weight, bias = (spec.name for spec in layer.tensors)
        device, size = binding.device, binding.batch_size
        self._weights, self._bias = binding.weights[weight], binding.weights[bias]
        self._gradient, self._to_bias = binding.gradients[weight], binding.gradients[bias]
        self._forward = Contraction(binding.arithmetic.forward_bits)
        self._backward = Contraction(binding.arithmetic.backward_bits)
        self._products = max(size, layer.outputs)
        self._quantised_inputs = torch.empty(size, *layer.input_shape, device=device)
        self._quantised_weights = torch.empty_like(self._weights)
        self._outputs = torch.empty(size, layer.outputs, device=device)
        self._input_gradient = torch.empty(size, *layer.input_shape, device=device)
        self._sum = TreeSum((size, layer.outputs), device)
        self._quantised_gradient = torch.empty(size, layer.outputs, device=device)

    def forward(self, inputs: Tensor) -> Tensor:
        forward, backward = self._forward, self._backward
        rows, weights = self._quantised_inputs, self._quantised_weights
        inputs_magnitude = compute_magnitude(inputs)
        weights_magnitude = compute_magnitude(self._weights)
        exponent = quantise(inputs, inputs_magnitude, forward.bits, rows) + quantise(
            self._weights, weights_magnitude, forward.bits, weights
        )
        lift = forward.compute_lift(exponent, rows.shape[1])
        if lift != 1.0:
            rows.div_(lift)
        forward.contract(rows.to(forward.dtype), weights.to(forward.dtype), self._outputs)
        if lift != 1.0:
            self._outputs.mul_(lift)
        self._exponent = max(
            quantise(inputs, inputs_magnitude, backward.bits, rows),
            quantise(self._weights, weights_magnitude, backward.bits, weights),
        )
        return self._outputs.add_(self._bias)

    def backward(self, gradient: Tensor) -> Tensor:
        backward, quantised = self._backward, self._quantised_gradient
        exponent = quantise(gradient, compute_magnitude(gradient), backward.bits, quantised)
        self._sum.buffer.copy_(quantised)
        self._to_bias.copy_(self._sum.reduce())
        lift = backward.compute_lift(exponent + self._exponent, self._products)
        if lift != 1.0:
            quantised.div_(lift)
        outputs = quantised.to(backward.dtype)
        backward.contract(self._quantised_inputs.to(backward.dtype).t(), outputs, self._gradient)
        result = backward.contract(
            outputs, self._quantised_weights.to(backward.dtype).t(), self._input_gradient
        )
        if lift != 1.0:
            self._gradient.mul_(lift)
            result.mul_(lift)
        return result
