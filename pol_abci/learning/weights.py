"""Flat weights and their canonical bytes; protocol section 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pol_abci.rules import merkle
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.graph import Model

VALUE_BYTES = 4


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


def compute_root(flat: Tensor) -> bytes:
    """root(W), 32 bytes."""
    return merkle.compute_weights_root(to_bytes(flat))
