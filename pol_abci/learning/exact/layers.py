"""The layers of protocol section 3 beside convolutions.

A description (`BatchNorm`, `Linear`, …) knows its tensors, its output's shape and how to evaluate
any number of images. `bind` gives the layer that trains: forward and backward written by hand over
buffers that are made once, because at the small presets the overhead of operations decides.
Linear weights are [in, out].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import torch

from pol_abci.learning.exact.arithmetic import (
    TreeSum,
    compute_inverse_root,
    compute_magnitude,
    pass_above,
    round_to_float32,
)
from pol_abci.learning.exact.contraction import choose_contraction, contract, make_operand
from pol_abci.learning.exact.layer import MemoryUse, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.exact.layer import Binding, BoundLayer, Evaluation
    from pol_abci.learning.exact.workspace import Shape

EPSILON = round_to_float32(Fraction("1e-5"))
"""Added to a variance before its root."""
MOMENTUM = round_to_float32(Fraction("0.1"))
"""Of running statistics."""


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Normalisation over the rows of a batch, with running statistics for evaluation."""

    name: str
    input_shape: Shape

    memory: ClassVar = MemoryUse(overwrites_inputs=True)

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
        return inputs.sub_(mean).mul_(inverse.mul_(gamma)).add_(beta)

    def describe(self) -> str:
        """`batch-norm` and the name."""
        return f"batch-norm {self.name}"


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
        workspace = binding.workspace
        shape = (binding.batch_size, *layer.input_shape)
        self._outputs = workspace.get(None, shape, torch.float32)
        self._output_rows = self._outputs.view(-1, channels)
        rows = self._output_rows.shape[0]
        assert rows > 1, "statistics of one row do not exist"
        # Divisors are tensors: a scalar may be turned into a product with its reciprocal.
        self._one = torch.tensor([1.0], device=device)
        self._count = torch.tensor([float(rows)], device=device)
        self._count_less_one = torch.tensor([float(rows - 1)], device=device)
        self._sum = TreeSum(workspace.get("sum", (rows, channels), torch.float32))
        self._sums = TreeSum(workspace.get("sum", (rows, 2, channels), torch.float32))
        self._gradients, self._products = self._sums.buffer[:, 0], self._sums.buffer[:, 1]
        self._mean, self._slope, self._variance = torch.empty(3, channels, device=device)

    def forward(self, inputs: Tensor) -> Tensor:
        deviations = inputs.view(self._output_rows.shape)
        torch.div(self._sum.sum(deviations), self._count, out=self._mean)
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
        deviations.mul_(torch.mul(of_gamma, self._inverse).div_(self._count))
        # Another reader of the output may have the same gradient: it is left as it is.
        centred = torch.sub(rows, torch.div(self._to_beta, self._count), out=self._sum.buffer)
        torch.sub(centred, deviations, out=deviations).mul_(self._slope)
        return deviations.view(gradient.shape)


@dataclass(frozen=True, slots=True)
class ReLU:
    """max(x, 0)."""

    input_shape: Shape

    memory: ClassVar = MemoryUse(
        overwrites_inputs=True, keeps_outputs=True, overwrites_gradient=True
    )

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

    def describe(self) -> str:
        """`relu`."""
        return "relu"


class _BoundReLU:
    def forward(self, inputs: Tensor) -> Tensor:
        self._outputs = inputs.clamp_min_(0.0)
        return self._outputs

    def backward(self, gradient: Tensor) -> Tensor:
        return pass_above(gradient, self._outputs, 0.0, out=gradient)


@dataclass(frozen=True, slots=True)
class Flatten:
    """(H, W, C) to (H * W * C,) in that order."""

    input_shape: Shape

    memory: ClassVar = MemoryUse(is_view=True)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """None."""
        return ()

    @property
    def output_shape(self) -> Shape:
        """One axis."""
        return (math.prod(self.input_shape),)

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

    def describe(self) -> str:
        """`flatten`."""
        return "flatten"


class _BoundFlatten:
    def __init__(self, images: Shape, rows: Shape) -> None:
        self._images, self._rows = images, rows

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.view(self._rows)

    def backward(self, gradient: Tensor) -> Tensor:
        return gradient.view(self._images)


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix, and a bias where it has one.

    `flattened` is the shape of the images whose values its inputs are, if they are some.
    """

    name: str
    input_shape: Shape
    outputs: int
    has_bias: bool = True
    flattened: Shape | None = None

    memory: ClassVar = MemoryUse()

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The weight [in, out], and the bias [out] where there is one."""
        weight = TensorSpec(f"{self.name}.weight", (self.input_shape[0], self.outputs), True)
        bias = TensorSpec(f"{self.name}.bias", (self.outputs,), True)
        return (weight, bias) if self.has_bias else (weight,)

    @property
    def output_shape(self) -> Shape:
        """(outputs,)."""
        return (self.outputs,)

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        return _BoundLinear(self, binding, is_first=is_first)

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """[N, in] to [N, out]."""
        size, name = inputs.shape[0], f"{self.name}.weight"
        outputs = evaluation.workspace.get(None, (size, self.outputs), torch.float32)
        contraction = evaluation.choose_contraction(name, outputs.numel())
        shape = (contraction.digits, *inputs.shape)
        stored = evaluation.workspace.get(None, shape, contraction.stored)
        units, digits = evaluation.quantise(contraction, inputs, stored)
        rows = stored[: max(digits)].to(contraction.dtype)
        evaluation.contract(contraction, rows, name, units, outputs)
        return outputs.add_(evaluation.weights[f"{self.name}.bias"]) if self.has_bias else outputs

    def describe(self) -> str:
        """`linear`, name, outputs, whether there is a bias."""
        return f"linear {self.name} {self.outputs} {int(self.has_bias)}"


class _BoundLinear:
    def __init__(self, layer: Linear, binding: Binding, *, is_first: bool) -> None:
        size, workspace = binding.batch_size, binding.workspace
        self._binding, self._name = binding, f"{layer.name}.weight"
        self._weights = binding.weights[self._name]
        self._gradient = binding.gradients[self._name]
        self._is_first = is_first
        inputs, outputs = (size, *layer.input_shape), (size, layer.outputs)
        self._forward, self._backward = (
            choose_contraction(
                bits,
                binding.device,
                products=self._weights.numel() * size,
                shortest=min(*inputs, *outputs),
                longest=max(*inputs, *outputs),
            )
            for bits in (binding.arithmetic.forward_bits, binding.arithmetic.backward_bits)
        )
        self._operands = [
            tuple(
                workspace.get(purpose, (contraction.digits, *shape), contraction.stored)
                for purpose, shape in ((own, inputs), ("weights", tuple(self._weights.shape)))
            )
            for own, contraction in (("inputs", self._forward), (None, self._backward))
        ]
        self._outputs = workspace.get(None, outputs, torch.float32)
        self._input_gradient = workspace.get(None, inputs, torch.float32)
        self._bias = None
        if layer.has_bias:
            self._bias = binding.weights[f"{layer.name}.bias"]
            self._to_bias = binding.gradients[f"{layer.name}.bias"]
            self._sum = TreeSum(workspace.get("sum", outputs, torch.float32))
        self._quantised_gradient = workspace.get(
            "gradient", (self._backward.digits, *outputs), self._backward.stored
        )

    def forward(self, inputs: Tensor) -> Tensor:
        forward, backward = self._forward, self._backward
        (rows, weights), (kept_rows, _) = self._operands
        magnitude = compute_magnitude(inputs)
        self._weights_magnitude = self._binding.get_magnitude(self._name)
        left, scale = make_operand(forward, inputs, magnitude, rows)
        right, weights_scale = make_operand(
            forward, self._weights, self._weights_magnitude, weights
        )
        exponent = scale.exponent + weights_scale.exponent
        contract(forward, left, right, exponent, self._outputs)
        self._inputs_scale = backward.quantise(inputs, magnitude, kept_rows)
        return self._outputs if self._bias is None else self._outputs.add_(self._bias)

    def backward(self, gradient: Tensor) -> Tensor:
        backward, quantised = self._backward, self._quantised_gradient
        inputs, weights = self._operands[1]
        outputs, scale = make_operand(backward, gradient, compute_magnitude(gradient), quantised)
        if self._bias is not None:
            backward.restore(quantised, scale, self._sum.buffer)
            self._to_bias.copy_(self._sum.reduce())
        columns = inputs[: self._inputs_scale.digits].to(backward.dtype).transpose(1, 2)
        exponent = scale.exponent + self._inputs_scale.exponent
        contract(backward, columns, outputs, exponent, self._gradient)
        if self._is_first:
            return gradient
        right, weights_scale = make_operand(
            backward, self._weights, self._weights_magnitude, weights
        )
        exponent = scale.exponent + weights_scale.exponent
        return contract(backward, outputs, right.transpose(1, 2), exponent, self._input_gradient)
