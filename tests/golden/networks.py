"""Golden hashes of two residual networks: steps and an evaluation, on any device and torch.

    python -m tests.golden.networks [DEVICE]

prints `networks.json` as it is computed here. It changes only when the protocol's arithmetic, first
weights or hashes do. ResNet18 is written out here, so that a torch without torchvision will do.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pol_abci.learning.exact.bound_model import BoundModel
from pol_abci.learning.exact.converter import convert
from pol_abci.learning.weights import compute_root
from pol_abci.rules.params import ArithmeticParams
from tests.unit.learning.residual_module import SmallResidual

if TYPE_CHECKING:
    from torch import Tensor

    from pol_abci.learning.exact.workspace import Shape

FILE = Path(__file__).with_name("networks.json")
CHAIN_SEED = bytes(range(32))
STEPS = 3
BATCH_SIZE = 4
CLASSES = 10
RATE = float(np.float32(0.001))
BITS = ((16, 8), (8, 8), (20, 20))


class BasicBlock(nn.Module):
    """torchvision's block of ResNet18 and 34, with its names."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if stride != 1 or inputs != filters:
            convolution = nn.Conv2d(inputs, filters, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(filters))

    def forward(self, values: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(values)))
        out = self.bn2(self.conv2(out))
        out += values if self.downsample is None else self.downsample(values)
        result: Tensor = self.relu(out)
        return result


class ResNet18(nn.Module):
    """torchvision's `resnet18`, with its names."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, filters in enumerate((64, 128, 256, 512), start=1):
            first = BasicBlock(inputs, filters, 1 if number == 1 else 2)
            self.add_module(f"layer{number}", nn.Sequential(first, BasicBlock(filters, filters, 1)))
            inputs = filters
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in range(1, 5):
            values = self.get_submodule(f"layer{number}")(values)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(values), 1))
        return logits


NETWORKS: dict[str, tuple[type[SmallResidual | ResNet18], Shape]] = {
    "residual": (SmallResidual, (9, 8, 2)),
    "resnet18": (ResNet18, (32, 32, 3)),
}


def draw_images(name: str, count: int, shape: Shape) -> Tensor:
    """Images in 256ths, from a hash of the name."""
    size = count * int(np.prod(shape))
    pixels = np.frombuffer(hashlib.shake_256(name.encode()).digest(size), np.uint8)
    return torch.from_numpy(pixels.reshape(count, *shape) * np.float32(2.0**-8))


def compute_network(name: str, bits: tuple[int, int], device: str) -> dict[str, str]:
    """The root of the weights after a few steps, and the hash of what they say of some images."""
    kind, shape = NETWORKS[name]
    with torch.device("meta"):
        module = kind(CLASSES)
    model = convert(module, shape)
    arithmetic = ArithmeticParams(version=1, forward_bits=bits[0], backward_bits=bits[1])
    bound = BoundModel(model, BATCH_SIZE, RATE, arithmetic, torch.device(device))
    bound.load(model.initial_weights(CHAIN_SEED))
    for step in range(STEPS):
        images = draw_images(f"{name} {step}", BATCH_SIZE, shape).to(device)
        labels = torch.arange(step, step + BATCH_SIZE) % CLASSES
        bound.update(images, labels.to(device))
    images = draw_images(f"{name} evaluated", 5, shape).to(device)
    logits, _ = model.evaluate(bound.weights, images, bits[0])
    return {
        "weights": compute_root(bound.weights).hex(),
        "logits": hashlib.sha256(logits.cpu().numpy().astype("<f4").tobytes()).hexdigest(),
    }


def compute_networks(device: str = "cpu") -> dict[str, Any]:
    """Everything that the file holds."""
    return {
        f"{name} {forward}/{backward}": compute_network(name, (forward, backward), device)
        for name in NETWORKS
        for forward, backward in BITS
    }


def read_networks() -> dict[str, Any]:
    """The file."""
    networks: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return networks


if __name__ == "__main__":
    print(json.dumps(compute_networks(*sys.argv[1:]), indent=2))  # noqa: T201 - this is a command
