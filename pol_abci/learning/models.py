"""The registry of architectures, their first weights, and a model bound to a batch size.

Weights are one flat float32 tensor in canonical order (protocol section 1); the tensors of a model
are views of it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from pol_abci.learning.arithmetic import SoftmaxGradient, compute_magnitude
from pol_abci.learning.convolution import Conv2d
from pol_abci.learning.layer import Binding, Evaluation, Layer, Shape, TensorSpec
from pol_abci.learning.layers import MOMENTUM, BatchNorm, Flatten, Linear, ReLU
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.seed import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from pol_abci.rules.params import ArithmeticParams

_DRAW_BYTES = 3


class Model:
    """An architecture at an input's shape: a chain of layers and the tensors that they hold."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.tensors: tuple[TensorSpec, ...] = tuple(
            spec for layer in self.layers for spec in layer.tensors
        )

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
        return self.layers[-1].output_shape[0]

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
        evaluation = Evaluation(self.split(flat), bits)
        values = images
        for layer in self.layers:
            values = layer.evaluate(values, evaluation)
        assert evaluation.is_valid is not None
        return values, evaluation.is_valid


def _draw_weights(chain_seed: bytes, name: str, bound: float, shape: Shape) -> Tensor:
    """Uniform weights below `bound` in magnitude, from a raw stream; protocol section 2."""
    count = math.prod(shape)
    raw = Stream("initial-weights", chain_seed, name.encode()).next_bytes(_DRAW_BYTES * count)
    high, middle, low = np.frombuffer(raw, np.uint8).reshape(count, _DRAW_BYTES).T.astype(np.int64)
    drawn = high << 16 | middle << 8 | low
    centred = (2 * drawn + 1 - 2**24).astype(np.float64) * 2.0**-24
    return torch.from_numpy((centred * bound).astype(np.float32)).view(shape)


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
        self._rates = torch.full((model.size,), MOMENTUM)
        self._rates[torch.from_numpy(model.learnable_positions)] = learning_rate
        self._rates = self._rates.to(device)
        binding = Binding(
            weights=model.split(self.weights),
            gradients=model.split(self._gradients),
            batch_size=batch_size,
            arithmetic=arithmetic,
            device=device,
        )
        self._layers = [
            layer.bind(binding, is_first=index == 0) for index, layer in enumerate(model.layers)
        ]
        self._loss = SoftmaxGradient(batch_size, model.classes, device)

    def load(self, weights: Tensor) -> int:
        """Set the weights to a copy of flat `weights`; returns the number of this load."""
        self.weights.copy_(weights)
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
        values = images
        for layer in self._layers:
            values = layer.forward(values)
        gradient = self._loss.compute(values, labels)
        for layer in reversed(self._layers):
            gradient = layer.backward(gradient)
        self.previous.copy_(self.weights)
        # Two roundings: the product, then the difference. Running statistics go the same way.
        self.weights.sub_(self._gradients.mul_(self._rates))
        compute_magnitude(self.weights)


def _build_cnn(channels: tuple[int, ...], input_shape: Shape, classes: int) -> Model:
    """Three 3x3 convolutions of strides 1, 2, 2 with BatchNorm and ReLU, then a linear layer."""
    strides = (1, 2, 2)
    if len(channels) != len(strides) or min(channels) < 1:
        raise GenesisError(
            f'architecture "cnn" takes three channel counts above zero, not {channels}'
        )
    layers: list[Layer] = []
    shape = input_shape
    for number, (filters, stride) in enumerate(zip(channels, strides, strict=True), start=1):
        layers.append(Conv2d(f"conv{number}", shape, filters, kernel=3, stride=stride, padding=1))
        shape = layers[-1].output_shape
        layers += [BatchNorm(f"bn{number}", shape), ReLU(shape)]
    layers.append(Flatten(shape))
    layers.append(Linear("fc", layers[-1].output_shape, classes))
    return Model(layers)


_ARCHITECTURES: dict[str, Callable[[tuple[int, ...], Shape, int], Model]] = {"cnn": _build_cnn}


def build_model(
    architecture: str, channels: tuple[int, ...], input_shape: Shape, classes: int
) -> Model:
    """The named architecture for images of `input_shape` (H, W, C).

    Raises
    ------
    GenesisError
        For a name that the registry lacks, or arguments that it cannot take.
    """
    if architecture not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise GenesisError(f'no architecture "{architecture}": this version has {known}')
    return _ARCHITECTURES[architecture](channels, input_shape, classes)
