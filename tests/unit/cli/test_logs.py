from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog, sys
from pol_abci.cli.logs import configure_logs
configure_logs("info", sys.argv[1] if len(sys.argv) > 1 else None)
log = structlog.get_logger("test")
log.debug("not worth a line")
log.info("a new generation", generation=3, miner=b"\\x0a\\xff")
logging.getLogger("httpx").info("not worth a line either")
logging.getLogger("asyncio").warning("slow %s", "callback")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a bug")
"""


def run(program: str, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return done.stderr


def test_logs_of_the_app_and_of_libraries_go_to_stderr_as_plain_lines() -> None:
    logged = run(PROGRAM)
    assert "not worth a line" not in logged
    assert 'level=info event="a new generation" generation=3 miner=0aff' in logged
    assert 'level=warning event="slow callback" logger=asyncio' in logged
    assert logged.endswith("\nZeroDivisionError: division by zero\n")
    assert "\x1b[" not in logged


def test_json_is_one_object_a_line_with_tracebacks_inside() -> None:
    info, library, fault = map(json.loads, run(PROGRAM, "json").splitlines())
    assert list(info) == ["timestamp", "level", "event", "generation", "miner"]
    assert (info["level"], info["event"]) == ("info", "a new generation")
    assert (info["generation"], info["miner"]) == (3, "0aff")
    assert (library["event"], library["logger"]) == ("slow callback", "asyncio")
    assert fault["exception"].endswith("ZeroDivisionError: division by zero")


def test_json_holds_the_traceback_that_ends_the_process() -> None:
    (line,) = run(f"{PROGRAM}\nraise ValueError('worse')", "json", code=1).splitlines()[3:]
    end = json.loads(line)
    assert end["event"] == "the process ends by a bug"
    assert end["exception"].endswith("ValueError: worse")


def test_console_is_for_people_at_a_terminal() -> None:
    logged = run(PROGRAM, "console")
    assert "a new generation" in logged
    assert "0aff" in logged
    assert "timestamp=" not in logged
