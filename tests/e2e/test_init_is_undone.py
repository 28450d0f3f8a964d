"""A service manager that ends `init` or `up` half way finds no half-made home with keys in it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.quick_home import get_free_port, run_program, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("command", "number"),
    [("init", signal.SIGTERM), ("init", signal.SIGINT), ("up", signal.SIGTERM)],
)
async def test_a_signal_leaves_nothing(
    tmp_path: Path, command: str, number: signal.Signals
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    ports = ("--rpc-port", str(get_free_port()), "--p2p-port", str(get_free_port()))
    async with run_program(command, "--home", place / "home", *ports) as program:
        await wait_until(lambda: any(place.glob(".home-*/account.json")))
        program.process.send_signal(number)
        assert await program.wait() == (143 if number == signal.SIGTERM else 130)
    assert list(place.iterdir()) == []
    assert program.lines == []


async def test_up_passes_on_why_a_home_cannot_be_made(tmp_path: Path) -> None:
    async with run_program("up", "--home", tmp_path / "home", "--chain-id", "no spaces") as up:
        assert await up.wait() == 1
    (line,) = up.lines
    assert line.startswith("error: chain id 'no spaces'")
