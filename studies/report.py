"""What a study's runs gave, as the tables of docs/study.md and as a figure."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from benchmarks.table import write_section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

Result = dict[str, Any]

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT = DOCS / "study.md"
FIGURE = DOCS / "figures" / "study.png"
RUNS = DOCS / "figures" / "runs"
HEADER = (
    "| changed | steps | gate | held | SGD gate | SGD held | failed | interval |\n"
    "|---|---|---|---|---|---|---|---|"
)
# Colours of the Okabe-Ito palette, apart in every common colour blindness.
CHAIN_COLOUR, HELD_COLOUR, SGD_COLOUR = "#0072B2", "#D55E00", "#555555"


def write_run(file: Path, result: Result) -> None:
    """Keep what a run gave, whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result) + "\n", encoding="utf-8")
    part.replace(file)


def read_run(file: Path) -> Result | None:
    """What a run gave, if it has been done."""
    if not file.exists():
        return None
    result: Result = json.loads(file.read_text(encoding="utf-8"))
    return result


def write_tables(results: Sequence[Result]) -> None:
    """Put the tables of these results between their markers."""
    for preset in dict.fromkeys(result["preset"] for result in results):
        table = compose_table([result for result in results if result["preset"] == preset])
        write_section(DOCUMENT, preset, table)


def compose_table(results: Sequence[Result]) -> str:
    """One row a change, means over its seeds, all after as many generations as the shortest."""
    by_change: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        change = result["change"]
        by_change[f"`{change[0]}` {change[1]}" if change else "nothing"].append(result)
    length = min(len(result["generations"]) for result in results)
    return "\n".join(
        [HEADER, *(_compose_row(change, runs, length) for change, runs in by_change.items())]
    )


def _compose_row(change: str, runs: list[Result], length: int) -> str:
    """Means of the last three counts up to the generation `length`: one alone is noisy."""
    rows = []
    for run in runs:
        generations = run["generations"][:length]
        counted = [each for each in generations if each["correct_gate"] >= 0][-3:]
        steps = np.cumsum([each["steps"] for each in generations])
        chain = [
            np.mean([each[key] for each in counted]) / size
            for key, size in zip(("correct_gate", "correct_held"), run["sizes"], strict=True)
        ]
        at = [steps[each["number"] - 1] for each in counted]
        sgd = [np.mean(np.interp(at, *_get_sgd_curve(run, part))) for part in (0, 1)]
        failed = _sum(generations, "failed") / _sum(generations, "weighed")
        interval_s = _sum(generations, "interval_ms") / length / 1_000
        rows.append((steps[-1], *chain, *sgd, failed, interval_s))
    steps_mean, *shares, interval = np.mean(rows, axis=0)
    cells = [f"{steps_mean:,.0f}", *(f"{share:.1%}" for share in shares), f"{interval:.1f} s"]
    return f"| {change} | {' | '.join(cells)} |"


def _sum(generations: Sequence[dict[str, int]], key: str) -> int:
    return sum(each[key] for each in generations)


def _get_sgd_curve(run: Result, part: int) -> tuple[list[int], list[float]]:
    """Steps, and the share of a half of E that is right after so many."""
    return (
        [steps for steps, _ in run["sgd"]],
        [counts[part] / run["sizes"][part] for _, counts in run["sgd"]],
    )


def write_figure(results: Sequence[Result]) -> None:
    """Draw the longest run of each preset as it is: accuracy by generation."""
    longest: dict[str, Result] = {}
    for result in results:
        before = longest.get(result["preset"])
        if not result["change"] and (
            before is None or len(result["generations"]) > len(before["generations"])
        ):
            longest[result["preset"]] = result
    figure = Figure(figsize=(11, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, result in zip(
        np.atleast_1d(figure.subplots(1, len(longest))), longest.values(), strict=True
    ):
        _draw(axes, result)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, format="png")


def _draw(axes: Axes, result: Result) -> None:
    counted = [each for each in result["generations"] if each["correct_gate"] >= 0]
    numbers = [each["number"] for each in counted]
    gate_size, held_size = result["sizes"]
    steps = np.cumsum([each["steps"] for each in result["generations"]])
    # Both curves by generation: SGD has done the steps that had reached the head by then.
    sgd_steps, sgd_shares = _get_sgd_curve(result, part=1)
    sgd_numbers = np.interp(sgd_steps, steps, np.arange(1, len(steps) + 1))
    axes.plot(
        sgd_numbers,
        [100 * share for share in sgd_shares],
        color=SGD_COLOUR,
        linestyle="--",
        label="plain SGD, same steps, the images that gate nothing",
    )
    axes.plot(
        numbers,
        [100 * each["correct_gate"] / gate_size for each in counted],
        color=CHAIN_COLOUR,
        label="chain, the images of E that gate",
    )
    axes.plot(
        numbers,
        [100 * each["correct_held"] / held_size for each in counted],
        color=HELD_COLOUR,
        label="chain, the images of E that gate nothing",
    )
    last = counted[-1]
    share = 100 * (last["correct_gate"] + last["correct_held"]) / (gate_size + held_size)
    axes.set_title(f"{result['preset']}: {share:.1f}% of E at generation {last['number']}")
    axes.set_xlabel(f"generation ({steps[-1]:,} steps in all)")
    axes.set_ylim(max(0, min(each["correct_gate"] for each in counted[:3]) * 80 // gate_size), 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(axis="y", alpha=0.25)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
