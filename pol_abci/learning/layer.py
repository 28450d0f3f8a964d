"""What a layer is: the interface that models are made of, and what training binds one to.

Shapes are NHWC without the batch: an image is (H, W, C), a flat one (F,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from pol_abci.learning.arithmetic import (
    Contraction,
    compute_magnitude,
    quantise,
    quantise_images,
)
from pol_abci.learning.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pol_abci.rules.params import ArithmeticParams

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of the model's weights: its name, shape, and whether steps learn it."""

    name: str
    shape: Shape
    is_learnable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """What a layer does to memory that others may read: a graph copies where it has to."""

    overwrites_inputs: bool = False
    """Its forward pass, and its evaluation, may destroy its inputs."""
    keeps_outputs: bool = False
    """Its backward pass reads its outputs."""
    overwrites_gradient: bool = False
    """Its backward pass changes the gradient that it is given into its result."""
    is_view: bool = False
    """Its outputs lie where its inputs do, and its result where the gradient does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a layer is bound to: views of flat weights and gradients, sizes, bits and memory.

    `gradients` holds, for a running statistic r with new value x, r - x: the update is then the
    same two operations for every value, with the momentum in place of the rate.
    """

    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    batch_size: int
    arithmetic: ArithmeticParams
    device: torch.device
    workspace: Workspace


class BoundLayer(Protocol):
    """A layer that trains at a fixed batch size. Results are buffers, valid until the next step."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs [N, …]. Raises `InvalidStep`."""
        ...

    def backward(self, gradient: Tensor) -> Tensor:
        """Write the gradients of weights, return that of the inputs."""
        ...


class Layer(Protocol):
    """A layer's description."""

    memory: ClassVar[MemoryUse]

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

        Nobody asks for the gradient of images: the `backward` of the first layer that has weights
        returns its argument.
        """
        ...

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """Outputs [N, …] with a scale per image and running statistics."""
        ...

    def describe(self) -> str:
        """What it computes, in one word for the kind and numbers; protocol section 3."""
        ...


class Evaluation:
    """A model's weights quantised for evaluation, and which images of a batch stay valid."""

    def __init__(self, weights: Mapping[str, Tensor], bits: int, device: torch.device) -> None:
        self.weights = weights
        self.workspace = Workspace(device)
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

    def contract(self, rows: Tensor, exponent: int, name: str, out: Tensor) -> Tensor:
        """Write RN32 of the exact product of quantised rows [R, K] and a weight [K, O] to `out`."""
        weights, weights_exponent = self.get_quantised_weights(name)
        lift = self.contraction.compute_lift(exponent + weights_exponent, rows.shape[1])
        self.contraction.contract(rows if lift == 1.0 else rows / lift, weights, out)
        return out if lift == 1.0 else out.mul_(lift)
