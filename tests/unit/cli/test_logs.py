from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging, structlog
from pol_abci.cli.logs import configure_logs
configure_logs("info")
log = structlog.get_logger("test")
log.debug("not worth a line")
log.info("a new generation", generation=3)
logging.getLogger("httpx").info("not worth a line either")
logging.getLogger("asyncio").warning("slow callback")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a bug")
"""


def test_logs_of_the_app_and_of_libraries_go_to_stderr_as_plain_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert "not worth a line" not in done.stderr
    assert 'level=info event="a new generation" generation=3' in done.stderr
    assert 'level=warning event="slow callback"' in done.stderr
    assert done.stderr.endswith("\nZeroDivisionError: division by zero\n")
    assert "\x1b[" not in done.stderr
