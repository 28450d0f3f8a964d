"""A model as a graph of layers: its tensors, its first weights and its evaluation.

Weights are one flat float32 tensor in canonical order (protocol section 1); the tensors of a model
are views of it. Value 0 of a graph is the images; node i makes value i + 1, the last one the
logits. Gradients of a value that several nodes read are added in the order of the forward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from pol_abci.learning.exact.layer import Evaluation
from pol_abci.learning.exact.layers import BatchNorm, Linear
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.seed import Stream, hash_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pol_abci.learning.exact.layer import Layer, TensorSpec
    from pol_abci.learning.exact.workspace import Shape

_DRAW_BYTES = 3
_PART_VALUES = 2**19
"""Evaluated at once, of a graph's biggest value: more leave the caches between two layers."""
_MIN_IMAGES = 32
"""Evaluated at once: fewer cost more in operations than they save in memory."""


@dataclass(frozen=True, slots=True)
class Node:
    """A layer, and the number of the value that it reads."""

    layer: Layer
    source: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that it reads."""
        return (self.source,)

    @property
    def shape(self) -> Shape:
        """Of the value that it makes."""
        return self.layer.output_shape

    def describe(self) -> str:
        """One line of the graph's description."""
        return f"{self.layer.describe()} of {self.source}"


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of two values of one shape."""

    left: int
    right: int
    shape: Shape

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that it reads."""
        return (self.left, self.right)

    def describe(self) -> str:
        """One line of the graph's description."""
        return f"add of {self.left} {self.right}"


class Model:
    """An architecture at an input's shape: a graph of layers and the tensors that they hold.

    `order` names the tensors in canonical order; without it that is the order of the layers.
    With `is_drawn_by_graph` the first weights depend on the graph, so that their root binds it.

    Raises
    ------
    GenesisError
        When what a probe covers could be had without the whole step: see `_find_first`.
    """

    def __init__(
        self,
        nodes: Sequence[Node | Add],
        order: Sequence[str] | None = None,
        *,
        is_drawn_by_graph: bool = False,
    ) -> None:
        self.nodes = tuple(nodes)
        specs = {spec.name: spec for layer in self.layers for spec in layer.tensors}
        self.tensors: tuple[TensorSpec, ...] = tuple(specs[name] for name in order or specs)
        assert len(self.tensors) == len(specs) == len({spec.name for spec in self.tensors})
        assert all(find_readers(self.nodes)[:-1]), "a value is made that nobody reads"
        self._is_drawn_by_graph = is_drawn_by_graph
        self.first = self._find_first()
        self.plan = _plan_forward(self.nodes)

    @classmethod
    def chain(cls, layers: Sequence[Layer]) -> Model:
        """Each layer reads what the one before it makes."""
        return cls([Node(layer, index) for index, layer in enumerate(layers)])

    def _find_first(self) -> int:
        """The node whose weights a probe covers: all else reads what it makes.

        Its tensor is the first of the model, and the gradient of it the last that a step makes.
        """
        if not self.tensors:
            raise GenesisError("this model has no weights that could learn")
        readers = find_readers(self.nodes)
        value = 0
        while len(readers[value]) == 1:
            index = readers[value][0]
            node = self.nodes[index]
            if isinstance(node, Node) and node.layer.tensors:
                is_matrix = not isinstance(node.layer, BatchNorm)
                if is_matrix and node.layer.tensors[0] == self.tensors[0]:
                    return index
                break
            value = index + 1
        raise GenesisError(
            f"{self.tensors[0].name} is the first tensor of this model, and what a probe covers: "
            "make it the weight of the convolution or linear layer that alone reads the images, "
            "by defining that layer first"
        )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, in the order of the forward pass."""
        return tuple(node.layer for node in self.nodes if isinstance(node, Node))

    @cached_property
    def size(self) -> int:
        """Values in the flat weights, running statistics included."""
        return sum(math.prod(spec.shape) for spec in self.tensors)

    @cached_property
    def first_layer_size(self) -> int:
        """Values of the first layer's weights, which come first: what a probe covers."""
        return math.prod(self.tensors[0].shape)

    @cached_property
    def learnable_positions(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Position in the flat weights of each learnable value: what requirements index."""
        is_learnable = [np.full(math.prod(spec.shape), spec.is_learnable) for spec in self.tensors]
        return np.flatnonzero(np.concatenate(is_learnable)).astype(np.int64)

    @property
    def weight_count(self) -> int:
        """|W|: all learnable values."""
        return len(self.learnable_positions)

    @property
    def classes(self) -> int:
        """Logits to an image."""
        return self.nodes[-1].shape[0]

    def describe(self) -> str:
        """The graph in words and numbers, a line each node; protocol section 3."""
        return "".join(f"{node.describe()}\n" for node in self.nodes)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of flat weights, by name."""
        assert flat.shape == (self.size,)
        views, start = {}, 0
        for spec in self.tensors:
            end = start + math.prod(spec.shape)
            views[spec.name] = flat[start:end].view(spec.shape)
            start = end
        return views

    def initial_weights(self, chain_seed: bytes) -> Tensor:
        """W_0, flat, from the chain's seed; protocol section 2."""
        if self._is_drawn_by_graph:
            chain_seed = hash_fields("graph", chain_seed, self.describe().encode())
        flat = torch.zeros(self.size)
        owners = {spec.name: layer for layer in self.layers for spec in layer.tensors}
        for name, view in self.split(flat).items():
            owner, kind = owners[name], name.rpartition(".")[2]
            if isinstance(owner, BatchNorm):
                view.fill_(1.0 if kind in ("weight", "running_var") else 0.0)
            elif kind == "weight":
                fan_in = view.shape[0]
                is_linear = isinstance(owner, Linear)
                bound = 1.0 / math.sqrt(fan_in) if is_linear else math.sqrt(6.0 / fan_in)
                view.copy_(_draw_weights(chain_seed, name, bound, view.shape))
        return flat

    @torch.inference_mode()
    def evaluate(self, flat: Tensor, images: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Logits [N, C] of images [N, H, W, C] in evaluation mode; bool [N], which are valid."""
        evaluation = Evaluation(self.split(flat), bits, images.device)
        biggest = max(math.prod(node.shape) for node in self.nodes)
        at_once = max(_MIN_IMAGES, _PART_VALUES // biggest)
        logits = [self._evaluate_part(evaluation, part) for part in torch.split(images, at_once)]
        return torch.cat(logits), evaluation.get_valid()

    def _evaluate_part(self, evaluation: Evaluation, images: Tensor) -> Tensor:
        evaluation.begin(len(images))
        values: list[Tensor | None] = [images]
        for node, step in zip(self.nodes, self.plan, strict=True):
            inputs = values[step.source]
            assert inputs is not None
            if step.copies:
                inputs = inputs.clone()
            if isinstance(node, Add):
                other = values[step.other]
                assert other is not None
                outputs = inputs.add_(other)
            else:
                outputs = node.layer.evaluate(inputs, evaluation)
            for value in step.last_reads:
                values[value] = None
            values.append(outputs)
        logits = values[-1]
        assert logits is not None
        return logits


def _draw_weights(chain_seed: bytes, name: str, bound: float, shape: Shape) -> Tensor:
    """Uniform weights below `bound` in magnitude, from a raw stream; protocol section 2."""
    count = math.prod(shape)
    raw = Stream("initial-weights", chain_seed, name.encode()).next_bytes(_DRAW_BYTES * count)
    high, middle, low = np.frombuffer(raw, np.uint8).reshape(count, _DRAW_BYTES).T.astype(np.int64)
    drawn = high << 16 | middle << 8 | low
    centred = (2 * drawn + 1 - 2**24).astype(np.float64) * 2.0**-24
    return torch.from_numpy((centred * bound).astype(np.float32)).view(shape)


def find_readers(nodes: Sequence[Node | Add]) -> list[list[int]]:
    """For each value the nodes that read it, in forward order; twice where one does so twice."""
    readers: list[list[int]] = [[] for _ in range(len(nodes) + 1)]
    for index, node in enumerate(nodes):
        for source in node.sources:
            readers[source].append(index)
    return readers


@dataclass(frozen=True, slots=True)
class ForwardStep:
    """How a node reads: `source` is a value that it may destroy, after copying it if `copies`.

    `other` is the second one of a sum, else the same. After it nobody reads `last_reads`.
    """

    source: int
    other: int
    copies: bool
    last_reads: tuple[int, ...]


def _plan_forward(nodes: Sequence[Node | Add]) -> tuple[ForwardStep, ...]:
    """What each node may overwrite: memory that nobody else reads, now or in a backward pass."""
    readers = find_readers(nodes)
    # Values at one memory are known by the first of them; views read nothing.
    memory = list(range(len(nodes) + 1))
    reads = [0] * (len(nodes) + 1)
    is_kept = [True] + [False] * len(nodes)  # images are the caller's
    for index, node in enumerate(nodes):
        value = index + 1
        if isinstance(node, Node) and node.layer.memory.is_view:
            memory[value] = memory[node.source]
            continue
        for source in node.sources:
            reads[memory[source]] += 1
        is_kept[value] = isinstance(node, Node) and node.layer.memory.keeps_outputs

    def is_free(value: int) -> bool:
        return reads[memory[value]] == 1 and not is_kept[memory[value]]

    steps = []
    for index, node in enumerate(nodes):
        last_reads = tuple(value for value in set(node.sources) if readers[value][-1] == index)
        source, other = node.sources[0], node.sources[-1]
        if isinstance(node, Add):
            if not is_free(source) and is_free(other):
                source, other = other, source
            copies = not is_free(source)
        else:
            copies = node.layer.memory.overwrites_inputs and not is_free(source)
        steps.append(ForwardStep(source, other, copies, tuple(sorted(last_reads))))
    return tuple(steps)
