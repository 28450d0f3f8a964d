"""Flat weights and their canonical bytes; protocol section 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import zstandard

from pol_abci.rules import merkle
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.exact.graph import Model

VALUE_BYTES = 4
PACK_LEVEL = 3
"""zstd's own choice. Weights are nearly random: a higher one costs seconds and saves nothing."""


class WeightsMismatch(PolError):
    """Bytes that are not weights of this model."""


def to_bytes(flat: Tensor) -> bytes:
    """Canonical bytes of float32 values: little-endian, in order, -0 as +0."""
    # Adding +0 turns -0 into +0 and leaves every other value as it is.
    return (flat.cpu().numpy() + np.float32(0.0)).astype("<f4", copy=False).tobytes()


def from_bytes(model: Model, data: bytes) -> Tensor:
    """Flat weights of the model from canonical bytes.

    Raises
    ------
    WeightsMismatch
        When there are more or fewer values than the model has, or a value no head can have.
    """
    if len(data) != VALUE_BYTES * model.size:
        raise WeightsMismatch(
            f"{len(data)} bytes are not weights of this model, which has {model.size} values "
            f"({VALUE_BYTES * model.size} bytes)"
        )
    values = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise WeightsMismatch("a value of these weights is not finite: no head has such weights")
    return torch.from_numpy(values)


def pack(flat: Tensor) -> bytes:
    """Canonical bytes as one zstd frame that says how long they are."""
    return zstandard.ZstdCompressor(level=PACK_LEVEL).compress(to_bytes(flat))


def unpack(model: Model, frame: bytes) -> Tensor:
    """Flat weights of the model from one zstd frame, and nothing beside it.

    The frame must say that it holds just as many bytes as the model has, before any is made of it.

    Raises
    ------
    WeightsMismatch
        For any other bytes, and as `from_bytes`.
    """
    size = VALUE_BYTES * model.size
    try:
        announced = zstandard.get_frame_parameters(frame).content_size
        if announced != size:
            raise WeightsMismatch(
                f"a zstd frame of {announced} bytes is announced: this model's weights have {size}"
            )
        data = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise WeightsMismatch(f"the weights are not one zstd frame: {error}") from error
    return from_bytes(model, data)


def compute_root(flat: Tensor) -> bytes:
    """root(W), 32 bytes."""
    return merkle.compute_weights_root(to_bytes(flat))
