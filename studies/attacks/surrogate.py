"""Gradients in plain float32 by autograd, laid out as the chain's flat weights are.

What an attacker computes once at the head and looks up afterwards. With running statistics the
gradient of a batch is the mean of its images' gradients, so that those can be kept one by one;
with the batch's own statistics it can't be taken apart, and costs a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from pol_abci.learning.exact.convolution import Conv2d
from pol_abci.learning.exact.layers import EPSILON, BatchNorm, Linear, ReLU
from pol_abci.learning.exact.torch_layout import to_torch

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.exact.graph import Model


def compute_loss(
    model: Model, flat: Tensor, images: Tensor, labels: Tensor, *, by_batch: bool
) -> Tensor:
    """Mean cross-entropy of images [N, H, W, C]; differentiable in the flat weights.

    `by_batch`: BatchNorm takes the statistics of these images, else the running ones.
    """
    tensors = to_torch(model, flat, steps=0)
    values = images.permute(0, 3, 1, 2)
    for layer in model.layers:
        match layer:
            case Conv2d():
                weight = tensors[f"{layer.name}.weight"]
                values = functional.conv2d(
                    values, weight, stride=layer.stride, padding=layer.padding
                )
            case BatchNorm():
                gamma, beta, mean, variance = (tensors[spec.name] for spec in layer.tensors)
                values = functional.batch_norm(
                    values,
                    None if by_batch else mean.detach(),
                    None if by_batch else variance.detach(),
                    gamma,
                    beta,
                    training=by_batch,
                    eps=EPSILON,
                )
            case ReLU():
                values = functional.relu(values)
            case Linear():
                weight, bias = (tensors[spec.name] for spec in layer.tensors)
                values = functional.linear(values, weight, bias)
            case _:
                values = values.flatten(1)  # torch's order, which `to_torch` gives the weight
    return functional.cross_entropy(values, labels)


def compute_gradient(
    model: Model, flat: Tensor, images: Tensor, labels: Tensor, *, by_batch: bool
) -> Tensor:
    """Gradient of the loss, flat, learnable values and running statistics (0) alike."""
    leaf = flat.clone().requires_grad_()
    loss = compute_loss(model, leaf, images, labels, by_batch=by_batch)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def compute_image_gradients(model: Model, flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each image's loss by itself, [N, size], with running statistics."""

    def compute(weights: Tensor, image: Tensor, label: Tensor) -> Tensor:
        return compute_loss(model, weights, image[None], label[None], by_batch=False)

    gradients: Tensor = torch.func.vmap(torch.func.grad(compute), in_dims=(None, 0, 0))(
        flat, images, labels
    )
    return gradients
