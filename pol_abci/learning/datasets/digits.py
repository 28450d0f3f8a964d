"""scikit-learn's handwritten digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pol_abci.learning.datasets.dataset import Dataset, DatasetMismatch

if TYPE_CHECKING:
    from pathlib import Path

_COUNT = 1_797
_TEST_INTERVAL = 5


def load_digits_sets(directory: Path | None) -> tuple[Dataset, Dataset]:
    """scikit-learn's handwritten digits, 8x8, pixels 0 … 16; every fifth image is for tests."""
    del directory
    # Imported here: it takes a second, and only a start-up that loads digits needs it.
    import sklearn  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415

    source = f"scikit-learn {sklearn.__version__}"
    images, labels = load_digits(return_X_y=True)
    if len(labels) != _COUNT:
        raise DatasetMismatch(
            f"scikit-learn's digits are {len(labels)} images here, not {_COUNT}: "
            "install the version that the constraints file names"
        )
    pixels = images.astype(np.uint8).reshape(-1, 8, 8, 1)
    is_test = np.arange(len(labels)) % _TEST_INTERVAL == 0
    train, test = (
        Dataset(
            pixels[part],
            labels[part].astype(np.uint8),
            classes=10,
            pixel_divisor=16,
            source=source,
        )
        for part in (~is_test, is_test)
    )
    return train, test
