"""Fashion-MNIST, as four idx files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pol_abci.learning.datasets.dataset import Dataset, DatasetMismatch, DatasetMissing
from pol_abci.learning.datasets.idx import read_idx
from pol_abci.learning.datasets.places import get_folders

if TYPE_CHECKING:
    from pathlib import Path

_IDX_PARTS = ("train", "t10k")
"""How the files of D and of E begin."""


def load_fashion_mnist(directory: Path | None) -> tuple[Dataset, Dataset]:
    """28x28 pictures of clothes in four idx files, each with .gz or without.

    Raises
    ------
    DatasetMissing, DatasetMismatch, InvalidIdx
        When the files are not there, or not what they should be.
    """
    name = "fashion-mnist"
    folders = get_folders(name, directory)
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
