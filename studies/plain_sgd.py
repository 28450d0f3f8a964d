"""Plain SGD: torch's own layers in float32, the same first weights and batches of the same law."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torchvision import models

from pol_abci.learning.exact.torch_layout import to_torch
from pol_abci.learning.sampling import to_inputs
from pol_abci.learning.task import parse_learning_rate
from pol_abci.rules.params import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pol_abci.learning.datasets import Dataset
    from pol_abci.learning.task import Task

IMAGES_AT_ONCE = 512
_SEED = bytes(range(32))


def draw_batch(task: Task, nonce: int, step: int) -> tuple[Tensor, Tensor]:
    """Images [S, H, W, C] and labels of a step; another nonce gives other batches."""
    return task.train.gather(task.train.draw(_SEED, Address(bytes(20)), nonce, step))


def train(
    task: Task, parts: tuple[Dataset, ...], steps: int, count_every: int, nonce: int = 0
) -> Iterator[tuple[int, list[int]]]:
    """Train from the task's first weights; (steps so far, correct of each part), now and then."""
    model = build_native(task)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=parse_learning_rate(task.params.task.learning_rate)
    )
    for t in range(1, steps + 1):
        images, labels = draw_batch(task, nonce, t)
        optimizer.zero_grad()
        torch.autograd.backward(
            nn.functional.cross_entropy(model(images.permute(0, 3, 1, 2)), labels)
        )
        optimizer.step()
        if t % count_every == 0:
            model.eval()
            yield t, [_count(model, part) for part in parts]
            model.train()


def build_native(task: Task) -> nn.Module:
    """The task's architecture in torch's layers, with its first weights."""
    architecture = task.params.task.architecture
    if architecture == "cnn":
        native = _build_cnn(task)
    else:
        native = models.get_model(architecture, weights=None, num_classes=task.test.classes)
    native.load_state_dict(to_torch(task.model, task.initial_weights, steps=0), strict=True)
    return native


def _build_cnn(task: Task) -> nn.Module:
    layers: dict[str, nn.Module] = {}
    channels = task.test.images.shape[3]
    for number, (filters, stride) in enumerate(
        zip(task.params.task.channels, (1, 2, 2), strict=True), start=1
    ):
        layers[f"conv{number}"] = nn.Conv2d(
            channels, filters, 3, stride=stride, padding=1, bias=False
        )
        layers[f"bn{number}"] = nn.BatchNorm2d(filters)
        layers[f"relu{number}"] = nn.ReLU()
        channels = filters
    layers["flatten"] = nn.Flatten()
    inputs, classes = task.model.tensors[-2].shape
    layers["fc"] = nn.Linear(inputs, classes)
    return nn.Sequential(OrderedDict(layers))


@torch.inference_mode()
def _count(model: nn.Module, part: Dataset) -> int:
    correct = 0
    for start in range(0, len(part), IMAGES_AT_ONCE):
        end = start + IMAGES_AT_ONCE
        images = to_inputs(part.images[start:end], part.pixel_divisor).permute(0, 3, 1, 2)
        labels = torch.from_numpy(part.labels[start:end].astype(np.int64))
        correct += int((model(images).argmax(1) == labels).sum())
    return correct
