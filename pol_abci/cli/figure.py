"""Figure 1 of the paper, drawn from chain data: accuracy and block interval as the chain grows."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pol_abci.cli.pace import PAUSE_INTERVALS, compute_pace
from pol_abci.cli.words import format_pauses, format_seconds, format_share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.artist import Artist

    from pol_abci.cli.history import History

# Two colours of the Okabe-Ito palette, which stay apart in every common colour blindness and in
# grey: the line is dark, the bars are light.
ACCURACY_COLOUR = "#0072B2"
INTERVAL_COLOUR = "#F0B36B"
TARGET_COLOUR = "#A65E00"
SGD_COLOUR = "#444444"
CAPTION_CHARACTERS = 110
"""Of a line below the picture; longer ones would be cut off."""
MARKED_POINTS = 80
"""Up to so many generations each measurement gets a dot."""
NAMED_CUTS = 10
"""Up to so many cut bars have their length written above."""
SEPARATE_BARS = 200
"""Up to so many generations there is a gap between bars; finer ones would flicker."""


def describe_history(history: History) -> str:
    """Say in one line how long the chain is, how even its pace and how good its model."""
    intervals_ms = [record.interval_ms for record in history.records]
    target_ms = history.target_interval_ms
    parts = [f"{len(intervals_ms)} generations"]
    if (first := history.records[0].generation) > 1:  # of a node that joined by a snapshot
        parts[0] += f" from number {first} on"
    whole = compute_pace(intervals_ms, target_ms, len(intervals_ms))
    recent = compute_pace(intervals_ms, target_ms)
    if whole is not None:
        parts[0] += f", mean interval {format_seconds(whole.mean_ms)}"
        if whole.pauses:
            parts[0] += f" with {format_pauses(whole.pauses)} left out"
    if recent is not None:
        parts.append(f"last {recent.count}: {format_seconds(recent.mean_ms)}")
        if recent.coefficient_of_variation is not None:
            parts[-1] += f", coefficient of variation {recent.coefficient_of_variation:.2f}"
    measured = [record for record in history.records if record.has_accuracy]
    if measured:
        last = measured[-1]
        share = format_share(last.correct_all, last.size_all)
        parts.append(f"accuracy {share} on all {last.size_all} at generation {last.generation}")
    else:
        parts.append("no generation's accuracy has been measured yet")
    return "; ".join(parts)


def draw_figure(
    history: History, path: Path, plain_sgd: Sequence[tuple[float, float]] = ()
) -> None:
    """Write the figure to `path` as a PNG of 1,500 x 900 pixels.

    `plain_sgd` are generations, parts of them too, and what part of E plain SGD gets right after
    as many steps.
    """
    figure = Figure(figsize=(10, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    accuracy = figure.add_subplot()
    interval = accuracy.twinx()
    # The right axis is made last but its bars belong behind the line.
    accuracy.set_zorder(interval.get_zorder() + 1)
    accuracy.patch.set_visible(False)

    generations = [record.generation for record in history.records]
    # A night's pause would flatten all other bars.
    cut_s = PAUSE_INTERVALS * history.target_interval_ms / 1_000
    cut = [record for record in history.records if record.interval_ms / 1_000 > cut_s]
    bars = interval.bar(
        generations,
        [min(record.interval_ms / 1_000, cut_s) for record in history.records],
        width=0.8 if len(generations) <= SEPARATE_BARS else 1.0,
        color=INTERVAL_COLOUR,
        label=f"block interval, cut at {cut_s:g} s" if cut else "block interval",
    )
    if len(cut) <= NAMED_CUTS:
        for record in cut:
            interval.annotate(
                format_seconds(record.interval_ms),
                (record.generation, cut_s),
                ha="center",
                va="bottom",
                fontsize=7,
                color=TARGET_COLOUR,
            )
    target = interval.axhline(
        history.target_interval_ms / 1_000,
        color=TARGET_COLOUR,
        linestyle="--",
        linewidth=1.2,
        label=f"target interval, {format_seconds(history.target_interval_ms)}",
    )
    longest_s = max(min(record.interval_ms / 1_000, cut_s) for record in history.records)
    # Bars fill the lower part, so that the line above stays readable.
    interval.set_ylim(0, 1.6 * max(longest_s, history.target_interval_ms / 1_000))
    interval.set_ylabel("block interval, seconds", color=TARGET_COLOUR)
    interval.tick_params(axis="y", colors=TARGET_COLOUR)

    measured = [record for record in history.records if record.has_accuracy]
    (line,) = accuracy.plot(
        [record.generation for record in measured],
        [100 * record.correct_all / record.size_all for record in measured],
        color=ACCURACY_COLOUR,
        linewidth=2,
        marker="o" if len(measured) <= MARKED_POINTS else "",
        markersize=3.5,
        label="accuracy on all of E",
    )
    handles: list[Artist] = [line]
    if plain_sgd:
        handles += accuracy.plot(
            [generation for generation, _ in plain_sgd],
            [100 * share for _, share in plain_sgd],
            color=SGD_COLOUR,
            linestyle=":",
            linewidth=1.6,
            label="plain SGD after as many steps",
        )
    accuracy.set_ylim(0, 102)
    accuracy.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    accuracy.set_ylabel("accuracy on the test set E", color=ACCURACY_COLOUR)
    accuracy.tick_params(axis="y", colors=ACCURACY_COLOUR)
    accuracy.grid(axis="y", alpha=0.25)
    accuracy.set_xlim(generations[0] - 0.6, generations[-1] + 0.6)
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    caption = textwrap.fill(describe_history(history), CAPTION_CHARACTERS)
    accuracy.set_xlabel(f"generation\n\n{caption}")
    accuracy.set_title(
        f"{history.chain_id}: accuracy and block interval as the chain grows", pad=30
    )
    accuracy.legend(
        handles=[*handles, bars, target],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(handles) + 2,
        frameon=False,
        fontsize=9,
    )
    for side in (accuracy, interval):
        side.spines["top"].set_visible(False)
    figure.savefig(path, format="png")
