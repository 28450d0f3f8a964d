"""`pol-abci up`: one command, a chain that trains, and again from where it was."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

from pol_abci.app.info import UnknownPath
from pol_abci.node.doctor.finding import Patient
from pol_abci.node.doctor.home import check_node, check_ports
from tests.e2e.quick_home import make_quick_home, run_program

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.node.home import Home

pytestmark = pytest.mark.e2e

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _ask_node(home: Home) -> Patient:
    patient = Patient(home.path, home, is_deep=False)
    patient.ask_node()
    return patient


async def test_up_trains_stops_draws_and_goes_on_from_where_it_was(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home with a space and a name " / ("long-" * 20))
    async with run_program("up", "--home", home.path, "--generations", "2") as first:
        assert await first.wait() == 0, "\n".join(first.lines)
    text = "\n".join(first.lines)
    assert "generation 1:" in text
    assert "generation 2:" in text
    assert str(home.path) in text
    assert (home.path / "figure1.png").read_bytes().startswith(PNG_SIGNATURE)

    async with run_program("up", "--home", home.path, "--generations", "1") as second:
        assert await second.wait() == 0, "\n".join(second.lines)
    # The first run may have made more between its goal and its end; it says how many there are.
    made = re.search(r"(\d+) generations, mean", text)
    assert made is not None
    told = [re.match(r"generation (\d+):", line) for line in second.lines]
    assert min(int(match[1]) for match in told if match) == int(made[1]) + 1

    async with run_program("plot", "--home", home.path, "--output", tmp_path / "f.png") as plot:
        assert await plot.wait() == 0, "\n".join(plot.lines)
    assert (tmp_path / "f.png").read_bytes().startswith(PNG_SIGNATURE)


async def test_ctrl_c_stops_cleanly_and_status_and_doctor_tell_before_and_after(
    tmp_path: Path,
) -> None:
    home = make_quick_home(tmp_path / "home")
    async with run_program("up", "--home", home.path) as up:
        await up.wait_for_line("generation 1:")
        # One GET with a path that is not UTF-8: CometBFT passes it on, and goes on afterwards.
        async with httpx.AsyncClient(timeout=30) as http:
            reply = await http.get(f"{home.settings.rpc_url}/abci_query?path=0xff")
        assert reply.json()["result"]["response"]["code"] == UnknownPath.code
        async with run_program("status", "--home", home.path, "--json") as status:
            assert await status.wait() == 0
        assert json.loads("".join(status.lines))["chain_id"] == "pol-e2e"
        patient = await asyncio.to_thread(_ask_node, home)
        assert [finding.verdict for finding in check_ports(patient)] == ["ok"]
        assert [finding.finding[:4] for finding in check_node(patient)] == ["runs"]
        async with run_program("up", "--home", home.path) as again:
            assert await again.wait() == 1
        assert any("in use" in line or "runs" in line for line in again.lines), again.lines
        up.process.send_signal(signal.SIGINT)
        assert await up.wait() == 130, "\n".join(up.lines)
    async with run_program("status", "--home", home.path) as status:
        assert await status.wait() == 1
    patient = await asyncio.to_thread(_ask_node, home)
    assert [finding.finding[:4] for finding in check_ports(patient)] == ["free"]
    assert "Traceback" not in "\n".join(up.lines + again.lines + status.lines)
