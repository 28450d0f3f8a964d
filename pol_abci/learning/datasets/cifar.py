"""CIFAR-10: 60,000 pictures of 32 by 32, in 10 classes, from either of two editions.

The original is `cifar-10-batches-py`, pickled files that torchvision reads too. Others are folders
of image files, `train|test/CLASS/NAME`, torchvision's ImageFolder; what is decoded from JPEG is
another dataset than the original, with other digests. Whichever it is, it is decoded once.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from pol_abci.learning.datasets.dataset import Dataset, DatasetMismatch, DatasetMissing
from pol_abci.learning.datasets.decoded import load_decoded
from pol_abci.learning.datasets.places import get_folders
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from pol_abci.learning.datasets.decoded import Pixels


class DatasetNotFetched(PolError):
    """A download that did not come."""


NAME = "cifar10"
BATCHES_FOLDER = "cifar-10-batches-py"

_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_SIDE = 32
_CHANNELS = 3
_BATCH_FILES = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
_PARTS = ("train", "test")
_IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_IMAGES_A_CLASS_OF_TEST1000 = 100
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


def load_cifar10(directory: Path | None) -> tuple[Dataset, Dataset]:
    """The edition that lies in the folder."""
    source, files = _find_files(directory)
    read = _read_batches if source.name == BATCHES_FOLDER else _read_image_folder
    parts = load_decoded(NAME, source, files, lambda: {part: read(source, part) for part in _PARTS})
    train, test = (
        Dataset(*parts[part], classes=len(_CLASSES), pixel_divisor=256, source=str(source))
        for part in _PARTS
    )
    return train, test


def load_cifar10_test1000(directory: Path | None) -> tuple[Dataset, Dataset]:
    """The same, but of the test set the first 100 images of each class, in its order."""
    train, test = load_cifar10(directory)
    is_taken = np.zeros(len(test), dtype=bool)
    for label in range(test.classes):
        is_taken[np.flatnonzero(test.labels == label)[:_IMAGES_A_CLASS_OF_TEST1000]] = True
    small = Dataset(
        test.images[is_taken],
        test.labels[is_taken],
        classes=test.classes,
        pixel_divisor=test.pixel_divisor,
        source=test.source,
    )
    return train, small


def fetch_cifar10(directory: Path) -> Path:
    """Let torchvision download the original edition into a folder; the folder that it made.

    Raises
    ------
    DatasetNotFetched
        When the network is not there, or what came is not the archive.
    """
    # Imported here: only who downloads needs it.
    from torchvision.datasets import CIFAR10  # noqa: PLC0415

    try:
        directory.mkdir(parents=True, exist_ok=True)
        CIFAR10(str(directory), download=True)
    except (OSError, RuntimeError) as error:
        raise DatasetNotFetched(
            f"{NAME} could not be fetched from {CIFAR10.url} into {directory}: {error}; fetch "
            f"{CIFAR10.filename} on a machine with a network, and unpack it there"
        ) from error
    return directory / BATCHES_FOLDER


def _find_files(directory: Path | None) -> tuple[Path, list[Path]]:
    """The folder of the edition, and the files that it consists of."""
    folders = get_folders(NAME, directory)
    for folder in folders:
        batches = folder if folder.name == BATCHES_FOLDER else folder / BATCHES_FOLDER
        if batches.is_dir():
            return batches, [batches / name for part in _PARTS for name in _BATCH_FILES[part]]
        if all((folder / part).is_dir() for part in _PARTS):
            files = [file for part in _PARTS for file, _ in _list_images(folder / part)]
            return folder, files
    raise DatasetMissing(
        f"{NAME} is not on this machine: there is no {BATCHES_FOLDER} and no train and test in "
        f"{' or '.join(str(folder) for folder in folders)}; get it with `pol-abci dataset fetch "
        f"{NAME} --data-dir FOLDER`, or name the folder that has it with --data-dir, for a home "
        "that exists as data_dir in its pol.toml"
    )


def _list_images(folder: Path) -> list[tuple[Path, int]]:
    """Image files and labels: by class name, then file name, as torchvision's ImageFolder."""
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if found != list(_CLASSES):
        raise DatasetMismatch(
            f"{folder} has the folders {', '.join(found) or 'none'}; {NAME} has one for each of "
            f"{', '.join(_CLASSES)}"
        )
    return [
        (folder / name / file, label)
        for label, name in enumerate(_CLASSES)
        for file in sorted(path.name for path in (folder / name).iterdir())
        if file.lower().endswith(_IMAGE_ENDINGS)
    ]


def _read_image_folder(source: Path, part: str) -> Pixels:
    # Imported here: whoever finds the images decoded does not need it.
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    files = _list_images(source / part)
    images = np.empty((len(files), _SIDE, _SIDE, _CHANNELS), dtype=np.uint8)
    for index, (file, _) in enumerate(files):
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise DatasetMismatch(f"{file} is no image that can be read: {error}") from error
        if pixels.shape != images.shape[1:]:
            raise DatasetMismatch(f"{file} is {pixels.shape[1]} by {pixels.shape[0]}, not 32 by 32")
        images[index] = pixels
    return images, np.array([label for _, label in files], dtype=np.uint8)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy's arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch of images does")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_batches(source: Path, part: str) -> Pixels:
    batches = [_read_batch(source / name) for name in _BATCH_FILES[part]]
    return (
        np.concatenate([images for images, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
    )


def _read_batch(file: Path) -> Pixels:
    try:
        with file.open("rb") as stream:
            rows, labels = _unpickle_batch(stream)
    except FileNotFoundError as error:
        raise DatasetMissing(f"{file} is missing: get the archive again") from error
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise DatasetMismatch(f"{file} is no batch of {NAME}: {error}") from error
    # Each row has the red plane, the green and the blue one.
    images = rows.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return images, labels


def _unpickle_batch(stream: BinaryIO) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    content = _ArraysOnly(stream, encoding="bytes").load()
    rows, labels = content[b"data"], content[b"labels"]
    if (
        not isinstance(rows, np.ndarray)
        or rows.dtype != np.uint8
        or rows.shape != (len(labels), _CHANNELS * _SIDE * _SIDE)
        or not all(isinstance(label, int) and 0 <= label < len(_CLASSES) for label in labels)
    ):
        raise ValueError("its arrays have other shapes or values")
    return rows, np.array(labels, dtype=np.uint8)
