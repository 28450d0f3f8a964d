"""The registry of architectures."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING

import torch

from pol_abci.learning.exact.convolution import Conv2d
from pol_abci.learning.exact.graph import Model
from pol_abci.learning.exact.layers import BatchNorm, Flatten, Linear, ReLU
from pol_abci.rules.errors import GenesisError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.learning.exact.layer import Layer
    from pol_abci.learning.exact.workspace import Shape

MODULE_PREFIX = "module:"
"""An architecture that begins so is a module of the chain's own code."""


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


def _build_from_torchvision(
    name: str, channels: tuple[int, ...], input_shape: Shape, classes: int
) -> Model:
    """A model of torchvision, with as many outputs as there are classes."""
    # Imported here: they take memory and a second, which small models need not spend.
    from torchvision import models  # noqa: PLC0415

    from pol_abci.learning.exact.converter import convert  # noqa: PLC0415 (as above)

    _refuse_channels(name, channels)
    with torch.device("meta"):  # no values: a chain draws its own
        module = models.get_model(name, weights=None, num_classes=classes)
    return convert(module, input_shape)


def _build_from_module(
    architecture: str, channels: tuple[int, ...], input_shape: Shape, classes: int
) -> Model:
    """A module of somebody's own, made by calling what `module:PACKAGE.MODULE:NAME` names."""
    from pol_abci.learning.exact.converter import convert  # noqa: PLC0415 (as above)

    _refuse_channels(architecture, channels)
    place, _, name = architecture.removeprefix(MODULE_PREFIX).partition(":")
    try:
        factory = getattr(importlib.import_module(place), name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise GenesisError(
            f'architecture "{architecture}" is not here ({error}): install the code of '
            "this chain, or put the folder that has it on PYTHONPATH"
        ) from error
    try:
        with torch.device("meta"):
            module = factory(num_classes=classes)
    except Exception as error:  # whatever a stranger's code raises
        raise GenesisError(
            f'architecture "{architecture}" cannot be made by num_classes={classes}: {error}'
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise GenesisError(f'architecture "{architecture}" makes no torch.nn.Module')
    model = convert(module, input_shape, is_drawn_by_graph=True)
    if model.classes != classes:
        raise GenesisError(
            f'architecture "{architecture}" has {model.classes} outputs for {classes} classes: '
            "let num_classes say how many"
        )
    return model


def _refuse_channels(architecture: str, channels: tuple[int, ...]) -> None:
    if channels:
        raise GenesisError(f'architecture "{architecture}" takes no channels, not {channels}')


_ARCHITECTURES: dict[str, Callable[[tuple[int, ...], Shape, int], Model]] = {
    "cnn": _build_cnn,
    "resnet18": partial(_build_from_torchvision, "resnet18"),
    "resnet34": partial(_build_from_torchvision, "resnet34"),
}


def build_model(
    architecture: str, channels: tuple[int, ...], input_shape: Shape, classes: int
) -> Model:
    """The named architecture for images of `input_shape` (H, W, C).

    Raises
    ------
    GenesisError
        For a name that the registry lacks, or arguments that it cannot take.
    """
    if architecture.startswith(MODULE_PREFIX):
        return _build_from_module(architecture, channels, input_shape, classes)
    if architecture not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise GenesisError(
            f'no architecture "{architecture}": this version has {known}, and your own as '
            f"{MODULE_PREFIX}PACKAGE.MODULE:NAME"
        )
    return _ARCHITECTURES[architecture](channels, input_shape, classes)
