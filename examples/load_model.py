"""Load a model that `pol-abci export` wrote, and count what it gets right. Nothing of the chain.

python examples/load_model.py model.safetensors
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn


class DigitsNet(nn.Module):
    """The architecture `cnn` of docs/protocol.md, section 3, for images of 8 by 8."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        first, second, third = channels
        self.conv1 = nn.Conv2d(1, first, 3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = nn.Conv2d(second, third, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(third)
        self.fc = nn.Linear(third * 2 * 2, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, 10] of images [N, 1, 8, 8] in 0 to 1."""
        values = torch.relu(self.bn1(self.conv1(images)))
        values = torch.relu(self.bn2(self.conv2(values)))
        values = torch.relu(self.bn3(self.conv3(values)))
        logits: torch.Tensor = self.fc(values.flatten(1))
        return logits


path = Path(sys.argv[1] if len(sys.argv) > 1 else "model.safetensors")
provenance = json.loads(Path(f"{path}.json").read_text())

model = DigitsNet(provenance["architecture"]["channels"])
model.load_state_dict(load_file(path), strict=True)
model.eval()

digits = load_digits()  # the chain tests on positions 0, 5, 10, …
images = torch.tensor(digits.images[::5], dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target[::5])
with torch.inference_mode():
    correct = int((model(images).argmax(1) == labels).sum())

chain = provenance["accuracy"]
print(f"{path}: generation {provenance['generation']} of {provenance['chain_id']}")
print(f"here, plain float32: {correct} of {len(labels)} right")
print(f"on the chain, exact: {chain['correct']} of {chain['size']} right")
