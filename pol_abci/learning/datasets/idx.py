"""Files of the idx format, in which MNIST and its successors come, plain or compressed by gzip.

Two zero bytes, the type 0x08 of unsigned bytes, the number of dimensions; each dimension as a u32,
most significant byte first; then the values, the last dimension running fastest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_UNSIGNED_BYTES = 0x08
_MAX_VALUES = 2**30
"""A header may claim anything: more than this is not read into memory."""


class InvalidIdx(PolError):
    """A file that cannot be read as idx."""


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Values of a file that must have so many dimensions; a name ending in .gz is compressed.

    Raises
    ------
    InvalidIdx
        When it cannot be read, is damaged, or holds something else.
    """
    try:
        with _open(path) as file:
            return _parse(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidIdx(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}; get this file again"
        ) from error


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _parse(file: BinaryIO, path: Path, dimensions: int) -> NDArray[np.uint8]:
    expected = bytes([0, 0, _UNSIGNED_BYTES, dimensions])
    magic = file.read(len(expected))
    if magic != expected:
        raise InvalidIdx(
            f"{path} begins with {magic.hex()}, not with {expected.hex()} as an idx file of bytes "
            f"in {dimensions} dimensions does; get this file again"
        )
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise InvalidIdx(f"{path} ends within its header; get this file again")
    shape = struct.unpack(f">{dimensions}I", header)
    size = math.prod(shape)
    if size > _MAX_VALUES:
        raise InvalidIdx(f"{path} claims {size} values, too many for a dataset")
    # One more than there should be, so that a file that is too long is seen.
    values = file.read(size + 1)
    if len(values) != size:
        length = f"{len(values)}" if len(values) < size else f"more than {size}"
        raise InvalidIdx(
            f"{path} holds {length} values where its header says {size}; get this file again"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)
