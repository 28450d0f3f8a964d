"""Time of an exact training step against torch's own, in one run on one thread.

Both train the digits preset's model on the same batches of 16; torch's side is float32 with
autograd and plain SGD. Rounds alternate and medians are compared, so that load on the machine
weighs on both alike.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from benchmarks.figures import Figure, main
from pol_abci.learning.datasets import load_dataset
from pol_abci.learning.exact.bound_model import BoundModel
from pol_abci.learning.models import build_model
from pol_abci.learning.sampling import TrainSet
from pol_abci.rules.params import Address, ArithmeticParams, Augmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pol_abci.learning.exact.graph import Model

BATCH_SIZE = 16
RATE = 2.0**-4
CHANNELS = (8, 16, 32)
STEPS_A_ROUND = 100
ROUNDS = 15
"""Passes of each, alternating."""


def build_native() -> nn.Module:
    """The same architecture in torch's layers."""
    layers: list[nn.Module] = []
    channels = 1
    for filters, stride in zip(CHANNELS, (1, 2, 2), strict=True):
        layers += [
            nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
        ]
        channels = filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * 4, 10))


def make_native_step() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """One step of the native model on a batch [S, C, H, W]."""
    native = build_native()
    optimizer = torch.optim.SGD(native.parameters(), lr=RATE)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(native(images), labels))
        optimizer.step()

    return step


def make_exact_step(model: Model) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """One exact step on a batch [S, H, W, C], at the preset's bits."""
    arithmetic = ArithmeticParams(version=1, forward_bits=16, backward_bits=8)
    bound = BoundModel(model, BATCH_SIZE, RATE, arithmetic, torch.device("cpu"))
    bound.load(model.initial_weights(bytes(32)))
    return bound.update


def measure_ms(
    step: Callable[[torch.Tensor, torch.Tensor], None],
    batches: list[tuple[torch.Tensor, torch.Tensor]],
) -> float:
    """Milliseconds a step over one pass of the batches."""
    start = time.perf_counter()
    for images, labels in batches:
        step(images, labels)
    return (time.perf_counter() - start) * 1e3 / len(batches)


def measure() -> Iterator[Figure]:
    """Alternate both, and compare medians."""
    torch.set_num_threads(1)
    train, _ = load_dataset("digits")
    none = Augmentation(shift=0, flip=False, cutout=0)
    source = TrainSet(train, BATCH_SIZE, none, torch.device("cpu"))
    exact_batches = [
        source.gather(source.draw(bytes(32), Address(bytes(20)), 0, t))
        for t in range(STEPS_A_ROUND)
    ]
    native_batches = [
        (images.permute(0, 3, 1, 2).contiguous(), labels) for images, labels in exact_batches
    ]
    exact = make_exact_step(build_model("cnn", CHANNELS, (8, 8, 1), 10))
    native = make_native_step()
    measure_ms(exact, exact_batches)
    measure_ms(native, native_batches)
    exact_ms, native_ms = [], []
    for _ in range(ROUNDS):
        exact_ms.append(measure_ms(exact, exact_batches))
        native_ms.append(measure_ms(native, native_batches))
    yield Figure(
        name="digits step, batch 16, 16/8 bits, 1 thread",
        value=f"{statistics.median(exact_ms):.2f} ms exact",
        beside=f"{statistics.median(native_ms):.2f} ms native float32 torch {torch.__version__}",
        ratio=statistics.median(e / n for e, n in zip(exact_ms, native_ms, strict=True)),
        goal="below 1",
    )


if __name__ == "__main__":
    main(measure)
