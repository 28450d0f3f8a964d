"""A model bound to a batch size: the steps that train it, over memory that is made once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch

from pol_abci.learning.exact.arithmetic import SoftmaxGradient, compute_magnitude
from pol_abci.learning.exact.graph import Add, Node, find_readers
from pol_abci.learning.exact.layer import Binding
from pol_abci.learning.exact.layers import MOMENTUM
from pol_abci.learning.exact.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from pol_abci.learning.exact.graph import Model
    from pol_abci.learning.exact.layer import BoundLayer, TensorSpec
    from pol_abci.rules.params import ArithmeticParams


_PART_VALUES = 2**17
"""Three parts of so many values fit what cores have of second-level cache."""


@dataclass(slots=True)
class _Memory:
    """Memory of a gradient while the backward pass is planned: how many will still read it."""

    readers: int = 1


@dataclass(frozen=True, slots=True)
class _BackwardStep:
    """One node of the backward pass, and how its outputs' gradient comes about.

    `terms` are the readers of its value in forward order; their gradients are added onto that of
    the first, or onto a copy of it in `buffer`. The last node, which nobody reads, has none.
    """

    index: int
    terms: tuple[int, ...]
    buffer: Tensor | None


class _BoundGraph:
    """Forward and backward pass of a graph at a batch size."""

    def __init__(self, model: Model, binding: Binding) -> None:
        self._nodes, self._plan, self._first = model.nodes, model.plan, model.first
        self._layers: list[BoundLayer | None] = [
            node.layer.bind(binding, is_first=index == model.first)
            if isinstance(node, Node)
            else None
            for index, node in enumerate(self._nodes)
        ]
        shapes = [node.shape for node in self._nodes]
        workspace, size = binding.workspace, binding.batch_size
        self._copies = [
            workspace.get(None, (size, *shape), torch.float32) if step.copies else None
            for shape, step in zip(shapes, self._plan, strict=True)
        ]
        self._backward = self._plan_backward(binding)

    def _plan_backward(self, binding: Binding) -> list[_BackwardStep]:
        """Walk the backward pass once without numbers, to see which memory may be overwritten."""
        readers = find_readers(self._nodes)
        gradients: dict[int, _Memory] = {}  # of what each node read
        steps = []
        for index in range(len(self._nodes) - 1, self._first - 1, -1):
            node, terms = self._nodes[index], tuple(readers[index + 1])
            memories = [gradients[reader] for reader in terms] or [_Memory()]
            memory = memories[0]
            overwrites = isinstance(node, Node) and node.layer.memory.overwrites_gradient
            needs_own = (len(terms) > 1 or overwrites) and memory.readers > 1
            buffer = None
            for read in memories:
                read.readers -= 1
            if needs_own:
                shape = (binding.batch_size, *node.shape)
                buffer = binding.workspace.get(None, shape, torch.float32)
                memory = _Memory(0)
            if isinstance(node, Add):
                memory.readers += 2
            elif overwrites or node.layer.memory.is_view:
                memory.readers += 1
            else:
                memory = _Memory()
            gradients[index] = memory
            steps.append(_BackwardStep(index, terms, buffer))
        return steps

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, C]."""
        values = [images]
        for layer, step, copy in zip(self._layers, self._plan, self._copies, strict=True):
            inputs = values[step.source]
            if copy is not None:
                inputs = copy.copy_(inputs)
            if layer is None:
                values.append(inputs.add_(values[step.other]))
            else:
                values.append(layer.forward(inputs))
        return values[-1]

    def backward(self, gradient: Tensor) -> None:
        """Write the gradients of all weights, from that of the logits."""
        gradients: dict[int, Tensor] = {}
        for step in self._backward:
            total = gradients[step.terms[0]] if step.terms else gradient
            if step.buffer is not None:
                total = step.buffer.copy_(total)
            for reader in step.terms[1:]:
                total.add_(gradients[reader])
            layer = self._layers[step.index]
            gradients[step.index] = total if layer is None else layer.backward(total)


class _Part(NamedTuple):
    """Of the flat tensors; `name` is that of the matrix in it, "" where there is none."""

    name: str
    weights: Tensor
    previous: Tensor
    gradients: Tensor


def _split(tensors: Sequence[TensorSpec]) -> Iterator[tuple[str, slice]]:
    """Where parts of flat weights lie: each of one matrix, or of the small tensors between two.

    Only a matrix's magnitude is asked for, so that the others need no name.
    """
    position = 0
    for name, group in groupby(tensors, lambda spec: spec.name if len(spec.shape) > 1 else ""):
        end = position + sum(math.prod(spec.shape) for spec in group)
        for start in range(position, end, _PART_VALUES):
            yield name, slice(start, min(start + _PART_VALUES, end))
        position = end


class BoundModel:
    """A model at a batch size, with its weights: `update` is the paper's update(W, B).

    `weights` and `previous` (those before the last update) are flat; they are overwritten by the
    next update. `loads` counts the times that `load` has set other weights.
    """

    def __init__(
        self,
        model: Model,
        batch_size: int,
        learning_rate: float,
        arithmetic: ArithmeticParams,
        device: torch.device,
    ) -> None:
        self.loads = 0
        self.weights = torch.zeros(model.size, device=device)
        self.previous = torch.zeros(model.size, device=device)
        self._gradients = torch.zeros(model.size, device=device)
        self._rate = learning_rate
        is_statistic = torch.ones(model.size, dtype=torch.bool)
        is_statistic[torch.from_numpy(model.learnable_positions)] = False
        self._statistics = is_statistic.nonzero().flatten().to(device)
        self._magnitudes: dict[str, float] = {}
        self._parts = [
            _Part(name, self.weights[part], self.previous[part], self._gradients[part])
            for name, part in _split(model.tensors)
        ]
        self._graph = _BoundGraph(
            model,
            Binding(
                weights=model.split(self.weights),
                gradients=model.split(self._gradients),
                batch_size=batch_size,
                arithmetic=arithmetic,
                device=device,
                workspace=Workspace(device),
                magnitudes=self._magnitudes,
            ),
        )
        self._loss = SoftmaxGradient(batch_size, model.classes, device)

    def load(self, weights: Tensor) -> int:
        """Set the weights to a copy of flat `weights`; returns the number of this load."""
        self.weights.copy_(weights)
        self._magnitudes.clear()
        self.loads += 1
        return self.loads

    @torch.inference_mode()
    def update(self, images: Tensor, labels: Tensor) -> None:
        """One step on images [S, H, W, C] and labels int64 [S]; protocol section 3.

        Raises
        ------
        InvalidStep
            When a value is not finite or reaches 2^60; the weights are then of no use.
        """
        self._graph.backward(self._loss.compute(self._graph.forward(images), labels))
        # Two roundings: the product, then the difference. Running statistics go by their momentum.
        statistics = self.weights[self._statistics]
        moves = self._gradients[self._statistics].mul_(MOMENTUM)
        self.weights[self._statistics] = torch.sub(statistics, moves)
        self._gradients[self._statistics] = 0.0
        # Part by part, so that each is read from memory once.
        self._magnitudes.clear()
        for part in self._parts:
            part.previous.copy_(part.weights)
            part.weights.sub_(part.gradients.mul_(self._rate))
            magnitude = compute_magnitude(part.weights)
            self._magnitudes[part.name] = max(magnitude, self._magnitudes.get(part.name, 0.0))
        self.previous[self._statistics] = statistics
