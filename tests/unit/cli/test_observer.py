from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from pol_abci.cli.observer import Observer
from pol_abci.client.rpc import RpcClient
from pol_abci.node.supervisor import Child, ChildCommand
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.params import SCORE_UNIT

RecordMaker = Callable[[int], tuple[GenerationRecord, ...]]


class FakeNode:
    """Answers /status and /history as the app does, and counts the history asked for."""

    def __init__(self) -> None:
        self.records: tuple[GenerationRecord, ...] = ()
        self.is_reachable = True
        self.standstill: str | None = None
        self.firsts: list[int] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if not self.is_reachable:
            raise httpx.ConnectError("refused")
        params = json.loads(request.content)["params"]
        if params["path"] == "/status":
            value = json.dumps(self.status()).encode()
        else:
            first = int(params["data"], 16)
            self.firsts.append(first)
            page = [record for record in self.records if record.generation >= first][:200]
            encoded = [record.encode() for record in page]
            value = b"".join(len(data).to_bytes(4, "big") + data for data in encoded)
        response = {"code": 0, "value": base64.b64encode(value).decode(), "height": "5"}
        return httpx.Response(200, json={"jsonrpc": "2.0", "result": {"response": response}})

    def status(self) -> dict[str, Any]:
        return {
            "chain_id": "digits-1",
            "height": 5,
            "time_ms": 12_000,
            "generation": self.records[-1].generation if self.records else 0,
            "seed": "00" * 32,
            "weights_root": "00" * 32,
            "head_time_ms": 10_000,
            "head_difficulty": 14 * SCORE_UNIT,
            "difficulty_now": 13 * SCORE_UNIT,
            "target_interval_ms": 4_000,
            "block_age_ms": 0,
            "standstill": self.standstill,
            "verifier": {
                "alive": True,
                "queued": 2,
                "walking": 1,
                "walked": 7,
                "false": 0,
                "steps_per_second": 800.0,
            },
            "tickets": {"kept": 0, "best_score": None, "best_good_time_ms": None},
            "accuracy": None,
            "size_all": 360,
        }


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
async def rpc(node: FakeNode) -> AsyncIterator[RpcClient]:
    transport = httpx.MockTransport(node.answer)
    async with RpcClient("http://127.0.0.1:26657", transport=transport) as client:
        yield client


def make_observer(rpc: RpcClient, generations: int | None = None) -> Observer:
    child = Child(ChildCommand(name="cometbft", arguments=("cometbft",)), state="running")
    return Observer(
        rpc, {"cometbft": child}, chain_id="digits-1", home="chain", generations=generations
    )


async def test_generations_are_counted_from_this_start(
    rpc: RpcClient, node: FakeNode, make_records: RecordMaker
) -> None:
    observer = make_observer(rpc, generations=10)
    assert not observer.is_done
    records = make_records(45)
    node.records = records[:30]
    await observer.poll()
    assert observer.take_snapshot(1.0, is_stopping=False).goal == 40
    node.records = records[:39]
    await observer.poll()
    assert not observer.is_done
    node.records = records[:41]
    await observer.poll()
    assert observer.is_done


async def test_long_histories_come_by_pages_and_later_only_what_is_new(
    rpc: RpcClient, node: FakeNode, make_records: RecordMaker
) -> None:
    node.records = make_records(450)
    observer = make_observer(rpc)
    await observer.poll()
    shown = observer.take_snapshot(1.0, is_stopping=False).records
    assert [record.generation for record in shown] == list(range(1, 451))
    node.firsts.clear()
    await observer.poll()
    assert node.firsts == [450]  # the newest has no accuracy yet


async def test_accuracy_measured_later_reaches_the_picture(
    rpc: RpcClient, node: FakeNode, make_records: RecordMaker
) -> None:
    node.records = make_records(3)
    observer = make_observer(rpc)
    await observer.poll()
    assert not observer.take_snapshot(1.0, is_stopping=False).records[-1].has_accuracy
    node.records = (*node.records[:2], replace(node.records[2], has_accuracy=True))
    await observer.poll()
    assert observer.take_snapshot(1.0, is_stopping=False).records[-1].has_accuracy


async def test_an_unreachable_node_keeps_the_last_picture_and_is_explained(
    rpc: RpcClient, node: FakeNode, make_records: RecordMaker
) -> None:
    observer = make_observer(rpc)
    node.is_reachable = False
    await observer.poll()
    assert observer.take_snapshot(1.0, is_stopping=False).standstill is None  # it still starts
    late = observer.take_snapshot(60.0, is_stopping=False).standstill
    assert late is not None
    assert "no node answers at http://127.0.0.1:26657" in late
    node.is_reachable = True
    node.records = make_records(2)
    await observer.poll()
    node.is_reachable = False
    await observer.poll()
    snapshot = observer.take_snapshot(2.0, is_stopping=False)
    assert snapshot.generation == 2
    assert snapshot.standstill is not None
    node.is_reachable = True
    node.standstill = "no proof has arrived; is a miner running?"
    await observer.poll()
    assert observer.take_snapshot(3.0, is_stopping=False).standstill == node.standstill


async def test_a_restarting_process_explains_itself_with_its_log(rpc: RpcClient) -> None:
    child = Child(ChildCommand(name="app", arguments=("app",)), state="restarting", restarts=2)
    observer = Observer(rpc, {"app": child}, chain_id="c", home="chain", generations=None)
    snapshot = observer.take_snapshot(1.0, is_stopping=False)
    assert snapshot.standstill == (
        "app ended and is being started again (3 so far): see chain/logs/app.log"
    )
    assert snapshot.processes[0].health == "bad"
