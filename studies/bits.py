"""How many bits learning needs: exact ResNet18 at 8/8, 16/8 and 20/20 bits beside native float32.

    python studies/bits.py [--data-dir FOLDER] [--folder FOLDER] [--batches 4,64] [--tables]

All start from the same weights and see the same batches of CIFAR-10, without augmentation, for the
paper's batch of 4 and for one of 64. On the way the moves of an exact step are held against those
that torch's float32 gradient would make at the same weights: requirements ask for their signs. A
run that was stopped goes on with the next one; the tables and the figure of docs/study.md are
written anew from what there is.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter
from torch import nn

from benchmarks.table import write_section
from pol_abci.learning.datasets import compute_digest, load_dataset
from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.exact.torch_layout import to_torch
from pol_abci.learning.task import load_task
from pol_abci.node.presets import load_preset
from studies.plain_sgd import build_native, draw_batch, train
from studies.report import DOCS, DOCUMENT, RUNS, read_run, write_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pol_abci.learning.task import Task

BITS = ((8, 8), (16, 8), (20, 20), None)
"""Forward and backward; None is native float32."""
STEPS = {4: 5_000, 64: 1_500}
"""By batch size."""
RATES = {4: "0.001", 64: "0.015625"}
"""The paper's for its batch; for 64 what 16 times as much makes, as a power of two."""
SEEDS = (1, 2, 3)
COUNTS = 10
"""Times that a run is held against the test set."""
COMPARISONS = 25
"""Steps of an exact run whose moves are held against float32's."""
PRESET = "paper-cifar10"
FIGURE = DOCS / "figures" / "bits.png"
COLOURS = {"8/8": "#D55E00", "16/8": "#0072B2", "20/20": "#009E73", "native": "#555555"}
"""Of the Okabe-Ito palette, apart in every common colour blindness."""

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One learning run."""

    bits: tuple[int, int] | None
    batch_size: int
    seed: int

    @property
    def arithmetic(self) -> str:
        """As the table calls it."""
        return "native" if self.bits is None else f"{self.bits[0]}/{self.bits[1]}"

    @property
    def name(self) -> str:
        """Of the file that keeps it."""
        return f"bits-{self.arithmetic.replace('/', '-')}-batch{self.batch_size}-{self.seed}"

    def load_task(self, data_dir: Path | None) -> Task:
        """First weights by seed; data, batch size and rate."""
        preset = load_preset(PRESET)
        train, test = load_dataset(preset.params.task.dataset, data_dir)
        params = preset.with_edition(compute_digest(train), compute_digest(test)).params
        task = replace(
            params.task, batch_size=self.batch_size, learning_rate=RATES[self.batch_size]
        )
        params = replace(params, task=task)
        if self.bits is not None:
            forward, backward = self.bits
            arithmetic = replace(params.arithmetic, forward_bits=forward, backward_bits=backward)
            params = replace(params, arithmetic=arithmetic)
        return load_task(params, None, f"bits-{self.seed}", data_dir)


def learn_exactly(task: Task, run: Run) -> Result:
    """Counts on the test set, and agreements of signs, by step."""
    steps, bound = STEPS[run.batch_size], task.bound
    bound.load(task.initial_weights)
    native = build_native(task)
    counts, agreements = [], []
    for step in range(1, steps + 1):
        images, labels = draw_batch(task, run.seed, step)
        is_compared = step % (steps // COMPARISONS) == 0
        bound.update(images, labels)
        if is_compared:
            before, after = (
                to_torch(task.model, weights, steps=0)
                for weights in (bound.previous, bound.weights)
            )
            native.load_state_dict(before)
            agreements.append((step, compare_signs(native, before, after, images, labels)))
        if step % (steps // COUNTS) == 0:
            counts.append((step, count_correct(task, bound.weights)))
    return {"counts": counts, "agreements": agreements}


def compare_signs(
    native: nn.Module,
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
) -> float:
    """Of the weights that both move, the part that both move in the same direction."""
    parameters = dict(native.named_parameters())
    loss = nn.functional.cross_entropy(native(images.permute(0, 3, 1, 2)), labels)
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    same = moved = 0
    for name, gradient in zip(parameters, gradients, strict=True):
        product = torch.sign(after[name] - before[name]).mul_(torch.sign(gradient))
        moved += int(product.count_nonzero())
        same += int((product < 0).sum())
    return same / moved


def learn_natively(task: Task, run: Run) -> Result:
    """The same by autograd and SGD, on the same batches."""
    steps = STEPS[run.batch_size]
    counts = train(task, (task.test,), steps, steps // COUNTS, nonce=run.seed)
    return {"counts": [(step, correct) for step, (correct,) in counts], "agreements": []}


def compose_table(results: Sequence[Result]) -> str:
    """Means over seeds; accuracies of the last three counts, with the seeds' least and most."""
    rows = [
        "| batch | bits | steps | seeds | accuracy | least, most | moves with float32's sign |",
        "|---|---|---|---|---|---|---|",
    ]
    for batch_size in sorted({result["batch_size"] for result in results}):
        for arithmetic in COLOURS:
            runs = [
                each
                for each in results
                if (each["batch_size"], each["arithmetic"]) == (batch_size, arithmetic)
            ]
            if not runs:
                continue
            accuracies = [
                statistics.mean(count / run["size"] for _, count in run["counts"][-3:])
                for run in runs
            ]
            agreements = [share for run in runs for _, share in run["agreements"]]
            cells = (
                batch_size,
                arithmetic,
                f"{STEPS[batch_size]:,}",
                len(runs),
                f"{statistics.mean(accuracies):.1%}",
                f"{min(accuracies):.1%}, {max(accuracies):.1%}",
                f"{statistics.mean(agreements):.1%}" if agreements else "",
            )
            rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def write_document(results: Sequence[Result]) -> None:
    """Put the table between its markers, and draw the figure."""
    write_section(DOCUMENT, "bits", compose_table(results))
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    batches = sorted({result["batch_size"] for result in results})
    for axes, batch_size in zip(
        figure.subplots(1, len(batches), squeeze=False)[0], batches, strict=True
    ):
        for result in results:
            if result["batch_size"] == batch_size:
                steps, counts = zip(*result["counts"], strict=True)
                colour = COLOURS[result["arithmetic"]]
                label = result["arithmetic"] if result["seed"] == SEEDS[0] else None
                shares = [count / result["size"] for count in counts]
                axes.plot(steps, shares, color=colour, linewidth=1, label=label)
        axes.set_title(f"ResNet18, CIFAR-10, batches of {batch_size}")
        axes.set_xlabel("steps")
        axes.set_ylabel("accuracy on 1,000 test images")
        axes.yaxis.set_major_locator(MultipleLocator(0.05))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(frameon=False)
    figure.savefig(FIGURE, dpi=120)


def main() -> None:
    """Do what has not been done, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=RUNS)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--batches", default="4,64")
    parser.add_argument("--tables", action="store_true", help="of the runs there are; run nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    batches = [int(part) for part in arguments.batches.split(",")]
    results = []
    for run in (Run(b, n, s) for s in SEEDS for n in batches for b in BITS):
        file = arguments.folder / f"{run.name}.json"
        result = read_run(file)
        if result is None and not arguments.tables:
            task = run.load_task(arguments.data_dir)
            learned = (learn_natively if run.bits is None else learn_exactly)(task, run)
            result = learned | {
                "arithmetic": run.arithmetic,
                "batch_size": run.batch_size,
                "seed": run.seed,
                "size": len(task.test),
            }
            write_run(file, result)
            print(f"{run.name}: {result['counts'][-1][1]} of {result['size']}", flush=True)
        if result is not None:
            results.append(result)
    if results:
        write_document(results)


if __name__ == "__main__":
    main()
