"""Pooling layers; protocol section 3.

Taps of a window are taken in row-major order: the first maximum is the first in that order, and an
input that several windows saw gets their gradients in that order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from pol_abci.learning.exact.arithmetic import TreeSum, pass_above
from pol_abci.learning.exact.layer import MemoryUse
from pol_abci.learning.exact.window import Window

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.exact.layer import Binding, BoundLayer, Evaluation, TensorSpec
    from pol_abci.learning.exact.window import Pair
    from pol_abci.learning.exact.workspace import Shape, Workspace


@dataclass(frozen=True, slots=True)
class MaxPool2d:
    """The maximum of what a window sees; what lies outside of the image is never one."""

    input_shape: Shape
    kernel: Pair
    stride: Pair
    padding: Pair

    memory: ClassVar = MemoryUse()

    @property
    def window(self) -> Window:
        """What each output sees."""
        return Window.over(self.input_shape, self.kernel, self.stride, self.padding)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """None."""
        return ()

    @property
    def output_shape(self) -> Shape:
        """(H, W, C), C that of the input."""
        return (*self.window.output_shape, self.input_shape[2])

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        del is_first
        return _BoundMaxPool2d(self, binding)

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """[N, H, W, C] to [N, H', W', C]."""
        windows = _Windows(self, inputs.shape[0], evaluation.workspace)
        first, *others = windows.see(inputs)
        outputs = first.clone(memory_format=torch.contiguous_format)
        for seen in others:
            torch.maximum(outputs, seen, out=outputs)
        return outputs

    def describe(self) -> str:
        """`max-pool`, kernel, stride, padding."""
        return f"max-pool {' '.join(map(str, self.kernel + self.stride + self.padding))}"


class _Windows:
    """Views of images by tap: what each window sees through it, in row-major order of taps."""

    def __init__(self, layer: MaxPool2d | AvgPool2d, batch_size: int, workspace: Workspace) -> None:
        rows, columns = layer.window.rows, layer.window.columns
        self._seen = [
            (slice(None), rows.seen_by(i), columns.seen_by(j))
            for i in range(rows.taps)
            for j in range(columns.taps)
        ]
        self._inside = (slice(None), rows.inside, columns.inside)
        shape = (batch_size, rows.padded, columns.padded, layer.input_shape[2])
        self._padded = None
        if shape[1:] != layer.input_shape:
            self._padded = workspace.get("images", shape, torch.float32)

    def see(self, inputs: Tensor) -> list[Tensor]:
        """Views [N, H', W', C] of the inputs; minus infinity outside of the image."""
        images = inputs
        if self._padded is not None:
            images = self._padded.fill_(-math.inf)
            images[self._inside].copy_(inputs)
        return [images[seen] for seen in self._seen]

    def gather(self, out: Tensor) -> _Gathering:
        """Make `out` [N, H, W, C] the sums of what is added to views by tap."""
        images = out if self._padded is None else self._padded
        images.zero_()
        return _Gathering(
            [images[seen] for seen in self._seen],
            None if self._padded is None else images[self._inside],
            out,
        )


@dataclass(frozen=True, slots=True)
class _Gathering:
    """Where to add gradients by tap; `finish` gives the sums."""

    taps: list[Tensor]
    inside: Tensor | None
    out: Tensor

    def finish(self) -> Tensor:
        return self.out if self.inside is None else self.out.copy_(self.inside)


class _BoundMaxPool2d:
    def __init__(self, layer: MaxPool2d, binding: Binding) -> None:
        workspace, size = binding.workspace, binding.batch_size
        self._windows = _Windows(layer, size, workspace)
        shape = (size, *layer.output_shape)
        self._outputs = workspace.get(None, shape, torch.float32)
        self._winners = workspace.get(None, shape, torch.int16)
        self._is_greater = workspace.get("mask", shape, torch.int16)
        self._is_won = workspace.get("columns", shape, torch.float32)
        self._won = workspace.get("sum", shape, torch.float32)
        self._input_gradient = workspace.get(None, (size, *layer.input_shape), torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self._outputs
        first, *others = self._windows.see(inputs)
        outputs.copy_(first)
        self._winners.zero_()
        for tap, seen in enumerate(others, start=1):
            # Of equals the first stays; a later tap that is greater has the greater number.
            torch.gt(seen, outputs, out=self._is_greater)
            torch.maximum(self._winners, self._is_greater.mul_(tap), out=self._winners)
            torch.maximum(outputs, seen, out=outputs)
        return outputs

    def backward(self, gradient: Tensor) -> Tensor:
        gathering = self._windows.gather(self._input_gradient)
        for tap, target in enumerate(gathering.taps):
            torch.eq(self._winners, tap, out=self._is_won)
            target.add_(pass_above(gradient, self._is_won, 0.5, out=self._won))
        return gathering.finish()


@dataclass(frozen=True, slots=True)
class AvgPool2d:
    """The mean of what a window sees; windows lie inside of the image."""

    input_shape: Shape
    kernel: Pair
    stride: Pair

    memory: ClassVar = MemoryUse()

    @property
    def window(self) -> Window:
        """What each output sees."""
        return Window.over(self.input_shape, self.kernel, self.stride, (0, 0))

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """None."""
        return ()

    @property
    def output_shape(self) -> Shape:
        """(H, W, C), C that of the input."""
        return (*self.window.output_shape, self.input_shape[2])

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        del is_first
        return _BoundAvgPool2d(self, binding.batch_size, binding.workspace, binding.device)

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """[N, H, W, C] to [N, H', W', C]."""
        size, device = inputs.shape[0], inputs.device
        return _BoundAvgPool2d(self, size, evaluation.workspace, device).forward(inputs)

    def describe(self) -> str:
        """`average-pool`, kernel, stride."""
        return f"average-pool {' '.join(map(str, self.kernel + self.stride))}"


class _BoundAvgPool2d:
    def __init__(
        self, layer: AvgPool2d, size: int, workspace: Workspace, device: torch.device
    ) -> None:
        self._windows = _Windows(layer, size, workspace)
        shape = (size, *layer.output_shape)
        taps = math.prod(layer.kernel)
        self._outputs = workspace.get(None, shape, torch.float32)
        self._sum = TreeSum(workspace.get("sum", (taps, *shape), torch.float32))
        self._share = workspace.get("sum", shape, torch.float32)
        self._input_gradient = workspace.get(None, (size, *layer.input_shape), torch.float32)
        # A tensor: a scalar may be turned into a product with its reciprocal.
        self._count = torch.tensor([float(taps)], device=device)

    def forward(self, inputs: Tensor) -> Tensor:
        for row, seen in zip(self._sum.buffer, self._windows.see(inputs), strict=True):
            row.copy_(seen)
        return torch.div(self._sum.reduce(), self._count, out=self._outputs)

    def backward(self, gradient: Tensor) -> Tensor:
        gathering = self._windows.gather(self._input_gradient)
        torch.div(gradient, self._count, out=self._share)
        for target in gathering.taps:
            target.add_(self._share)
        return gathering.finish()


@dataclass(frozen=True, slots=True)
class GlobalAvgPool2d:
    """The mean of each channel over the whole image."""

    input_shape: Shape

    memory: ClassVar = MemoryUse()

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """None."""
        return ()

    @property
    def output_shape(self) -> Shape:
        """(1, 1, C)."""
        return (1, 1, self.input_shape[2])

    def bind(self, binding: Binding, *, is_first: bool) -> BoundLayer:
        """The layer that trains."""
        del is_first
        return _BoundGlobalAvgPool2d(self, binding.batch_size, binding.workspace, binding.device)

    def evaluate(self, inputs: Tensor, evaluation: Evaluation) -> Tensor:
        """[N, H, W, C] to [N, 1, 1, C]."""
        size, device = inputs.shape[0], inputs.device
        return _BoundGlobalAvgPool2d(self, size, evaluation.workspace, device).forward(inputs)

    def describe(self) -> str:
        """`global-average-pool`."""
        return "global-average-pool"


class _BoundGlobalAvgPool2d:
    def __init__(
        self, layer: GlobalAvgPool2d, size: int, workspace: Workspace, device: torch.device
    ) -> None:
        height, width, channels = layer.input_shape
        self._pixels = (size, height * width, channels)
        self._outputs = workspace.get(None, (size, channels), torch.float32)
        self._sum = TreeSum(workspace.get("sum", (height * width, size, channels), torch.float32))
        self._share = workspace.get("sum", (size, 1, channels), torch.float32)
        self._input_gradient = workspace.get(None, (size, *layer.input_shape), torch.float32)
        # A tensor: a scalar may be turned into a product with its reciprocal.
        self._count = torch.tensor([float(height * width)], device=device)

    def forward(self, inputs: Tensor) -> Tensor:
        self._sum.buffer.copy_(inputs.view(self._pixels).transpose(0, 1))
        outputs = torch.div(self._sum.reduce(), self._count, out=self._outputs)
        return outputs.view(outputs.shape[0], 1, 1, -1)

    def backward(self, gradient: Tensor) -> Tensor:
        share = torch.div(gradient.view(self._share.shape), self._count, out=self._share)
        self._input_gradient.view(self._pixels).copy_(share.expand(self._pixels))
        return self._input_gradient
