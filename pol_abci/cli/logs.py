"""Where logs are configured, the only place: structlog to stderr, one line an event.

Coloured for a person at a terminal, plain `key=value` for a file.
"""

from __future__ import annotations

import logging
import sys

import structlog

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_LOGFMT = structlog.processors.LogfmtRenderer(
    key_order=["timestamp", "level", "event"], bool_as_flag=False
)


def configure_logs(level: str) -> None:
    """Send every log event of at least `level` to stderr.

    The standard library's loggers (httpx, asyncio, websockets) go the same way from `warning` on:
    at `info` they report each request.
    """
    # The terminal's renderer formats exceptions itself.
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, _render_plain]
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    logging.basicConfig(handlers=[library], level=logging.WARNING, force=True)


def _render_plain(
    logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
) -> str:
    """Render `key=value`, a traceback in lines of its own: quoted into one nobody could read it."""
    traceback = event.pop("exception", None)
    line = _LOGFMT(logger, name, event)
    return line if traceback is None else f"{line}\n{traceback}"
