"""A model's weights as PyTorch's own modules have them: the same numbers, in another order.

Protocol section 3 keeps images as H, W, C and a convolution as a matrix; torch.nn keeps C, H, W
and [filters, channels, height, width]. Names are the same. Loads into a module whose layers have
the chain's names with `load_state_dict(strict=True)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pol_abci.learning.exact.convolution import Conv2d
from pol_abci.learning.exact.layers import BatchNorm, Linear

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.exact.graph import Model
    from pol_abci.learning.exact.window import Axis
    from pol_abci.learning.exact.workspace import Shape


def to_torch(model: Model, flat: Tensor, steps: int) -> dict[str, Tensor]:
    """Lay out flat weights as a state dict; `steps` is how many steps have made them.

    A tap that never sees data does not exist on the chain, and is 0 here.
    """
    tensors = model.split(flat)
    for layer in model.layers:
        match layer:
            case Conv2d():
                name = f"{layer.name}.weight"
                tensors[name] = _lay_out_convolution(layer, tensors[name])
            case BatchNorm():
                tensors[f"{layer.name}.num_batches_tracked"] = torch.tensor(steps)
            case Linear():
                name = f"{layer.name}.weight"
                tensors[name] = _lay_out_linear(tensors[name], layer.flattened)
            case _:
                assert not layer.tensors, f"no layout for {layer}"
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _lay_out_convolution(layer: Conv2d, weight: Tensor) -> Tensor:
    """[live taps * C, O] to [O, C, kernel, kernel]."""
    rows, columns = layer.window.rows, layer.window.columns
    live = weight.view(rows.taps, columns.taps, layer.input_shape[2], layer.filters)
    full = torch.zeros(layer.filters, layer.input_shape[2], *layer.kernel)
    full[:, :, _get_live(rows), _get_live(columns)] = live.permute(3, 2, 0, 1)
    return full


def _get_live(axis: Axis) -> slice:
    """Taps of the kernel that ever see data."""
    first = axis.start - axis.before + axis.padding
    return slice(first, first + axis.taps)


def _lay_out_linear(weight: Tensor, flattened: Shape | None) -> Tensor:
    """[H * W * C, O] to [O, C * H * W]; [in, O] to [O, in] where no image was flattened."""
    if flattened is None:
        return weight.t()
    height, width, channels = flattened
    images = weight.view(height, width, channels, -1)
    return images.permute(3, 2, 0, 1).reshape(weight.shape[1], -1)
