"""The HTTP side of /metrics and /health."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge

from pol_abci import monitor
from pol_abci.monitor import CannotMonitor, parse_listen, run_monitor


async def test_metrics_health_and_nothing_else() -> None:
    registry = CollectorRegistry()
    Gauge("pol_height", "Of the chain.", registry=registry).set(7)
    faults = [None, "no block for 60 s"]
    async with (
        run_monitor("127.0.0.1:0", registry, lambda: faults.pop(0)) as url,
        httpx.AsyncClient(base_url=str(url), trust_env=False) as http,
    ):
        metrics = await http.get("/metrics")
        assert (metrics.status_code, metrics.text.splitlines()[-1]) == (200, "pol_height 7.0")
        health = await http.get("/health")
        assert (health.status_code, health.json()) == (200, {"status": "ok"})
        health = await http.get("/health")
        assert health.status_code == 503
        assert health.json() == {"status": "failing", "reason": "no block for 60 s"}
        assert (await http.get("/")).status_code == 404
        assert (await http.post("/metrics")).status_code == 405


async def test_a_process_that_hangs_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ANSWER_S", 0.05)
    async with run_monitor("127.0.0.1:0", CollectorRegistry(), lambda: None) as url:
        with ThreadPoolExecutor() as threads:
            # Waiting for a thread on the loop is what makes the loop hang.
            health = threads.submit(httpx.get, f"{url}/health", trust_env=False).result()
    assert health.status_code == 503
    assert "has not answered" in health.json()["reason"]


@pytest.mark.parametrize("listen", ["26670", "host", "host:", ":1:2", "http://host:1", "h:99999"])
def test_an_address_that_is_none_is_refused_in_words(listen: str) -> None:
    with pytest.raises(CannotMonitor, match=r"write it as 127\.0\.0\.1"):
        parse_listen(listen)


async def test_a_taken_address_is_refused_in_words() -> None:
    registry = CollectorRegistry()
    async with run_monitor("127.0.0.1:0", registry, lambda: None) as url:
        taken = str(url).removeprefix("http://")
        with pytest.raises(CannotMonitor, match=f"cannot serve metrics at {taken}"):
            async with run_monitor(taken, registry, lambda: None):
                pass


async def test_an_ipv6_address() -> None:
    async with (
        run_monitor("[::1]:0", CollectorRegistry(), lambda: None) as url,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        assert (await http.get(f"{url}/health")).status_code == 200
