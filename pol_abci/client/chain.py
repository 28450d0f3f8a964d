"""What a node tells of its chain without proof: where it stands, and its generations.

For people and for the miner, which believes none of it without redoing the walks or asking for
proofs (`client.light`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pol_abci.client.rpc_errors import RpcError, UnexpectedAnswer
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.errors import CODE_OK, MalformedRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.client.answers import QueryAnswer
    from pol_abci.client.rpc import RpcClient

STATUS_PATH = "/status"
HISTORY_PATH = "/history"
HISTORY_LIMIT = 200
"""Generations in one answer, at most."""

_LENGTH_BYTES = 4
Number = TypeVar("Number", int, float)


class ChainNotBegun(RpcError):
    """The chain has no state to speak of yet; wait for its first blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierStatus:
    """The node's verifier: counts since it started, and its speed, None before its first walk."""

    alive: bool
    queued: int
    walking: bool
    walked: int
    false: int
    steps_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketsStatus:
    """True tickets that the node keeps for the head; `best_*` None when there are none."""

    kept: int
    best_score: int | None
    best_good_time_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Of the model of `generation`: `correct` of the `size` images of the test set."""

    generation: int
    correct: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStatus:
    """The application's view of the chain. Difficulties in 1/65,536 bit.

    `time_ms` is the newest header time; `block_age_ms` says for how long nothing was committed.
    `standstill` says why no generation can come at present, or None. `snapshot_height` is that of
    the newest snapshot that a joining node can have from this one, None where there is none.
    """

    chain_id: str
    height: int
    time_ms: int
    block_age_ms: int
    generation: int
    seed: bytes
    weights_root: bytes
    head_time_ms: int
    head_difficulty: int
    difficulty_now: int
    target_interval_ms: int
    standstill: str | None
    verifier: VerifierStatus
    tickets: TicketsStatus
    accuracy: Accuracy | None
    size_all: int
    snapshot_height: int | None = None


async def get_chain_status(rpc: RpcClient) -> ChainStatus:
    """Ask the application where the chain stands.

    Raises
    ------
    ChainNotBegun
        Before the first block.
    RpcError, NodeUnreachable
        When it does not say.
    """
    answer = await query_application(rpc, STATUS_PATH, b"")
    try:
        content = json.loads(answer.value, parse_constant=_refuse_constant)
        if content["height"] == 0:
            raise ChainNotBegun(f"the chain behind {rpc.url} has not begun: no block yet")
        return _parse_status(content)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnexpectedAnswer(
            f"the application behind {rpc.url} is not a pol-abci of this version: "
            f"its {STATUS_PATH} cannot be read ({error})"
        ) from error


async def get_history(rpc: RpcClient, first: int) -> tuple[GenerationRecord, ...]:
    """Return records from generation `first` on, in order, at most `HISTORY_LIMIT`.

    Empty when the node has none there: not reached yet, or it joined later.

    Raises
    ------
    RpcError, NodeUnreachable
        When it does not say, or the answer is none.
    """
    answer = await query_application(rpc, HISTORY_PATH, first.to_bytes(8, "big"))
    try:
        return tuple(GenerationRecord.decode(record) for record in _split(answer.value))
    except MalformedRecord as error:
        raise UnexpectedAnswer(f"{rpc.url} sent a history that cannot be read: {error}") from error


async def query_application(
    rpc: RpcClient, path: str, data: bytes, *, prove: bool = False
) -> QueryAnswer:
    """Ask a node's application.

    Raises
    ------
    RpcError, NodeUnreachable
        When it refuses, with its own words, or does not answer.
    """
    answer = await rpc.abci_query(path, data, prove=prove)
    if answer.code != CODE_OK:
        raise RpcError(f"the application behind {rpc.url} refused {path}: {answer.log}")
    return answer


def _split(content: bytes) -> list[bytes]:
    """Cut `u32 length ‖ record` repeated."""
    records = []
    position = 0
    while position < len(content):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(content[start - _LENGTH_BYTES : start], "big")
        if position > len(content):
            raise MalformedRecord("a record is cut off")
        records.append(content[start:position])
    return records


def _parse_status(content: Any) -> ChainStatus:
    verifier, tickets, accuracy = content["verifier"], content["tickets"], content["accuracy"]
    return ChainStatus(
        chain_id=str(content["chain_id"]),
        height=_integer(content["height"]),
        time_ms=_integer(content["time_ms"]),
        block_age_ms=_integer(content["block_age_ms"]),
        generation=_integer(content["generation"]),
        seed=bytes.fromhex(content["seed"]),
        weights_root=bytes.fromhex(content["weights_root"]),
        head_time_ms=_integer(content["head_time_ms"]),
        head_difficulty=_integer(content["head_difficulty"]),
        difficulty_now=_integer(content["difficulty_now"]),
        target_interval_ms=_integer(content["target_interval_ms"]),
        standstill=None if content["standstill"] is None else str(content["standstill"]),
        verifier=VerifierStatus(
            alive=bool(verifier["alive"]),
            queued=_integer(verifier["queued"]),
            walking=bool(verifier["walking"]),
            walked=_integer(verifier["walked"]),
            false=_integer(verifier["false"]),
            steps_per_second=_optional(_speed, verifier["steps_per_second"]),
        ),
        tickets=TicketsStatus(
            kept=_integer(tickets["kept"]),
            best_score=_optional(_integer, tickets["best_score"]),
            best_good_time_ms=_optional(_integer, tickets["best_good_time_ms"]),
        ),
        accuracy=None
        if accuracy is None
        else Accuracy(
            generation=_integer(accuracy["generation"]),
            correct=_integer(accuracy["correct"]),
            size=_integer(accuracy["size"]),
        ),
        size_all=_integer(content["size_all"]),
        snapshot_height=_optional(_integer, content.get("snapshot_height")),
    )


def _refuse_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which Python reads as numbers although JSON has none."""
    raise ValueError(f"{name} is no number")


def _integer(value: Any) -> int:
    """Refuse what no counter of the application can be."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise ValueError(f"{str(value)[:20]!r} is no 64-bit integer")
    return value


def _speed(value: Any) -> float:
    """Refuse texts, which Python would read as infinite or as no number."""
    if not isinstance(value, int | float) or not 0 <= value < 2**64:
        raise ValueError(f"{str(value)[:20]!r} is no speed")
    return float(value)


def _optional(kind: Callable[[Any], Number], value: Any) -> Number | None:
    return None if value is None else kind(value)
