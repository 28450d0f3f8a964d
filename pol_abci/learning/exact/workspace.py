"""Memory that the layers of a model share, because each needs it only while it computes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


class Workspace:
    """Memory by purpose. All that is asked for under one name lies at the same place.

    Whoever asks may use it within one call of its own, and finds it changed in the next.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._storages: dict[str, torch.UntypedStorage] = {}

    def get(self, purpose: str | None, shape: Shape, dtype: torch.dtype) -> Tensor:
        """A tensor at the memory of a purpose; with None at memory of its own.

        The memory grows to the biggest tensor asked for. Its content is undefined.
        """
        if purpose is None:
            return torch.empty(shape, dtype=dtype, device=self._device)
        empty = torch.empty(0, dtype=dtype, device=self._device)
        storage = self._storages.setdefault(purpose, empty.untyped_storage())
        size = math.prod(shape) * dtype.itemsize
        if size > storage.nbytes():
            # In place: tensors that lie there already move with it.
            storage.resize_(size)
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        return empty.set_(storage, 0, shape, strides)
