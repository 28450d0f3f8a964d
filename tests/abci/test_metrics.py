"""What /metrics and /health say of a node, against what has happened to it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pol_abci.app.metrics import make_registry
from pol_abci.app.standstill import LOW_DISK_BYTES, PATIENCE_INTERVALS, find_fault
from pol_abci.monitor import run_monitor
from pol_abci.rules.errors import PendingProof
from tests.abci.digits_chain import TARGET_MS
from tests.abci.digits_driver import run_chain

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest
    from prometheus_client import CollectorRegistry

    from tests.abci.digits_driver import DigitsChain

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def get_registry(chain: DigitsChain) -> CollectorRegistry:
    node = chain.nodes[0]
    return make_registry(node.replica, node.application.measures, node.path)


def find(chain: DigitsChain) -> str | None:
    return find_fault(chain.nodes[0].replica, chain.nodes[0].path)


async def read(registry: CollectorRegistry) -> Mapping[str, float]:
    """Every sample as Prometheus would have it, `name{label=value}` to number."""
    async with (
        run_monitor("127.0.0.1:0", registry, lambda: None) as url,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        text = (await http.get(f"{url}/metrics")).text
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def test_metrics_tell_what_happened(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        registry = get_registry(chain)
        before = await read(registry)
        assert before["pol_height"] == 0
        assert "pol_generation" not in before
        await chain.begin()
        await chain.submit(chain.mine(5))
        await chain.driver.make_block()
        after = await read(registry)
    assert after["pol_height"] == chain.driver.height
    assert after["pol_generation"] == 1
    assert after["pol_walks_total{verdict=true}"] == 1
    assert after["pol_check_tx_total{code=0}"] >= 1
    assert after[f"pol_check_tx_total{{code={PendingProof.code}}}"] == 1
    assert after["pol_commit_seconds_count"] == chain.driver.height
    assert after["pol_finalize_block_seconds_count"] == chain.driver.height
    assert 0 < after["pol_accuracy_ratio"] <= 1
    assert after["pol_accuracy_generation"] == 1
    assert after["pol_store_bytes"] > 0
    assert after["pol_healthy"] == after["pol_verifier_up"] == 1
    assert after["process_resident_memory_bytes"] > 0


async def test_each_metric_has_its_row_in_the_document(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        await chain.driver.make_block([chain.mine(5)])
        shown = {family.name for family in get_registry(chain).collect()}
    section = OPERATIONS.read_text("utf-8").split("### Of the app\n")[1].split("\n### ")[0]
    documented = re.findall(r"^\| `(pol_\w+?)(?:_total|_info)?[`{]", section, re.MULTILINE)
    assert sorted(documented) == sorted(name for name in shown if name.startswith("pol_"))


async def test_a_node_is_healthy_until_blocks_stay_away(tmp_path: Path) -> None:
    async with run_chain(tmp_path) as chain:
        assert find(chain) is None
        await chain.begin()
        chain.clock.now_ms += PATIENCE_INTERVALS * TARGET_MS
        await chain.driver.make_block([])
        assert find(chain) is None, "that no proof comes is no fault of the node"
        chain.clock.now_ms += PATIENCE_INTERVALS * TARGET_MS + 1_000
        fault = find(chain)
        assert fault is not None
        assert f"no block for {PATIENCE_INTERVALS * TARGET_MS // 1_000 + 1} s" in fault


async def test_a_node_without_verifier_or_disk_is_not_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_chain(tmp_path) as chain:
        await chain.begin()
        usage = shutil.disk_usage(tmp_path)._replace(free=LOW_DISK_BYTES - 1)
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _: usage)
            assert "almost full: 255 MiB" in str(find(chain))
        chain.nodes[0].verifier.status.alive = False
        assert "the verifier is not running" in str(find(chain))
