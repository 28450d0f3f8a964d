"""A chain's generations for `plot`: from a running node, a stopped node's store, or a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pol_abci.client.chain import HISTORY_LIMIT, get_chain_status, get_history
from pol_abci.client.rpc import RpcClient
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.rules.genesis import Genesis


class EmptyChain(PolError):
    """A chain that has no generation to show yet."""


@dataclass(frozen=True, slots=True)
class History:
    """All of a chain's generations that a node remembers, in order, at least one."""

    chain_id: str
    target_interval_ms: int
    records: tuple[GenerationRecord, ...]

    def __post_init__(self) -> None:
        if not self.records:
            raise EmptyChain(
                f"this node knows of no generation of the chain {self.chain_id}, so there is "
                f"nothing to draw; let it run with a miner first (`pol-abci up`). One that joined "
                f"by a snapshot knows only those that came after"
            )


class InvalidHistory(PolError):
    """A file that `plot --data` did not write."""


class StoreMissing(PolError):
    """A home whose app has not run yet, or has lost its store."""


def check_store(path: Path) -> None:
    """Look whether there is a store, since opening one would make it.

    Raises
    ------
    StoreMissing
        When there is none.
    """
    if not path.exists():
        raise StoreMissing(
            f"{path} is not there: the node has not run yet, or its store was deleted; "
            f"`pol-abci up` makes it, from the chain's blocks where there are any"
        )


async def fetch_history(url: str) -> History:
    """Ask the app of a running node.

    Raises
    ------
    NodeUnreachable, RpcError, EmptyChain
        When it does not answer, or has nothing to tell.
    """
    async with RpcClient(url) as rpc:
        status = await get_chain_status(rpc)
        records: list[GenerationRecord] = []
        first = 1
        while page := await get_history(rpc, first):
            records += page
            first = page[-1].generation + 1
    return History(status.chain_id, status.target_interval_ms, tuple(records))


def read_history(path: Path, chain_id: str, genesis: Genesis) -> History:
    """Read the store of a stopped node.

    Raises
    ------
    StoreLocked
        While the node runs.
    StoreError, EmptyChain, StoreMissing
        When there is nothing to read.
    """
    target_interval_ms = genesis.params.difficulty.target_interval_ms
    check_store(path)
    store = Store.open(path, chain_id=chain_id, genesis_digest=compute_genesis_digest(genesis))
    try:
        records: list[GenerationRecord] = []
        while page := store.records(records[-1].generation + 1 if records else 1, HISTORY_LIMIT):
            records += [GenerationRecord.decode(data) for _, data in page]
    finally:
        store.close()
    return History(chain_id, target_interval_ms, tuple(records))


def encode_history(history: History) -> str:
    """Write a history as JSON, a line a generation; bytes are hexadecimal digits."""
    records = (
        json.dumps(
            {
                name: value.hex() if isinstance(value, bytes) else value
                for name, value in asdict(record).items()
            }
        )
        for record in history.records
    )
    return (
        f'{{"chain_id": {json.dumps(history.chain_id)}, '
        f'"target_interval_ms": {history.target_interval_ms}, "generations": [\n'
        + ",\n".join(records)
        + "\n]}\n"
    )


def decode_history(text: str) -> History:
    """Read what `encode_history` wrote.

    Raises
    ------
    InvalidHistory
        For anything else.
    """
    try:
        document = json.loads(text)
        records = [_decode_record(fields) for fields in document["generations"]]
        chain_id, target_interval_ms = document["chain_id"], document["target_interval_ms"]
        if not (isinstance(chain_id, str) and type(target_interval_ms) is int):
            raise TypeError("chain_id is a text, target_interval_ms an integer")  # noqa: TRY301
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidHistory(f"this is not what `plot --data` writes ({error})") from error
    if target_interval_ms < 1:
        raise InvalidHistory(f"target_interval_ms is {target_interval_ms}: give 1 or more")
    return History(chain_id, target_interval_ms, tuple(records))


def _decode_record(fields: dict[str, Any]) -> GenerationRecord:
    values: dict[str, Any] = {
        name: bytes.fromhex(value) if isinstance(value, str) else value
        for name, value in fields.items()
    }
    record = GenerationRecord(**values)
    record.encode()  # holds every value against its field's type and range
    return record
