"""What a layer is: the interface that models are made of, and what training binds one to.

Shapes are NHWC without the batch: an image is (H, W, C), a flat one (F,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from pol_abci.learning.exact.arithmetic import compute_magnitude
from pol_abci.learning.exact.contraction import choose_contraction, make_operand
from pol_abci.learning.exact.workspace import Shape, Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pol_abci.learning.exact.contraction import Contraction, Scale
    from pol_abci.rules.params import ArithmeticParams


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
    same two operations for every value, with the momentum in place of the rate. `magnitudes` are
    those of weights that the last update has looked at already.
    """

    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    batch_size: int
    arithmetic: ArithmeticParams
    device: torch.device
    workspace: Workspace
    magnitudes: Mapping[str, float]

    def get_magnitude(self, name: str) -> float:
        """`compute_magnitude` of a weight as it is now. Raises `InvalidStep`."""
        known = self.magnitudes.get(name)
        return compute_magnitude(self.weights[name]) if known is None else known


class BoundLayer(Protocol):
    """A layer that trains at a fixed batch size. Results are buffers, valid until the next step."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs [N, …]. Raises `InvalidStep`."""
        ...

    def backward(self, gradient: Tensor) -> Tensor:
        """Write the gradients of weights, return that of the inputs. Raises `InvalidStep`."""
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
    """Images on their way through a model, part by part: its weights, and which stay valid."""

    def __init__(self, weights: Mapping[str, Tensor], bits: int, device: torch.device) -> None:
        self.weights = weights
        self.workspace = Workspace(device)
        self._bits, self._device = bits, device
        self._are_valid: list[Tensor] = []
        self._quantised: dict[tuple[str, torch.dtype], tuple[Tensor, Scale]] = {}

    def begin(self, images: int) -> None:
        """Begin with so many further images."""
        self._are_valid.append(torch.ones(images, dtype=torch.bool, device=self._device))

    def get_valid(self) -> Tensor:
        """Bool [N]: of all images so far, which are valid."""
        return torch.cat(self._are_valid)

    def choose_contraction(self, name: str, outputs: int) -> Contraction:
        """How this many values are made of products with the weight [K, O] of this name."""
        length = self.weights[name].shape[0]
        return choose_contraction(
            self._bits,
            self._device,
            products=outputs * length,
            shortest=length,
            longest=length,
        )

    def quantise(
        self, contraction: Contraction, values: Tensor, out: Tensor
    ) -> tuple[Tensor, list[int]]:
        """Write integers of each image to `out` [D, N, …]; units [N], and digits in use by image.

        Images that are not finite, or too big, are noted as invalid.
        """
        units, is_valid, digits = contraction.quantise_images(values, out)
        self._are_valid[-1].logical_and_(is_valid)
        return units, digits

    def contract(
        self, contraction: Contraction, rows: Tensor, name: str, units: Tensor, out: Tensor
    ) -> None:
        """Write RN32 of the exact product of rows [D, R, K] of images and a weight to `out` [R, O].

        `units` [N] are those of the images that the rows belong to, as many to each.
        """
        weights, scale = self._get_weights(contraction, name)
        units = torch.mul(units, 2.0**scale.exponent)
        out.copy_(contraction.multiply(rows, weights)).view(len(units), -1).mul_(units[:, None])

    def _get_weights(self, contraction: Contraction, name: str) -> tuple[Tensor, Scale]:
        """A weight as operand [D, K, O]: made once, though tiles ask for it one by one."""
        key = (name, contraction.stored)
        if key not in self._quantised:
            values = self.weights[name]
            stored = torch.empty(
                (contraction.digits, *values.shape), dtype=contraction.stored, device=values.device
            )
            magnitude = compute_magnitude(values)
            self._quantised[key] = make_operand(contraction, values, magnitude, stored)
        return self._quantised[key]
