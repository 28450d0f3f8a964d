"""Datasets in canonical order, and their digests; protocol section 2. One file a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.learning.datasets.cifar import load_cifar10, load_cifar10_test1000
from pol_abci.learning.datasets.dataset import (
    Dataset,
    DatasetMismatch,
    DatasetMissing,
    compute_digest,
)
from pol_abci.learning.datasets.digits import load_digits_sets
from pol_abci.learning.datasets.fashion_mnist import load_fashion_mnist
from pol_abci.rules.errors import GenesisError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "Dataset",
    "DatasetMismatch",
    "DatasetMissing",
    "check_digest",
    "compute_digest",
    "get_dataset_names",
    "load_dataset",
]

_LOADERS: dict[str, Callable[[Path | None], tuple[Dataset, Dataset]]] = {
    "cifar10": load_cifar10,
    "cifar10-test1000": load_cifar10_test1000,
    "digits": load_digits_sets,
    "fashion-mnist": load_fashion_mnist,
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
