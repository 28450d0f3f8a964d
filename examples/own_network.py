"""A network of one's own for a chain to train: any module of the layers that have an exact form.

In a preset's genesis.json (a folder of cometbft-config, with a name of your own):

    "architecture": "module:examples.own_network:TinyResidual",
    "channels": [],

and every node finds this file: run `pol-abci` with PYTHONPATH set to the folder above `examples`,
or put the module into a package that is installed. What has no exact form is refused by name:

    python -m examples.own_network
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from pol_abci.learning.models import build_model

if TYPE_CHECKING:
    from torch import Tensor


class TinyResidual(nn.Module):
    """For images of 8 by 8 with one channel, as `digits` has them."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # The layer that reads the images comes first: a probe covers its weight.
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 4 * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes] of images [N, 1, 8, 8]."""
        values = self.relu(self.norm(self.stem(images)))
        values = self.relu(self.inner_norm(self.inner(values)) + values)
        logits: Tensor = self.head(self.pool(values).flatten(1))
        return logits


if __name__ == "__main__":
    model = build_model("module:examples.own_network:TinyResidual", (), (8, 8, 1), 10)
    print(model.describe(), end="")
    print(f"{model.weight_count:,} learnable values")
