"""The exported layout against torch.nn's own arithmetic: same logits up to float32's rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pol_abci.learning.exact.torch_layout import to_torch
from pol_abci.learning.models import build_model

CHANNELS = (3, 5, 4)
BITS = 20


def make_module(shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """The architecture `cnn` of plain modules, named as on the chain."""
    height, width, channels = shape
    module = nn.Sequential()
    for number, (filters, stride) in enumerate(zip(CHANNELS, (1, 2, 2), strict=True), start=1):
        convolution = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        module.add_module(f"conv{number}", convolution)
        module.add_module(f"bn{number}", nn.BatchNorm2d(filters))
        module.add_module(f"relu{number}", nn.ReLU())
        height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
        channels = filters
    module.add_module("flatten", nn.Flatten())
    module.add_module("fc", nn.Linear(height * width * channels, classes))
    return module


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 5, 2), (1, 6, 3), (2, 1, 1)])
def test_plain_modules_compute_the_same(shape: tuple[int, int, int]) -> None:
    """Taps that see only padding, which the chain leaves out, included."""
    model = build_model("cnn", CHANNELS, shape, 6)
    generator = torch.Generator().manual_seed(1)
    flat = torch.rand(model.size, generator=generator) + 0.1
    flat[::3] *= -1
    for spec, view in zip(model.tensors, model.split(flat).values(), strict=True):
        if spec.name.endswith("running_var"):
            view.abs_()
    images = torch.rand((4, *shape), generator=generator)
    logits, _ = model.evaluate(flat, images, BITS)

    module = make_module(shape, 6).eval()
    module.load_state_dict(to_torch(model, flat, steps=17), strict=True)
    with torch.inference_mode():
        plain = module(images.permute(0, 3, 1, 2))

    torch.testing.assert_close(plain, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))
    assert int(module.bn1.num_batches_tracked) == 17  # type: ignore[union-attr, arg-type]
