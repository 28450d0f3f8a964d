from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from pol_abci.client.chain import ChainNotBegun, get_chain_status, get_history
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import RpcError, UnexpectedAnswer
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.params import Address

STATUS: dict[str, Any] = {
    "chain_id": "c",
    "height": 12,
    "time_ms": 1_000,
    "generation": 4,
    "seed": "aa" * 32,
    "weights_root": "bb" * 32,
    "head_time_ms": 900,
    "head_difficulty": 786_432,
    "difficulty_now": 700_000,
    "target_interval_ms": 4_000,
    "block_age_ms": 250,
    "standstill": None,
    "verifier": {
        "alive": True,
        "queued": 1,
        "walking": True,
        "walked": 9,
        "false": 2,
        "steps_per_second": 510.5,
    },
    "tickets": {"kept": 1, "best_score": 650_000, "best_good_time_ms": 1_500},
    "accuracy": {"generation": 3, "correct": 300, "size": 360},
    "size_all": 360,
}
RECORD = GenerationRecord(
    generation=1,
    height=5,
    time_ms=900,
    interval_ms=400,
    difficulty=786_432,
    score=800_000,
    correct_head=20,
    correct_ticket=30,
    miner=Address(b"m" * 20),
    nonce=2**64 - 1,
    steps=7,
    weights_root=b"w" * 32,
    tx_hash=b"h" * 32,
)


def make_client(path: str, data: bytes, value: bytes, code: int = 0) -> RpcClient:
    def handle(request: httpx.Request) -> httpx.Response:
        params = json.loads(request.content)["params"]
        assert (params["path"], params["data"]) == (path, data.hex())
        response = {"code": code, "log": "why", "value": base64.b64encode(value).decode()}
        return httpx.Response(200, json={"result": {"response": response}})

    return RpcClient("http://node.test:1", transport=httpx.MockTransport(handle))


def frame(*records: bytes) -> bytes:
    return b"".join(len(record).to_bytes(4, "big") + record for record in records)


async def test_status_of_the_chain() -> None:
    status = await get_chain_status(make_client("/status", b"", json.dumps(STATUS).encode()))
    assert (status.generation, status.seed) == (4, b"\xaa" * 32)
    assert status.verifier.steps_per_second == 510.5
    assert status.tickets.best_good_time_ms == 1_500
    assert status.accuracy is not None
    assert status.accuracy.correct == 300


async def test_a_status_without_tickets_or_accuracy() -> None:
    tickets = {"kept": 0, "best_score": None, "best_good_time_ms": None}
    verifier = STATUS["verifier"] | {"steps_per_second": None}
    changes = {"tickets": tickets, "accuracy": None, "standstill": "no quorum"}
    content = STATUS | changes | {"verifier": verifier}
    status = await get_chain_status(make_client("/status", b"", json.dumps(content).encode()))
    assert status.accuracy is None
    assert status.verifier.steps_per_second is None
    assert status.tickets.best_score is None
    assert status.standstill == "no quorum"


async def test_a_chain_without_a_block_has_not_begun() -> None:
    content = {"chain_id": "c", "height": 0, "time_ms": 0, "standstill": "no block yet"}
    with pytest.raises(ChainNotBegun, match="no block yet"):
        await get_chain_status(make_client("/status", b"", json.dumps(content).encode()))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps(STATUS | {"seed": "x"}).encode(),
        json.dumps(STATUS | {"generation": float("inf")}).encode(),
        json.dumps(STATUS).encode().replace(b"510.5", b"NaN"),
        json.dumps(STATUS).replace(f'"height": {STATUS["height"]}', '"height": 1e999').encode(),
        b"\xff",
    ],
)
async def test_another_application_is_told_apart(value: bytes) -> None:
    with pytest.raises(UnexpectedAnswer, match="not a pol-abci"):
        await get_chain_status(make_client("/status", b"", value))


async def test_history_comes_record_by_record() -> None:
    second = replace(RECORD, generation=2)
    rpc = make_client("/history", (1).to_bytes(8, "big"), frame(RECORD.encode(), second.encode()))
    assert await get_history(rpc, 1) == (RECORD, second)


async def test_no_history_is_no_error() -> None:
    assert await get_history(make_client("/history", bytes(8), b""), 0) == ()


@pytest.mark.parametrize(
    "value", [frame(RECORD.encode())[:-1], b"\0\0\0", frame(b"\xff"), b"\xff" * 8]
)
async def test_a_damaged_history_is_refused(value: bytes) -> None:
    with pytest.raises(UnexpectedAnswer, match="history that cannot be read"):
        await get_history(make_client("/history", bytes(8), value), 0)


async def test_a_refused_query_is_told_in_the_applications_words() -> None:
    with pytest.raises(RpcError, match="refused /history: why"):
        await get_history(make_client("/history", bytes(8), b"", code=1), 0)


@pytest.mark.parametrize(
    "lie",
    [
        {"time_ms": 10**400},  # a clock set to it could not be waited for
        {"generation": -1},
        {"height": True},
        {"target_interval_ms": 0.5},
        {"verifier": STATUS["verifier"] | {"steps_per_second": "nan"}},
        {"verifier": STATUS["verifier"] | {"steps_per_second": -1}},
    ],
)
async def test_numbers_that_no_node_can_mean_are_refused(lie: dict[str, Any]) -> None:
    rpc = make_client("/status", b"", json.dumps(STATUS | lie).encode())
    with pytest.raises(UnexpectedAnswer, match="cannot be read"):
        await get_chain_status(rpc)
