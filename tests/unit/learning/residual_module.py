"""A small residual network with every kind of layer that torchvision's have, and a few more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Block(nn.Module):
    """Two convolutions around which the input goes, through a third one where sizes change."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == filters
            else nn.Sequential(
                nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )
        )

    def forward(self, values: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(values)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(values)
        result: Tensor = self.relu(out)
        return result


class SmallResidual(nn.Module):
    """For images of 2 channels, 9 by 8."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, (5, 3), 1, (2, 1), bias=True)
        self.bn1 = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.block1 = Block(3, 3, 1)
        self.block2 = Block(3, 4, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        values = self.avgpool(self.block2(self.block1(values)))
        logits: Tensor = self.fc(values.flatten(1))
        return logits
