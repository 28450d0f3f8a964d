from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.miner.submit import Outbox, Reception, Submitter, WalksDisagree
from pol_abci.miner.ticket import ChainClock, MiningHead, Ticket
from pol_abci.rules import errors
from pol_abci.rules.codec import ProofMessage, encode_unstamped_body
from pol_abci.rules.genesis import parse_params
from pol_abci.rules.params import SCORE_UNIT
from pol_abci.rules.progress import compute_ticket_time_ms
from pol_abci.rules.proof import TrueWalk, WalkClaim
from pol_abci.rules.seed import is_stamped
from pol_abci.rules.signing import authenticate

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = AccountKey(bytes(range(32)))
PARAMS = parse_params(
    {
        "protocol_version": 1,
        "scheme": "walk",
        "task": {
            "architecture": "cnn",
            "channels": [8, 16, 32],
            "dataset": "digits",
            "train_digest": "00" * 32,
            "test_digest": "00" * 32,
            "augmentation": {"shift": 1, "flip": False, "cutout": 0},
            "batch_size": 16,
            "learning_rate": "0.0625",
        },
        "arithmetic": {"version": 1, "forward_bits": 16, "backward_bits": 8},
        "walk": {
            "min_steps": 2,
            "max_steps": 32,
            "progress": "guard",
            "evaluation_samples": 128,
            "stamp_bits": 4,
        },
        "difficulty": {
            "first": 12 * SCORE_UNIT,
            "target_interval_ms": 4_000,
            "tau_intervals": 4,
            "slope": 2 * SCORE_UNIT,
            "max_fall": SCORE_UNIT,
        },
        "ledger": {
            "reward": "50000000",
            "halving_generations": 210_000,
            "min_fee": "1000",
            "account_burn": "1000000",
            "maturity_generations": 10,
        },
        "shares": {"slots": 100, "max_validators": 50, "liveness_window": 20},
    }
)
T0 = 1_000_000
SEED = b"s" * 32


def make_ticket(good_time_ms: int, score: int = 0, steps: int = 10, nonce: int = 0) -> Ticket:
    claim = WalkClaim(
        generation=3,
        address=KEY.address,
        nonce=nonce,
        steps=steps,
        step_digests=bytes(8 * steps),
        weights_root=bytes(32),
    )
    return Ticket(claim=claim, seed=SEED, score=score, good_time_ms=good_time_ms)


class FakeClock:
    def __init__(self) -> None:
        self.ms = T0

    def __call__(self) -> int:
        return self.ms


def make_head() -> MiningHead:
    model: Any = None  # no ticket's time depends on the model
    return MiningHead(model=model, weights_root=b"", difficulty=12 * SCORE_UNIT, time_ms=T0)


@pytest.mark.parametrize(
    ("score_bits", "correct_head", "correct_ticket", "intervals"),
    [
        (12, 100, 100, 0),
        (12, 100, 110, 0),
        (8, 100, 100, 2),  # two bits fall in an interval
        (12, 100, 97, 3),  # an image may be lost for each interval
        (8, 100, 97, 3),
        (6, 100, 99, 3),
    ],
)
def test_a_ticket_is_good_when_difficulty_and_progress_allow_it(
    score_bits: int, correct_head: int, correct_ticket: int, intervals: int
) -> None:
    verdict = TrueWalk(score_bits * SCORE_UNIT, correct_head, correct_ticket)
    assert compute_ticket_time_ms(PARAMS, make_head(), verdict) == T0 + intervals * 4_000


def test_a_ticket_that_loses_a_quarter_of_the_sample_is_never_good() -> None:
    verdict = TrueWalk(20 * SCORE_UNIT, 100, 67)
    assert compute_ticket_time_ms(PARAMS, make_head(), verdict) is None


def test_the_sooner_ticket_is_kept_and_of_equals_the_higher_score() -> None:
    outbox = Outbox(PARAMS)
    assert outbox.offer(make_ticket(T0 + 100, score=5))
    assert not outbox.offer(make_ticket(T0 + 200, score=9))
    assert not outbox.offer(make_ticket(T0 + 100, score=5))
    assert outbox.offer(make_ticket(T0 + 100, score=6))
    assert outbox.offer(make_ticket(T0 + 50, score=1))
    assert outbox.ticket == make_ticket(T0 + 50, score=1)


def test_a_ticket_is_sent_one_verification_before_it_is_good() -> None:
    outbox = Outbox(PARAMS, steps_per_second=100.0)
    assert outbox.compute_due_ms() is None
    outbox.offer(make_ticket(T0 + 10_000, steps=30))
    due_ms = outbox.compute_due_ms()
    assert due_ms is not None
    assert T0 + 10_000 - 300 - 500 <= due_ms <= T0 + 10_000 - 300


def test_a_verifier_of_unknown_speed_gets_a_quarter_interval() -> None:
    outbox = Outbox(PARAMS)
    outbox.offer(make_ticket(T0 + 10_000))
    assert outbox.compute_due_ms() == T0 + 9_000


def test_a_slow_verifier_does_not_make_tickets_go_out_for_ever() -> None:
    outbox = Outbox(PARAMS, steps_per_second=0.001)
    outbox.offer(make_ticket(T0 + 10_000))
    assert outbox.compute_due_ms() == T0 + 6_000


def test_a_received_ticket_is_sent_again_only_when_it_should_have_been_in() -> None:
    outbox = Outbox(PARAMS)
    ticket = make_ticket(T0 + 10_000)
    outbox.offer(ticket)
    outbox.process_reception(ticket, Reception.RECEIVED, T0 + 9_000)
    assert outbox.compute_due_ms() == T0 + 11_000
    outbox.process_reception(ticket, Reception.RECEIVED, T0 + 11_000)
    assert outbox.compute_due_ms() == T0 + 12_000


def test_a_better_ticket_is_due_though_the_last_was_received() -> None:
    outbox = Outbox(PARAMS)
    first, better = make_ticket(T0 + 10_000), make_ticket(T0 + 5_000)
    outbox.offer(first)
    outbox.process_reception(first, Reception.RECEIVED, T0)
    outbox.offer(better)
    assert outbox.compute_due_ms() == T0 + 4_000
    outbox.process_reception(first, Reception.RECEIVED, T0 + 1)  # a late answer to the old one
    assert outbox.compute_due_ms() == T0 + 4_000


def test_a_node_that_was_away_gets_the_ticket_again() -> None:
    outbox = Outbox(PARAMS)
    ticket = make_ticket(T0)
    outbox.offer(ticket)
    outbox.process_reception(ticket, Reception.RECEIVED, T0 + 9)
    outbox.forget_reception()
    due_ms = outbox.compute_due_ms()
    assert due_ms is not None
    assert due_ms <= T0


def test_a_lost_connection_is_tried_again_after_a_while() -> None:
    outbox = Outbox(PARAMS)
    ticket = make_ticket(T0)
    outbox.offer(ticket)
    outbox.process_reception(ticket, Reception.AGAIN, T0 + 9)
    assert outbox.compute_due_ms() == T0 + 9 + 500


@pytest.mark.parametrize("reception", [Reception.STALE, Reception.FALSE, Reception.REFUSED])
def test_a_worthless_ticket_is_dropped(reception: Reception) -> None:
    outbox = Outbox(PARAMS)
    ticket = make_ticket(T0)
    outbox.offer(ticket)
    outbox.process_reception(ticket, reception, T0)
    assert outbox.compute_due_ms() is None


def test_now_is_the_later_of_own_clock_and_newest_header() -> None:
    own = FakeClock()
    clock = ChainClock(own)
    assert clock.now_ms() == T0
    clock.observe(T0 + 50)
    clock.observe(T0 + 20)
    assert clock.now_ms() == T0 + 50
    own.ms += 60
    assert clock.now_ms() == T0 + 60


class Node:
    """A node that answers transactions with what `answer` gives: a code, or an error's words."""

    def __init__(self, answer: Callable[[int], int | str | None]) -> None:
        self.answer = answer
        self.received: list[bytes] = []
        self.notes: list[str] = []
        self.receptions: list[Reception] = []
        self.clock = FakeClock()
        rpc = RpcClient("http://node.test:1", transport=httpx.MockTransport(self.handle))
        self.submitter = Submitter(
            rpc,
            KEY,
            chain_id="c",
            params=PARAMS,
            clock=ChainClock(self.clock),
            note=self.notes.append,
            on_reception=self.receptions.append,
        )

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.received.append(base64.b64decode(json.loads(request.content)["params"]["tx"]))
        answer = self.answer(len(self.received))
        if answer is None:
            raise httpx.ConnectError("connection refused")
        if isinstance(answer, str):
            return httpx.Response(200, json={"error": {"data": answer}})
        result = {"code": answer, "log": "why", "hash": "AB"}
        return httpx.Response(200, json={"result": result})

    async def run_until(self, is_done: Callable[[], bool]) -> None:
        """Submit, letting half a second of the clock pass with every look, until it is done."""

        async def tick() -> None:
            while not is_done():
                self.clock.ms += 500
                self.submitter.reconnect()
                await asyncio.sleep(0.001)

        running = asyncio.create_task(self.submitter.run())
        done, _ = await asyncio.wait(
            {running, asyncio.create_task(tick())}, return_when=asyncio.FIRST_COMPLETED, timeout=20
        )
        running.cancel()
        assert done
        if running in done:
            running.result()


async def test_the_sent_ticket_is_the_signed_and_stamped_claim() -> None:
    node = Node(lambda _: errors.PendingProof.code)
    ticket = make_ticket(T0)
    node.submitter.offer(ticket)
    await node.run_until(lambda: bool(node.received))
    tx = authenticate("c", node.received[0])
    assert isinstance(tx.message, ProofMessage)
    assert tx.message.claim == ticket.claim
    body = encode_unstamped_body(tx.message)
    assert is_stamped(SEED, KEY.address, body, tx.message.stamp, PARAMS.walk.stamp_bits)


async def test_pending_is_received_and_the_same_bytes_go_again() -> None:
    node = Node(lambda _: errors.PendingProof.code)
    node.submitter.offer(make_ticket(T0))
    await node.run_until(lambda: len(node.received) >= 3)
    assert len(set(node.received)) == 1
    assert not node.notes


@pytest.mark.parametrize("trouble", [None, "mempool is full", errors.ProofRefused.code])
async def test_trouble_is_told_and_passes(trouble: int | str | None) -> None:
    node = Node(lambda count: trouble if count < 3 else errors.CODE_OK)
    node.submitter.offer(make_ticket(T0))
    await node.run_until(lambda: Reception.RECEIVED in node.receptions)
    assert len(node.received) >= 3
    assert bool(node.notes) == (trouble is not None)  # the follower tells of a lost node


async def test_bytes_that_the_node_has_already_count_as_received() -> None:
    node = Node(lambda _: "tx already exists in cache")
    node.submitter.offer(make_ticket(T0))
    await node.run_until(lambda: len(node.received) >= 2)
    assert node.submitter.outbox.ticket is not None
    assert not node.notes


async def test_a_stale_ticket_is_dropped_and_told_to_the_follower() -> None:
    node = Node(lambda _: errors.StaleProof.code)
    node.submitter.offer(make_ticket(T0))
    await node.run_until(lambda: bool(node.receptions))
    assert node.receptions == [Reception.STALE]
    assert node.submitter.outbox.ticket is None


async def test_an_unknown_refusal_is_told_with_its_code() -> None:
    node = Node(lambda _: 99)
    node.submitter.offer(make_ticket(T0))
    await node.run_until(lambda: bool(node.notes))
    assert "code 99: why" in node.notes[0]


async def test_a_machine_that_computes_otherwise_gives_up_in_words() -> None:
    node = Node(lambda _: errors.FalseProof.code)

    def offer_next() -> bool:
        node.submitter.offer(make_ticket(T0, nonce=len(node.received)))
        return False

    with pytest.raises(WalksDisagree, match="does not compute exactly"):
        await node.run_until(offer_next)
    assert len(node.received) == 3


async def test_false_now_and_then_is_no_reason_to_give_up() -> None:
    node = Node(lambda count: errors.FalseProof.code if count % 3 else errors.CODE_OK)

    def offer_next() -> bool:
        node.submitter.offer(make_ticket(T0, nonce=len(node.received)))
        return len(node.received) >= 8

    await node.run_until(offer_next)
