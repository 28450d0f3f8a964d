"""Tables of what a soak measured, for a terminal and for docs/reliability.md."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns, the first one to the left and the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def summarize(seconds: Sequence[float]) -> tuple[str, str]:
    """Median and most."""
    return f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}"
