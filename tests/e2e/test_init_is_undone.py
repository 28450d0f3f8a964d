"""A service manager that ends `init` half way finds no half-made home with keys in it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.quick_home import get_free_port, run_program, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_during_init_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    place = tmp_path / "place"
    place.mkdir()
    ports = ("--rpc-port", str(get_free_port()), "--p2p-port", str(get_free_port()))
    async with run_program("init", "--home", place / "home", *ports) as init:
        await wait_until(lambda: any(place.glob(".home-*/account.json")))
        init.process.send_signal(number)
        assert await init.wait() == (143 if number == signal.SIGTERM else 130)
    assert list(place.iterdir()) == []
    assert init.lines == []
