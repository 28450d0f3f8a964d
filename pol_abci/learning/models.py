"""The registry of architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.learning.convolution import Conv2d
from pol_abci.learning.graph import Model
from pol_abci.learning.layers import BatchNorm, Flatten, Linear, ReLU
from pol_abci.rules.errors import GenesisError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.learning.layer import Layer, Shape


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
        layers.append(
            Conv2d(f"conv{number}", shape, filters, (3, 3), (stride, stride), padding=(1, 1))
        )
        shape = layers[-1].output_shape
        layers += [BatchNorm(f"bn{number}", shape), ReLU(shape)]
    layers.append(Flatten(shape))
    layers.append(Linear("fc", layers[-1].output_shape, classes, flattened=shape))
    return Model.chain(layers)


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
