"""What a dataset is: images and labels in canonical order, and their digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.rules.errors import PolError
from pol_abci.rules.seed import hash_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DatasetMissing(PolError):
    """A dataset that is not on this machine."""


class DatasetMismatch(PolError):
    """A dataset other than the one that the chain learns."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images [count, H, W, C] and labels [count], both uint8, in canonical order.

    An input is pixel / pixel_divisor, a power of two. `source` says where it was found.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: int
    pixel_divisor: int
    source: str = ""

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8
        assert self.labels.dtype == np.uint8
        assert self.images.ndim == 4  # noqa: PLR2004 - count, H, W, C
        assert self.labels.shape == self.images.shape[:1]

    def __len__(self) -> int:
        return len(self.labels)


def compute_digest(dataset: Dataset) -> bytes:
    """H("dataset"; count, H, W, C, classes, pixels NHWC, labels as bytes), 32 bytes."""
    return hash_fields(
        "dataset",
        *dataset.images.shape,
        dataset.classes,
        np.ascontiguousarray(dataset.images).data.cast("B"),
        dataset.labels.tobytes(),
    )
