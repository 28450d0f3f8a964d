"""Weights that never move: to the paper, requirements for nothing.

Counted, not trained: torchvision's ResNet18 on images of 32 by 32 has kernels of 3 by 3 over a
single pixel at its end, of which only the middle ever sees data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pol_abci.learning.convolution import Conv2d
from pol_abci.learning.models import build_model
from studies.attacks.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 32
CLASSES = 10
REQUIREMENTS = 16


def measure() -> Iterator[Row]:
    """How many of ResNet18's learnable values have taps that see data."""
    whole, live = count_values()
    dead = 1 - live / whole
    yield Row(
        "paper",
        (
            f"none: torchvision's ResNet18 at {SIZE} by {SIZE}, {REQUIREMENTS} requirements",
            f"{2**REQUIREMENTS:,}",
            f"{(2 / (1 + dead)) ** REQUIREMENTS:.0f}",
            "for all miners alike",
            f"{dead:.1%} of {whole:,} learnable values never move and meet any requirement",
        ),
    )


def count_values() -> tuple[int, int]:
    """Learnable values of the module, and those of them that a step can move."""
    model = build_model("resnet18", (), (SIZE, SIZE, 3), CLASSES)
    dead = sum(
        (math.prod(layer.kernel) * layer.input_shape[2] - layer.products) * layer.filters
        for layer in model.layers
        if isinstance(layer, Conv2d)
    )
    return model.weight_count + dead, model.weight_count
