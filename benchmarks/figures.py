"""What every benchmark prints: figures, each with a ratio to what it is compared with in one run.

A benchmark is a script with a `measure()` that yields figures, and ends in
`figures.main(measure)`: it prints them for people, or one JSON object a line with `--json`, which
`benchmarks/table.py` turns into the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row. `value` and `beside` carry their units; `goal` is what was aimed at, in words.

    `ratio` is value to beside, both of one run, or None where nothing stands beside.
    """

    name: str
    value: str
    beside: str = ""
    ratio: float | None = None
    goal: str = ""


def main(measure: Callable[[], Iterable[Figure]]) -> None:
    """Measure and print each figure as soon as it is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    as_json = parser.parse_args().json
    for figure in measure():
        print(json.dumps(asdict(figure)) if as_json else describe(figure), flush=True)


def describe(figure: Figure) -> str:
    """One line for people."""
    parts = [f"{figure.name}: {figure.value}"]
    if figure.beside:
        parts.append(f"beside {figure.beside}")
    if figure.ratio is not None:
        parts.append(f"ratio {figure.ratio:.3g}")
    if figure.goal:
        parts.append(f"goal {figure.goal}")
    return ", ".join(parts)
