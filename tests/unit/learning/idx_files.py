"""Fashion-MNIST's four idx files, of a few random images."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def encode_idx(values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    header = bytes([0, 0, 8, values.ndim])
    return header + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def make_images(count: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28)).astype(np.uint8)


def write_dataset(folder: Path) -> None:
    """A train set of 5 images, plain, and a test set of 3, compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / IMAGES).write_bytes(encode_idx(make_images(5, 1)))
    (folder / LABELS).write_bytes(encode_idx(np.arange(5, dtype=np.uint8)))
    images, labels = make_images(3, 2), np.array([9, 0, 4], np.uint8)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(encode_idx(images)))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encode_idx(labels)))
