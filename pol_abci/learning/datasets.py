"""Datasets in canonical order, and their digests; protocol section 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pol_abci.learning.idx import read_idx
from pol_abci.rules.errors import GenesisError, PolError
from pol_abci.rules.seed import hash_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_DIGITS_COUNT = 1_797
_DIGITS_TEST_INTERVAL = 5
_IDX_PARTS = ("train", "t10k")
"""How the files of D and of E begin."""
SYSTEM_FOLDER = Path("/usr/share/datasets")
"""Where Debian's dataset packages put a folder each."""


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
        dataset.images.tobytes(),
        dataset.labels.tobytes(),
    )


def _load_digits(directory: Path | None) -> tuple[Dataset, Dataset]:
    """scikit-learn's handwritten digits, 8x8, pixels 0 … 16; every fifth image is for tests."""
    del directory
    # Imported here: it takes a second, and only a start-up that loads digits needs it.
    import sklearn  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415

    source = f"scikit-learn {sklearn.__version__}"
    images, labels = load_digits(return_X_y=True)
    if len(labels) != _DIGITS_COUNT:
        raise DatasetMismatch(
            f"scikit-learn's digits are {len(labels)} images here, not {_DIGITS_COUNT}: "
            "install the version that the constraints file names"
        )
    pixels = images.astype(np.uint8).reshape(-1, 8, 8, 1)
    is_test = np.arange(len(labels)) % _DIGITS_TEST_INTERVAL == 0
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


def _load_fashion_mnist(directory: Path | None) -> tuple[Dataset, Dataset]:
    """28x28 pictures of clothes in four idx files, each with .gz or without."""
    name = "fashion-mnist"
    folders = [SYSTEM_FOLDER / name] if directory is None else [directory, directory / name]
    sets = []
    for part in _IDX_PARTS:
        images_file = _find_file(name, folders, f"{part}-images-idx3-ubyte")
        labels_file = _find_file(name, folders, f"{part}-labels-idx1-ubyte")
        images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
        if len(images) != len(labels):
            raise DatasetMismatch(
                f"{images_file} has {len(images)} images, {labels_file} {len(labels)} labels: "
                "they are not of one edition"
            )
        sets.append(
            Dataset(
                images[..., np.newaxis],
                labels,
                classes=10,
                pixel_divisor=256,
                source=str(images_file.parent),
            )
        )
    train, test = sets
    return train, test


def _find_file(name: str, folders: list[Path], stem: str) -> Path:
    for folder in folders:
        for path in (folder / f"{stem}.gz", folder / stem):
            if path.is_file():
                return path
    raise DatasetMissing(
        f"{name} is not on this machine: there is no {stem}.gz or {stem} in "
        f"{' or '.join(str(folder) for folder in folders)}; install it (Debian, Ubuntu: apt "
        f"install dataset-{name}), or name the folder that has its four files with --data-dir, "
        "for a home that exists as data_dir in its pol.toml"
    )


_LOADERS: dict[str, Callable[[Path | None], tuple[Dataset, Dataset]]] = {
    "digits": _load_digits,
    "fashion-mnist": _load_fashion_mnist,
}


def get_dataset_names() -> list[str]:
    """Every name that `task.dataset` may have, in alphabetical order."""
    return sorted(_LOADERS)


def load_dataset(name: str, directory: Path | None = None) -> tuple[Dataset, Dataset]:
    """The train set D and the test set E of a name that the registry has.

    Parameters
    ----------
    name
        As genesis has it.
    directory
        Where the files are, in it or in a folder of the dataset's name in it; None is where
        Debian's packages put them. Nothing is downloaded.

    Raises
    ------
    GenesisError
        For an unknown name.
    DatasetMissing, DatasetMismatch, InvalidIdx
        When the files are not there, or not what they should be.
    """
    if name not in _LOADERS:
        raise GenesisError(
            f'no dataset "{name}": this version has {", ".join(get_dataset_names())}'
        )
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
            f"the {part} set of {name} from {dataset.source} is not the chain's: its digest is "
            f"{digest.hex()}, genesis says {expected.hex()}; get the same edition of the dataset"
        )
