"""Datasets in canonical order, and their digests; protocol section 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.rules.errors import GenesisError, PolError
from pol_abci.rules.seed import hash_fields

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_DIGITS_COUNT = 1_797
_DIGITS_TEST_INTERVAL = 5


class DatasetMissing(PolError):
    """A dataset that is not on this machine."""


class DatasetMismatch(PolError):
    """A dataset other than the one that the chain learns."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images [count, H, W, C] and labels [count], both uint8, in canonical order.

    An input is pixel / pixel_divisor, a power of two.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: int
    pixel_divisor: int

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
        dataset.images.tobytes(),
        dataset.labels.tobytes(),
    )


def _load_digits(directory: Path | None) -> tuple[Dataset, Dataset]:
    """scikit-learn's handwritten digits, 8x8, pixels 0 … 16; every fifth image is for tests."""
    del directory
    # Imported here: it takes a second, and only a start-up that loads digits needs it.
    from sklearn.datasets import load_digits  # noqa: PLC0415

    images, labels = load_digits(return_X_y=True)
    if len(labels) != _DIGITS_COUNT:
        raise DatasetMismatch(
            f"scikit-learn's digits are {len(labels)} images here, not {_DIGITS_COUNT}: "
            "install the version that the constraints file names"
        )
    pixels = images.astype(np.uint8).reshape(-1, 8, 8, 1)
    is_test = np.arange(len(labels)) % _DIGITS_TEST_INTERVAL == 0
    train, test = (
        Dataset(pixels[part], labels[part].astype(np.uint8), classes=10, pixel_divisor=16)
        for part in (~is_test, is_test)
    )
    return train, test


_LOADERS: dict[str, Callable[[Path | None], tuple[Dataset, Dataset]]] = {"digits": _load_digits}


def load_dataset(name: str, directory: Path | None = None) -> tuple[Dataset, Dataset]:
    """The train set D and the test set E of a name that the registry has.

    Parameters
    ----------
    name
        As genesis has it.
    directory
        Where files are, for datasets that do not come with a package. Nothing is downloaded.

    Raises
    ------
    GenesisError
        For an unknown name.
    DatasetMissing, DatasetMismatch
        When the files are not there, or not what they should be.
    """
    if name not in _LOADERS:
        raise GenesisError(f'no dataset "{name}": this version has {", ".join(sorted(_LOADERS))}')
    return _LOADERS[name](directory)


def check_digest(name: str, part: str, dataset: Dataset, expected: bytes) -> None:
    """Refuse a dataset that is not the chain's; `part` is "train" or "test".

    Raises
    ------
    DatasetMismatch
        With both digests.
    """
    digest = compute_digest(dataset)
    if digest != expected:
        raise DatasetMismatch(
            f"the {part} set of {name} on this machine is not the chain's: its digest is "
            f"{digest.hex()}, genesis says {expected.hex()}; get the same edition of the dataset"
        )
