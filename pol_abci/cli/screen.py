"""Where a command that watches shows what it sees: a picture on a terminal, lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click
from rich.console import Console
from rich.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AsyncExitStack

    from rich.console import RenderableType

Snapshot = TypeVar("Snapshot")


def open_screen(
    stack: AsyncExitStack,
    draw: Callable[[Snapshot], RenderableType],
    tell: Callable[[Snapshot], Iterable[str]],
) -> Callable[[Snapshot], None]:
    """Give what shows a snapshot: as `draw` has it on a terminal, as lines that `tell` tells else.

    A terminal is taken until the stack closes, and is as before after that.
    """
    console = Console()
    if console.is_terminal:
        live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
        return lambda snapshot: live.update(draw(snapshot), refresh=True)

    def narrate(snapshot: Snapshot) -> None:
        for line in tell(snapshot):
            click.echo(line)  # flushes, so that a pipe's reader sees it at once

    return narrate
