"""Batches of the train set and their augmentation, drawn from a stream; protocol section 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pol_abci.rules.seed import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pol_abci.learning.datasets import Dataset
    from pol_abci.rules.params import Address, Augmentation


@dataclass(frozen=True, slots=True)
class BatchDraw:
    """What a stream says of a batch, in drawn order: one entry an image in each list.

    Lists of what the chain's augmentation lacks are empty. Shifts (dy, dx) mean
    out[y, x] = in[y + dy, x + dx]; a cut-out is the corner (y, x) of a square.
    """

    ordinals: list[int]
    shifts: list[tuple[int, int]]
    flips: list[bool]
    cutouts: list[tuple[int, int]]


class TrainSet:
    """The train set D, ready to give batches at a fixed size."""

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        augmentation: Augmentation,
        device: torch.device,
    ) -> None:
        self._batch_size = batch_size
        self._augmentation = augmentation
        self._device = device
        self._count, self._height, self._width = dataset.images.shape[:3]
        self._divisor = dataset.pixel_divisor
        self._labels = dataset.labels.astype(np.int64)
        self._images = dataset.images

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def batch_size(self) -> int:
        """S."""
        return self._batch_size

    def draw(self, seed: bytes, address: Address, nonce: int, step: int) -> BatchDraw:
        """batch_t of a walk."""
        stream = Stream("batch", seed, address, nonce, step)
        uniform, augmentation = stream.uniform, self._augmentation
        draw = BatchDraw(stream.draw_distinct(self._batch_size, self._count), [], [], [])
        margin = augmentation.shift
        for _ in range(self._batch_size):
            if margin:
                dy = uniform(2 * margin + 1) - margin
                draw.shifts.append((dy, uniform(2 * margin + 1) - margin))
            if augmentation.flip:
                draw.flips.append(uniform(2) == 1)
            if augmentation.cutout:
                y = uniform(self._height)
                draw.cutouts.append((y, uniform(self._width)))
        return draw

    def gather(self, draw: BatchDraw) -> tuple[Tensor, Tensor]:
        """The inputs [S, H, W, C] float32 and labels [S] int64 of a drawn batch."""
        # A copy, because the index is a list: what follows may change it.
        pixels = self._images[draw.ordinals]
        if draw.shifts:
            pixels = _shift(pixels, draw.shifts, self._augmentation.shift)
        if draw.flips:
            pixels[draw.flips] = pixels[draw.flips][:, :, ::-1]
        side = self._augmentation.cutout
        for image, (y, x) in zip(pixels, draw.cutouts, strict=False):
            image[y : y + side, x : x + side] = 0
        return (
            to_inputs(pixels, self._divisor).to(self._device),
            torch.from_numpy(self._labels[draw.ordinals]).to(self._device),
        )

    def get_batch(self, ordinals: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The images of these ordinals as they are, as `gather` gives them."""
        return self.gather(BatchDraw(list(ordinals), [], [], []))


def _shift(
    pixels: NDArray[np.uint8], shifts: list[tuple[int, int]], margin: int
) -> NDArray[np.uint8]:
    """out[y, x] = in[y + dy, x + dx] of each image, zeros outside."""
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    # [S, dy + margin, dx + margin, H, W, C]: every shift of every image, as a view.
    image, row, column, channel = padded.strides
    shifted = np.lib.stride_tricks.as_strided(
        padded,
        (len(pixels), 2 * margin + 1, 2 * margin + 1, *pixels.shape[1:]),
        (image, row, column, row, column, channel),
        writeable=False,
    )
    dy, dx = zip(*shifts, strict=True)
    return shifted[np.arange(len(pixels)), np.add(dy, margin), np.add(dx, margin)]


def to_inputs(pixels: NDArray[np.uint8], divisor: int) -> Tensor:
    """The inputs pixel / divisor, exact because the divisor is a power of two."""
    return torch.from_numpy(np.multiply(pixels, np.float32(1.0 / divisor), dtype=np.float32))
