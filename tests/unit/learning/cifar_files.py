"""Files of CIFAR-10's two editions, with a few images made here."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_images(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)


def write_image_folder(folder: Path, train: int = 2, test: int = 1) -> dict[str, NDArray[np.uint8]]:
    """PNG files, so many a class for training and for tests, in an order unlike their names'."""
    pixels = {}
    for part, count in (("train", train), ("test", test)):
        pixels[part] = make_images(count * len(CLASSES), count)
        for index in reversed(range(len(pixels[part]))):
            place = folder / part / CLASSES[index // count]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[part][index]).save(place / f"{index % count:04}.png")
    return pixels


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which the original files are full of."""

    dispatch: ClassVar[Any] = pickle._Pickler.dispatch.copy()
    write: Callable[[bytes], None]

    def save_string(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)

    dispatch[bytes] = save_string


def dump(content: object) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


def write_batches(folder: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Six batches of three images, pickled as the originals are."""
    folder.mkdir(parents=True)
    images, labels = make_images(18, 7), [(3 * index) % 10 for index in range(18)]
    rows = images.transpose(0, 3, 1, 2).reshape(18, -1)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for number, name in enumerate(names):
        part = slice(3 * number, 3 * number + 3)
        content = {b"data": rows[part], b"labels": labels[part], b"batch_label": name.encode()}
        (folder / name).write_bytes(dump(content))
    return images, labels
