"""Where logs are configured, the only place: structlog to stderr, one event after the other.

An event's name is a fixed sentence; what varies stands in its keys, bytes as hexadecimal digits.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

import click
import structlog

if TYPE_CHECKING:
    from types import TracebackType

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS = ("console", "plain", "json")

_FIRST_KEYS = ("timestamp", "level", "event")
_LOGFMT = structlog.processors.LogfmtRenderer(key_order=list(_FIRST_KEYS), bool_as_flag=False)

log_level_option = click.option(
    "--log-level",
    type=click.Choice(list(LEVELS)),
    default="info",
    show_default=True,
    help="What is worth a line of log.",
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    help="Coloured lines, key=value lines or one JSON object a line; by default console at a "
    "terminal and plain elsewhere.",
)


def configure_logs(level: str, log_format: str | None = None) -> None:
    """Send every log event of at least `level` to stderr, as one of FORMATS.

    The standard library's loggers (httpx, asyncio, websockets) go the same way from `warning` on:
    at `info` they report each request. As JSON, the traceback of a process that ends by a bug is
    an event too.
    """
    if log_format is None:
        log_format = "console" if sys.stderr.isatty() else "plain"
    renderers = _compose_renderers(log_format)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _show_bytes,
    ]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    library = logging.StreamHandler(sys.stderr)
    library.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    logging.basicConfig(handlers=[library], level=logging.WARNING, force=True)
    if log_format == "json":
        sys.excepthook = _log_end


def _compose_renderers(log_format: str) -> list[structlog.typing.Processor]:
    """Return what turns an event's keys into text; the console's formats exceptions itself."""
    if log_format == "console":
        return [structlog.dev.ConsoleRenderer()]
    render = _render_json if log_format == "json" else _render_plain
    return [structlog.processors.format_exc_info, render]


def _show_bytes(
    _logger: structlog.typing.WrappedLogger, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Write hashes, keys and addresses as hexadecimal digits."""
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in event.items()}


def _render_json(
    _logger: structlog.typing.WrappedLogger, _name: str, event: structlog.typing.EventDict
) -> str:
    """Render one JSON object, the keys that every event has first."""
    first = {key: event.pop(key) for key in _FIRST_KEYS if key in event}
    return json.dumps({**first, **event}, default=str)


def _render_plain(
    logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
) -> str:
    """Render `key=value`, a traceback in lines of its own: quoted into one nobody could read it."""
    traceback = event.pop("exception", None)
    line = _LOGFMT(logger, name, event)
    return line if traceback is None else f"{line}\n{traceback}"


def _log_end(
    kind: type[BaseException], fault: BaseException, traceback: TracebackType | None
) -> None:
    """Report what ends the process, in place of Python's own lines."""
    structlog.get_logger(__name__).error(
        "the process ends by a bug", exc_info=(kind, fault, traceback)
    )
