"""A layer bound to weights of its own, for tests of one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pol_abci.learning.exact.layer import Binding
from pol_abci.learning.exact.workspace import Workspace
from pol_abci.rules.params import ArithmeticParams

if TYPE_CHECKING:
    from pol_abci.learning.exact.layer import BoundLayer, Layer
    from tests.unit.learning import integer_reference as reference

CPU = torch.device("cpu")


def bind(
    layer: Layer,
    weights: dict[str, reference.Floats],
    batch: int,
    bits: tuple[int, int] = (16, 8),
    *,
    is_first: bool = False,
) -> tuple[BoundLayer, dict[str, torch.Tensor]]:
    gradients = {name: torch.zeros(value.shape) for name, value in weights.items()}
    binding = Binding(
        weights={name: torch.from_numpy(value.copy()) for name, value in weights.items()},
        gradients=gradients,
        batch_size=batch,
        arithmetic=ArithmeticParams(version=1, forward_bits=bits[0], backward_bits=bits[1]),
        device=CPU,
        workspace=Workspace(CPU),
        magnitudes={},
    )
    return layer.bind(binding, is_first=is_first), gradients


def make(*shape: int, seed: int, scale: float = 1.0) -> reference.Floats:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
