"""Weights that never move: to the paper, requirements for nothing.

Counted, not trained: torchvision's ResNet18 on images of 32 by 32 has kernels of 3 by 3 over a
single pixel at its end, of which only the middle ever sees data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.learning.convolution import Conv2d
from studies.attacks.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 32
CLASSES = 10
WIDTHS = (64, 128, 256, 512)
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
    convolutions = [Conv2d("conv1", (SIZE, SIZE, 3), WIDTHS[0], 7, 2, 3)]
    size = convolutions[0].output_shape[0]
    size = (size + 2 - 3) // 2 + 1  # max pooling of 3 by 3, stride 2, padding 1
    channels = WIDTHS[0]
    for width in WIDTHS:
        stride = 1 if width == WIDTHS[0] else 2
        first = Conv2d("conv", (size, size, channels), width, 3, stride, 1)
        if channels != width:
            convolutions.append(Conv2d("downsample", (size, size, channels), width, 1, stride, 0))
        size, channels = first.output_shape[0], width
        convolutions.append(first)
        convolutions += [Conv2d("conv", (size, size, width), width, 3, 1, 1)] * 3
    rest = sum(2 * each.filters for each in convolutions) + channels * CLASSES + CLASSES
    whole = sum(each.kernel**2 * each.input_shape[2] * each.filters for each in convolutions)
    live = sum(each.products * each.filters for each in convolutions)
    return whole + rest, live + rest
