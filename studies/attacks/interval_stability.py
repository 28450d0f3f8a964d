"""Shocks of hash power: how a chain's intervals follow, through the package's own transition.

Scores are those of fair coins: a miner's best ticket by a time is drawn, not searched for. Blocks
come `DELAY_MS` after a ticket is good, as on a real node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pol_abci.node.presets import load_preset
from pol_abci.rules.difficulty import compute_good_time_ms
from pol_abci.rules.params import SCORE_UNIT
from pol_abci.rules.proof import TrueWalk
from studies.attacks.report import DOCUMENT, Row
from studies.attacks.virtual_ledger import VirtualLedger, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PRESET = "digits"
INTERVAL_STEPS = 2_000
DELAY_MS = 240
"""From a good ticket to its block, benchmarks/chain.py's median."""
SETTLED = 60
SHOCKED = 120
WINDOW = 10
NEAR = 0.1
"""Of the target: an interval's mean over the chains this near to it has recovered."""
PAUSE = 100
FIGURE = DOCUMENT.parent / "figures" / "interval-stability.png"
COLOURS = ("#0072B2", "#D55E00", "#009E73")  # of the Okabe-Ito palette


@dataclass(frozen=True, slots=True)
class Shock:
    """What happens at generation `SETTLED`: power times `factor`, after a pause in intervals."""

    name: str
    factor: float
    pause: int = 0


SHOCKS = (
    Shock("ten times the hash power", 10),
    Shock("a tenth of the hash power", 0.1),
    Shock(f"no hash power for {PAUSE} intervals, then as before", 1, PAUSE),
)


def measure(chains: int = 8) -> Iterator[Row]:
    """One row a shock, and the figure."""
    target_ms = load_preset(PRESET).params.difficulty.target_interval_ms
    runs = []
    for shock in SHOCKS:
        intervals = np.array([run_chain(shock, seed) for seed in range(chains)]) / target_ms
        runs.append(intervals)
        before, after = intervals[:, SETTLED // 2 : SETTLED], intervals[:, SETTLED:]
        late = after[:, -SHOCKED // 2 :]
        waits = after[:, 1:] if shock.pause else after
        worst = waits.max(1)
        yield Row(
            "stability",
            (
                shock.name,
                _describe(before),
                f"{after[:, :WINDOW].mean():.2f}"
                if not shock.pause
                else f"{after[:, 1:WINDOW].mean():.2f}",
                f"{np.median(worst):.1f}, {worst.max():.1f}",
                f"{count_recovery(after)}",
                _describe(late),
            ),
        )
    draw_figure(runs)


def _describe(intervals: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> str:
    """Mean, and coefficient of variation within a chain."""
    variation = (intervals.std(1) / intervals.mean(1)).mean()
    return f"{intervals.mean():.2f}, {variation:.2f}"


def count_recovery(after: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> int:
    """Generations until the mean over all chains and `WINDOW` generations is near the target."""
    means = np.convolve(after.mean(0), np.full(WINDOW, 1 / WINDOW), "valid")
    near = np.flatnonzero(np.abs(means - 1) <= NEAR)
    return int(near[0]) if len(near) else len(means)


def run_chain(shock: Shock, seed: int) -> list[int]:
    """Intervals in ms of one chain, `SETTLED` before the shock and `SHOCKED` after it."""
    random = np.random.default_rng(seed)
    ledger = VirtualLedger(load_preset(PRESET).params, f"stability-{seed}")
    settle_difficulty(ledger, random)
    key, intervals = make_key(2), []
    for number in range(SETTLED + SHOCKED):
        steps = INTERVAL_STEPS * (shock.factor if number >= SETTLED else 1.0)
        pause = shock.pause if number == SETTLED else 0
        head = ledger.head
        time_ms, score = find_winner(ledger, steps, pause, random)
        claim = ledger.make_claim(key, number)
        outcome = ledger.run_block(
            time_ms, [ledger.sign(key, claim)], {claim: TrueWalk(score, 100, 100)}
        )
        assert outcome.accepted is not None
        intervals.append(time_ms - head.time_ms)
    return intervals


def settle_difficulty(ledger: VirtualLedger, random: np.random.Generator) -> None:
    """Let the difficulty find the hash power before anything is counted."""
    key = make_key(2)
    for number in range(40):
        time_ms, score = find_winner(ledger, INTERVAL_STEPS, 0, random)
        claim = ledger.make_claim(key, 10_000 + number)
        ledger.run_block(time_ms, [ledger.sign(key, claim)], {claim: TrueWalk(score, 100, 100)})


def find_winner(
    ledger: VirtualLedger, interval_steps: float, pause: int, random: np.random.Generator
) -> tuple[int, int]:
    """Block time and score of the ticket that is good first; nobody steps in the pause."""
    params, head = ledger.params.difficulty, ledger.head
    target_ms = params.target_interval_ms
    best: tuple[int, int] | None = None
    start_ms = head.time_ms + pause * target_ms
    size = max(1, math.ceil(interval_steps))
    while True:
        scores = (SCORE_UNIT * random.exponential(1 / math.log(2), size)).astype(np.int64)
        found = start_ms + (np.arange(1, size + 1) * target_ms / interval_steps).astype(np.int64)
        for place in _get_records(scores):
            score = int(scores[place])
            good_ms = compute_good_time_ms(params, head.difficulty, head.time_ms, score)
            candidate = (max(int(found[place]), good_ms), -score)
            best = candidate if best is None else min(best, candidate)
        start_ms = int(found[-1])
        if best is not None and best[0] <= start_ms:
            return best[0] + DELAY_MS, -best[1]


def _get_records(scores: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Sequence[int]:
    """Places of scores above all before them: no other can be good first."""
    best = np.maximum.accumulate(scores)
    is_record = np.ones(len(scores), bool)
    is_record[1:] = scores[1:] > best[:-1]
    places: list[int] = np.flatnonzero(is_record).tolist()
    return places


def draw_figure(runs: Sequence[np.ndarray[tuple[int, int], np.dtype[np.float64]]]) -> None:
    """Mean interval of all chains, generation by generation, on a logarithmic axis."""
    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    numbers = np.arange(-SETTLED, SHOCKED)
    for shock, intervals, colour in zip(SHOCKS, runs, COLOURS, strict=True):
        low, middle, high = np.quantile(intervals, [0.1, 0.5, 0.9], axis=0)
        axes.plot(numbers, middle, color=colour, label=shock.name)
        axes.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(1.0, color="#555555", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xlabel("generations since the shock")
    axes.set_ylabel("interval / target: median and eight of ten")
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(FIGURE, format="png")
