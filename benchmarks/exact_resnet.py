"""Exact ResNet18 beside native float32: steps, evaluation, peak memory; the table of docs/exact.md.

    python benchmarks/exact_resnet.py [--batches 4,16,64] [--threads 1,2] [--rounds 7] [--write]

Native is torchvision's module with autograd and SGD, as people use it. Trimmed is the same without
the taps that only ever see padding, and with weights updated in place. All are timed in this run,
in turns, by the time that the process spends on processors, divided by the threads that share it;
the median of ratios within a round is given. Peak memory is what the process grows by, each in a
process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torchvision.models import resnet18

from benchmarks.table import describe_machine, write_section
from pol_abci.learning.exact.bound_model import BoundModel
from pol_abci.learning.exact.machine import multiplies_digits
from pol_abci.learning.models import build_model
from pol_abci.rules.params import ArithmeticParams

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = Path(__file__).parents[1] / "docs" / "exact.md"
SHAPE, CLASSES = (32, 32, 3), 10
RATE = 2.0**-6
BITS = ((16, 8), (8, 8))
EVALUATED = 1_000
EVALUATED_AT_ONCE = 250


def trim(module: nn.Module) -> nn.Module:
    """Cut kernels of 3 by 3 to the taps that see data, where inputs are 1 or 2 pixels wide."""
    sizes: dict[nn.Module, int] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: sizes.update({layer: args[0].shape[2]}))
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    module(torch.zeros(2, 3, *SHAPE[:2]))
    for hook in hooks:
        hook.remove()
    for layer, size in sizes.items():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and size <= 2:
            # At 1 pixel the middle tap sees data; at 2 pixels and stride 2 the last two.
            taps = slice(1, 2) if size == 1 else slice(1, 3)
            if size == 2 and layer.stride == (1, 1):
                continue
            layer.weight = nn.Parameter(layer.weight.detach()[:, :, taps, taps].contiguous())
            layer.kernel_size, layer.padding = tuple(layer.weight.shape[2:]), (0, 0)
    return module


def make_native(batch: int, *, is_trimmed: bool) -> Callable[[], object]:
    """One step of torch's own."""
    module = resnet18(num_classes=CLASSES)
    if is_trimmed:
        module = trim(module)
    images, labels = torch.rand(batch, 3, *SHAPE[:2]), torch.arange(batch) % CLASSES
    parameters = list(module.parameters())
    optimizer = torch.optim.SGD(parameters, lr=RATE)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(module(images), labels))
        optimizer.step()

    def step_in_place() -> None:
        loss = nn.functional.cross_entropy(module(images), labels)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_sub_(parameters, gradients, alpha=RATE)

    return step_in_place if is_trimmed else step


def make_exact(batch: int, bits: tuple[int, int]) -> Callable[[], object]:
    """One exact step."""
    model = build_model("resnet18", (), SHAPE, CLASSES)
    arithmetic = ArithmeticParams(version=1, forward_bits=bits[0], backward_bits=bits[1])
    bound = BoundModel(model, batch, RATE, arithmetic, torch.device("cpu"))
    bound.load(model.initial_weights(bytes(32)))
    images, labels = torch.rand(batch, *SHAPE), torch.arange(batch) % CLASSES
    return lambda: bound.update(images, labels)


def make_native_evaluation() -> Callable[[], object]:
    """1,000 images through torchvision's module."""
    module = resnet18(num_classes=CLASSES).eval()
    images = torch.rand(EVALUATED, 3, *SHAPE[:2])

    @torch.inference_mode()
    def evaluate() -> None:
        for part in torch.split(images, EVALUATED_AT_ONCE):
            module(part)

    return evaluate


def make_exact_evaluation(bits: int) -> Callable[[], object]:
    """1,000 images through the exact model."""
    model = build_model("resnet18", (), SHAPE, CLASSES)
    weights = model.initial_weights(bytes(32))
    images = torch.rand(EVALUATED, *SHAPE)

    def evaluate() -> None:
        for part in torch.split(images, EVALUATED_AT_ONCE):
            model.evaluate(weights, part, bits)

    return evaluate


def measure_ms(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each candidate by round, in turns."""
    for step in candidates.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, step in candidates.items():
            start = time.process_time()
            step()
            spent = time.process_time() - start
            times[name].append(spent * 1e3 / torch.get_num_threads())
    return times


def compare(times: dict[str, list[float]], name: str, beside: str) -> str:
    """The median ratio within a round."""
    return (
        f"{statistics.median(a / b for a, b in zip(times[name], times[beside], strict=True)):.2f}"
    )


def measure_memory_mb(kind: str, batch: int) -> float:
    """What a few steps add to a process that has loaded everything, at its peak."""
    run = subprocess.run(  # noqa: S603 - this file
        [sys.executable, __file__, "--memory-of", kind, "--batches", str(batch)],
        capture_output=True,
        check=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(DOCUMENT.parents[1])},
    )
    return float(run.stdout)


def print_memory(kind: str, batch: int) -> None:
    """Of this process: steps of one kind, beside what it had before the model was made."""
    build_model("cnn", (1, 2, 3), (8, 8, 1), 2)
    # Linux forgets the peak so far, which an exec would else have from its parent.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = read_peak_kib()
    makers = {
        "native": lambda: make_native(batch, is_trimmed=False),
        "16/8": lambda: make_exact(batch, (16, 8)),
        "8/8": lambda: make_exact(batch, (8, 8)),
    }
    step = makers[kind]()
    for _ in range(3):
        step()
    print((read_peak_kib() - before) / 1024)


def read_peak_kib() -> int:
    """The most memory that this process has had, as Linux counts it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def measure(batches: list[int], threads: list[int], rounds: int) -> list[str]:
    """The rows of the table, printed as they come."""
    rows = []

    def add(*cells: object) -> None:
        rows.append(f"| {' | '.join(map(str, cells))} |")
        print(rows[-1], flush=True)

    for count in threads:
        torch.set_num_threads(count)
        for batch in batches:
            candidates = {
                "native": make_native(batch, is_trimmed=False),
                "trimmed": make_native(batch, is_trimmed=True),
                **{f"{f}/{b}": make_exact(batch, (f, b)) for f, b in BITS},
            }
            times = measure_ms(candidates, rounds)
            native = statistics.median(times["native"])
            for name in ("16/8", "8/8"):
                ratios = (compare(times, name, beside) for beside in ("native", "trimmed"))
                add(f"step, batch {batch}, {count} thread(s), {name}", f"{native:.0f} ms", *ratios)
        evaluations = {
            "native": make_native_evaluation(),
            **{str(bits): make_exact_evaluation(bits) for bits in (16, 8)},
        }
        times = measure_ms(evaluations, max(3, rounds // 2))
        native = statistics.median(times["native"])
        for name in ("16", "8"):
            ratio = compare(times, name, "native")
            add(
                f"evaluation, 1,000 images, {count} thread(s), {name} bits",
                f"{native:.0f} ms",
                ratio,
                "",
            )
    for batch in batches:
        memory = {kind: measure_memory_mb(kind, batch) for kind in ("native", "16/8", "8/8")}
        for name in ("16/8", "8/8"):
            ratio = f"{memory[name] / memory['native']:.2f}"
            add(
                f"peak memory of steps, batch {batch}, {name}",
                f"{memory['native']:.0f} MB",
                ratio,
                "",
            )
    return rows


def write(rows: list[str]) -> None:
    """Put the rows in the place of the document's table for processors of this kind."""
    kind = "digits" if multiplies_digits(torch.device("cpu")) else "floats"
    machine = f"{describe_machine()}, torch {torch.__version__}"
    load = f"load average {os.getloadavg()[0]:.1f}"
    header = "| figure | native | ratio to native | ratio to trimmed |\n|---|---|---|---|\n"
    write_section(DOCUMENT, kind, f"Last run on {machine}, {load}.\n\n{header}" + "\n".join(rows))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", default="4,16,64")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write a table of docs/exact.md anew")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    batches = [int(batch) for batch in options.batches.split(",")]
    if options.memory_of:
        print_memory(options.memory_of, batches[0])
        return
    rows = measure(batches, [int(count) for count in options.threads.split(",")], options.rounds)
    if options.write:
        write(rows)


if __name__ == "__main__":
    main()
