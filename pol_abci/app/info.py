"""The info connection: the handshake, and queries of committed state.

Paths of Query, each with its data:

    /store/state/key      a state key; the value is the record under it
    /store/weights/key    u64 big-endian index of a chunk of the head's weights
    /account              a 20-byte address; its Account as the mempool would leave it
    /holdings             a 20-byte address; its maturing rewards and its slots, pairs of u64
    /history              u64 big-endian first generation; records, each behind its u32 length
    /status               nothing; JSON for people and dashboards

The first two carry proofs when asked to. Without a height they answer at the newest version,
with proofs at the one before it, since what proves a version is the header that follows it.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from pol_abci import __version__
from pol_abci.abci.generated.abci import types_pb2 as abci
from pol_abci.abci.generated.crypto import proof_pb2
from pol_abci.app.snapshot import get_listed_heights
from pol_abci.app.standstill import compute_block_age_ms, explain_standstill
from pol_abci.client.chain import HISTORY_LIMIT, HISTORY_PATH, STATUS_PATH
from pol_abci.client.holdings import HOLDINGS_PATH, STATE_PATH, Holdings, MaturingReward
from pol_abci.client.sending import ACCOUNT_PATH
from pol_abci.rules import keys
from pol_abci.rules.address import ADDRESS_BYTES
from pol_abci.rules.difficulty import compute_difficulty
from pol_abci.rules.errors import PolError
from pol_abci.rules.ledger import find_maturing_rewards
from pol_abci.rules.merkle import encode_value
from pol_abci.rules.params import PROTOCOL_VERSION, Address, Amount
from pol_abci.rules.shares import find_slots
from pol_abci.rules.transition import get_head
from pol_abci.store.errors import HeightUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.app.replica import Replica
    from pol_abci.rules.params import Params
    from pol_abci.rules.state import StateReader
    from pol_abci.store.snapshots import SnapshotFolder
    from pol_abci.store.store import Answer

INDEX_BYTES = 8
LENGTH = struct.Struct(">I")
QUERY_CODESPACE = "pol-query"


class QueryError(PolError):
    """A query that cannot be answered; the code tells programs why."""

    code = 1


class UnknownPath(QueryError):
    """No such path."""

    code = 1


class MalformedQuery(QueryError):
    """Data of the wrong form for its path."""

    code = 2


class HeightNotServed(QueryError):
    """A version that this node does not keep."""

    code = 3


class Info:
    """Answers what was committed, and reads of it."""

    def __init__(self, replica: Replica, snapshots: SnapshotFolder) -> None:
        self._replica = replica
        self._snapshots = snapshots
        self._paths: dict[str, Callable[[abci.RequestQuery], abci.ResponseQuery]] = {
            STATE_PATH: self._query_state,
            "/store/weights/key": self._query_chunk,
            ACCOUNT_PATH: self._query_account,
            HOLDINGS_PATH: self._query_holdings,
            HISTORY_PATH: self._query_history,
            STATUS_PATH: self._query_status,
        }

    def info(self) -> abci.ResponseInfo:
        """Say what was committed last; CometBFT replays what comes after it."""
        store = self._replica.store
        return abci.ResponseInfo(
            data="pol_abci",
            version=__version__,
            app_version=PROTOCOL_VERSION,
            last_block_height=store.height,
            last_block_app_hash=store.app_hash,
        )

    def query(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        """Read committed state, or what this node knows beside it."""
        try:
            path = request.path.decode(errors="replace")
            answer = self._paths.get(path)
            if answer is None:
                raise UnknownPath(f"no path {path!r}: there are {', '.join(self._paths)}")
            return answer(request)
        except QueryError as error:
            return abci.ResponseQuery(
                code=error.code, codespace=QUERY_CODESPACE, log=str(error), key=request.data
            )

    def _query_state(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        key, store = request.data, self._replica.store
        return self._answer(request, lambda height: store.query_state(key, height))

    def _query_chunk(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        index, store = _decode_index(request.data), self._replica.store
        return self._answer(request, lambda height: store.query_chunk(index, height))

    def _answer(
        self, request: abci.RequestQuery, query: Callable[[int], Answer]
    ) -> abci.ResponseQuery:
        try:
            return _encode_answer(request, query(self._choose_height(request)))
        except HeightUnavailable as error:  # of the version before, after a rollback
            raise HeightNotServed(str(error)) from error

    def _choose_height(self, request: abci.RequestQuery) -> int:
        newest = self._replica.store.height
        if newest == 0:
            raise _nothing_committed()
        if request.height == 0:
            return max(newest - 1, self._replica.initial_height) if request.prove else newest
        if request.height not in (newest, newest - 1):
            raise HeightNotServed(
                f"height {request.height} is not kept: this node answers at {newest} and "
                f"{newest - 1}"
            )
        return request.height

    def _query_account(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        """Answer what a sender's next transaction is judged by, beyond what is committed."""
        payload = self._replica.mempool_state.get(keys.account(_decode_address(request.data)))
        height = self._replica.store.height
        return abci.ResponseQuery(key=request.data, value=payload or b"", height=height)

    def _query_holdings(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        """Answer what of an account lies under many keys."""
        replica, address = self._replica, _decode_address(request.data)
        if replica.store.height == 0:
            raise _nothing_committed()
        holdings = find_holdings(replica.state, replica.chain.params, address)
        return abci.ResponseQuery(
            key=request.data, value=holdings.encode(), height=replica.store.height
        )

    def _query_history(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        first = _decode_index(request.data)
        records = self._replica.store.records(first, HISTORY_LIMIT)
        value = b"".join(LENGTH.pack(len(data)) + data for _, data in records)
        height = self._replica.store.height
        return abci.ResponseQuery(key=request.data, value=value, height=height)

    def _query_status(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        status = json.dumps(self._compute_status()).encode()
        height = self._replica.store.height
        return abci.ResponseQuery(key=request.data, value=status, height=height)

    def _compute_status(self) -> dict[str, object]:
        replica = self._replica
        status: dict[str, object] = {
            "chain_id": replica.chain.chain_id,
            "height": replica.store.height,
            "time_ms": replica.time_ms,
            "block_age_ms": compute_block_age_ms(replica),
            "standstill": explain_standstill(replica),
        }
        if replica.store.height == 0:
            return status
        params, head = replica.chain.params.difficulty, replica.get_head()
        verifier, soonest = replica.verifier, replica.tickets.get_soonest()
        counters, accuracy = verifier.status, replica.find_accuracy()
        return status | {
            "generation": head.generation,
            "seed": head.seed.hex(),
            "weights_root": head.weights_root.hex(),
            "head_time_ms": head.time_ms,
            "head_difficulty": head.difficulty,
            "difficulty_now": compute_difficulty(
                params, head.difficulty, head.time_ms, replica.get_now_ms()
            ),
            "target_interval_ms": params.target_interval_ms,
            "verifier": {
                "alive": counters.alive,
                "queued": verifier.queued,
                "walking": verifier.is_walking,
                "walked": counters.walked,
                "false": counters.false,
                "steps_per_second": (
                    counters.steps / counters.seconds if counters.seconds else None
                ),
            },
            "tickets": {
                "kept": len(replica.tickets),
                "best_score": None if soonest is None else soonest.verdict.score,
                "best_good_time_ms": None if soonest is None else soonest.good_time_ms,
            },
            "accuracy": (
                None
                if accuracy is None
                else {
                    "generation": accuracy.generation,
                    "correct": accuracy.correct_all,
                    "size": accuracy.size_all,
                }
            ),
            "size_all": verifier.size_all,
            "snapshot_height": next(iter(get_listed_heights(self._snapshots, replica.store)), None),
        }


def find_holdings(state: StateReader, params: Params, address: Address) -> Holdings:
    """What a node answers of a state, which has its genesis."""
    generation, maturity = get_head(state).generation, params.ledger.maturity_generations
    rewards = find_maturing_rewards(state, params.ledger, generation, address)
    return Holdings(
        generation=generation,
        rewards=tuple(
            MaturingReward(amount=Amount(amount), generation=minted + maturity)
            for minted, amount in rewards.items()
        ),
        slots=len(find_slots(state, params.shares, address)),
    )


def _nothing_committed() -> HeightNotServed:
    return HeightNotServed("nothing is committed yet: ask again after the first block")


def _decode_address(data: bytes) -> Address:
    if len(data) != ADDRESS_BYTES:
        raise MalformedQuery(f"the data is an address, {ADDRESS_BYTES} bytes")
    return Address(data)


def _decode_index(data: bytes) -> int:
    if len(data) != INDEX_BYTES:
        raise MalformedQuery(f"the data is a u64, 8 bytes big-endian, not {len(data)} bytes")
    return int.from_bytes(data, "big")


def _encode_answer(request: abci.RequestQuery, answer: Answer) -> abci.ResponseQuery:
    """Encode a value with its proof: with proof, as it is stored, since that is what is hashed."""
    reply = abci.ResponseQuery(key=request.data, height=answer.height)
    if answer.payload is not None:
        reply.value = encode_value(answer.payload) if request.prove else answer.payload
    if request.prove:
        ops = [proof_pb2.ProofOp(type=op.type, key=op.key, data=op.data) for op in answer.ops]
        reply.proof_ops.CopyFrom(proof_pb2.ProofOps(ops=ops))
    return reply
