"""scikit-learn's handwritten digits, out of its file: importing scikit-learn takes seconds."""

from __future__ import annotations

import zlib
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.learning.datasets.dataset import Dataset, DatasetMismatch

if TYPE_CHECKING:
    from pathlib import Path

_LIBRARY = "scikit-learn"
_FILE = "sklearn/datasets/data/digits.csv.gz"
_SHAPE = (1_797, 65)
"""Images, by their 64 pixels and the label."""
_TEST_INTERVAL = 5


def load_digits_sets(directory: Path | None) -> tuple[Dataset, Dataset]:
    """scikit-learn's handwritten digits, 8x8, pixels 0 … 16; every fifth image is for tests.

    Raises
    ------
    DatasetMismatch
        When the library is not here, or ships something else.
    """
    del directory
    try:
        library = distribution(_LIBRARY)
        values = np.loadtxt(str(library.locate_file(_FILE)), dtype=np.uint8, delimiter=",")
    except (PackageNotFoundError, OSError, EOFError, zlib.error, ValueError) as error:
        raise _refuse(f"cannot be read here ({error})") from error
    if values.shape != _SHAPE:
        raise _refuse(f"are {values.shape} values here, not {_SHAPE}")
    pixels, labels = values[:, :-1].reshape(-1, 8, 8, 1), values[:, -1]
    is_test = np.arange(len(values)) % _TEST_INTERVAL == 0
    train, test = (
        Dataset(
            pixels[part],
            labels[part],
            classes=10,
            pixel_divisor=16,
            source=f"{_LIBRARY} {library.version}",
        )
        for part in (~is_test, is_test)
    )
    return train, test


def _refuse(what: str) -> DatasetMismatch:
    return DatasetMismatch(
        f"{_LIBRARY}'s digits {what}: install the version that the constraints file names"
    )
