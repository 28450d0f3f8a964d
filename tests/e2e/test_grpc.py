"""A chain whose CometBFT calls the app over gRPC."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from pol_abci.client.rpc import RpcClient
from tests.e2e.quick_home import (
    APP,
    get_free_port,
    kill_child,
    make_quick_home,
    read_chain,
    run_program,
    stop_program,
    wait_for_generation,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


async def test_a_chain_over_grpc_goes_on_after_its_app_was_killed(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home", transport="grpc")
    metrics = f"127.0.0.1:{get_free_port()}"
    settings = home.path / "pol.toml"
    settings.write_text(settings.read_text().replace("[app]\n", f'[app]\nmetrics = "{metrics}"\n'))
    async with (
        run_program("up", "--home", home.path, "--log-format", "json") as up,
        RpcClient(home.settings.rpc_url) as rpc,
    ):
        reached = await wait_for_generation(rpc, 2)
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://{metrics}/health")).json() == {"status": "ok"}
            told = (await http.get(f"http://{metrics}/metrics")).text
        assert int(told.split("\npol_generation ")[1].split(".")[0]) >= reached
        # CometBFT outlives an app that it calls over gRPC: `up` has to end it.
        await kill_child(up, APP)
        reached = await wait_for_generation(rpc, reached + 2)
        await stop_program(up)
    _, records = read_chain(home)
    assert len(records) >= reached
    log = (home.path / "logs" / "app.log").read_text()
    starts = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    events = [start["event"] for start in starts]
    assert events.count("listening for CometBFT over gRPC") == 2
    assert "a new generation" in events
