"""A transaction is sent once, with a number of its own, and its outcome is told as far as known."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from pol_abci.client import sending
from pol_abci.client.bill import TooExpensive, compute_bill
from pol_abci.client.light import LightClient
from pol_abci.client.rpc import RpcClient
from pol_abci.client.sending import (
    OutcomeUnknown,
    TxFailed,
    TxRefused,
    get_pending_account,
    send_tx,
    wait_committed,
)
from pol_abci.client.transactions import build_transfer
from pol_abci.rules import keys
from pol_abci.rules.codec import Account, Transfer
from pol_abci.rules.params import Address, Amount
from tests.unit.client.fake_ledger import URL, FakeLedger, key_of
from tests.unit.rules import build_chain as make

ALICE, BOB = key_of("alice"), key_of("bob")
STRANGER = Address(b"\x07" * 20)
FEE, BURN = 10, 40


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "RETRY_S", 0.0)
    monkeypatch.setattr(sending, "POLL_S", 0.0)


@pytest.fixture
def node() -> FakeLedger:
    return FakeLedger()


def pay(sequence: int, amount: int = 100, recipient: Address = BOB.address) -> bytes:
    return build_transfer(
        ALICE,
        make.CHAIN_ID,
        sequence=sequence,
        fee=Amount(FEE),
        recipient=recipient,
        amount=Amount(amount),
    )


async def send(
    rpc: RpcClient, amount: int = 100, recipient: Address = BOB.address, *, is_own_node: bool = True
) -> bytes:
    return await send_tx(
        rpc,
        ALICE.address,
        lambda sequence: pay(sequence, amount, recipient),
        is_own_node=is_own_node,
    )


async def test_two_in_quick_succession_are_two(node: FakeLedger) -> None:
    async with node.client() as rpc:
        first = await send(rpc)
        second = await send(rpc)
        assert first != second
        assert (await get_pending_account(rpc, ALICE.address)).sequence == 2
        assert await wait_committed(rpc, second, 1) == await wait_committed(rpc, first, 1) == 4
    assert [tx.sequence for tx in node.offered] == [1, 2]


@pytest.mark.parametrize("amount", [100, 200], ids=["the same", "another"])
async def test_a_race_for_the_number_loses_nothing(node: FakeLedger, amount: int) -> None:
    node.before_check = [pay(1, amount)]
    async with node.client() as rpc:
        tx_hash = await send(rpc)
    assert [tx.sequence for tx in node.mempool] == [1, 2]
    assert node.mempool[1].hash == tx_hash


@pytest.mark.parametrize("amount", [100, 200], ids=["the same", "another"])
async def test_a_named_node_gets_one_signed_transaction(node: FakeLedger, amount: int) -> None:
    node.before_check = [pay(1, amount)]
    async with node.client() as rpc:
        with pytest.raises(OutcomeUnknown, match="came between") as told:
            await send(rpc, is_own_node=False)
    assert [tx.sequence for tx in node.offered] == [1], "it holds two, and may have both paid"
    assert node.offered[0].hash.hex().upper() in str(told.value)
    assert "pol-abci history" in str(told.value)


async def test_many_at_once_each_get_a_number(node: FakeLedger) -> None:
    async with node.client() as rpc:
        hashes = await asyncio.gather(*(send(rpc) for _ in range(8)))
    assert len(set(hashes)) == 8
    assert sorted(tx.sequence for tx in node.mempool) == list(range(1, 9))


async def test_a_refusal_is_told_with_what_to_do(node: FakeLedger) -> None:
    async with node.client() as rpc:
        with pytest.raises(TxRefused, match=r"InsufficientFunds \(code 7\).*pol-abci balance"):
            await send(rpc, 10**6)
    assert node.mempool == []
    assert len(node.offered) == 1


async def test_an_answer_that_is_lost_is_no_failure(node: FakeLedger) -> None:
    node.is_losing_answers = True
    async with node.client() as rpc:
        with pytest.raises(OutcomeUnknown, match="may still be committed: look") as told:
            await send(rpc)
    assert len(node.offered) == 1, "sent again, and paid twice"
    assert node.offered[0].hash.hex().upper() in str(told.value)


async def test_an_error_to_what_is_out_is_no_failure(node: FakeLedger) -> None:
    async with node.client() as rpc:
        node.method_errors = {"broadcast_tx_sync": "broadcast confirmation not received"}
        with pytest.raises(OutcomeUnknown, match=r"not received; transaction [0-9A-F]{64} may"):
            await send(rpc)


async def test_trouble_while_waiting_is_waited_out(node: FakeLedger) -> None:
    def break_twice(request: httpx.Request) -> httpx.Response:
        troubles.append(request)
        return (
            httpx.Response(502, text="Bad Gateway") if len(troubles) < 3 else node.handle(request)
        )

    troubles: list[httpx.Request] = []
    async with node.client() as rpc:
        tx_hash = await send(rpc)
    async with RpcClient(URL, transport=httpx.MockTransport(break_twice)) as rpc:
        assert await wait_committed(rpc, tx_hash, 60) == 4


async def test_trouble_that_stays_ends_with_the_hash(node: FakeLedger) -> None:
    async with node.client() as rpc:
        tx_hash = await send(rpc)
        node.method_errors = {"tx": "out of memory"}
        with pytest.raises(OutcomeUnknown, match="out of memory; transaction") as told:
            await wait_committed(rpc, tx_hash, 0.01)
    assert tx_hash.hex().upper() in str(told.value)


async def test_a_block_that_does_not_come_is_no_failure(node: FakeLedger) -> None:
    node.is_quick = False
    async with node.client() as rpc:
        tx_hash = await send(rpc)
        with pytest.raises(OutcomeUnknown, match=r"within 0\.01 s; transaction [0-9A-F]{64} may"):
            await wait_committed(rpc, tx_hash, 0.01)


async def test_a_node_without_an_index_is_told(node: FakeLedger) -> None:
    node.has_index = False
    async with node.client() as rpc:
        tx_hash = await send(rpc)
        with pytest.raises(OutcomeUnknown, match=r"keeps no index.*may still be committed"):
            await wait_committed(rpc, tx_hash, 1)


async def test_one_that_fails_in_its_block_is_told(node: FakeLedger) -> None:
    async with node.client() as rpc:
        tx_hash = await send(rpc)
        node.state.set(keys.account(ALICE.address), Account(sequence=9).encode())
        with pytest.raises(TxFailed, match="failed in block 4"):
            await wait_committed(rpc, tx_hash, 1)


@pytest.mark.parametrize(
    ("recipient", "amount", "total"),
    [(BOB.address, 4_990, 5_000), (STRANGER, 4_950, 5_000), (STRANGER, 1, 51)],
)
async def test_a_bill_is_what_the_rules_charge(
    node: FakeLedger, recipient: Address, amount: int, total: int
) -> None:
    async with node.client() as rpc:
        bill = await compute_bill(
            rpc,
            LightClient(rpc, make.CHAIN_ID),
            make.genesis().params.ledger,
            ALICE.address,
            transfer=Transfer(recipient, Amount(amount)),
        )
        assert (bill.total, bill.fee) == (total, FEE)
        await send(rpc, amount, recipient)
        left = (await get_pending_account(rpc, ALICE.address)).balance
    assert left == 5_000 - total


@pytest.mark.parametrize(
    ("recipient", "amount", "fee", "words"),
    [
        (BOB.address, 4_991, None, "0.005001 coins are needed"),
        (STRANGER, 4_951, None, "up to 0.00004 burned for a new account"),
        (BOB.address, 1, 9, "a fee of 0.000009 is too low: this chain takes 0.00001"),
    ],
)
async def test_what_cannot_be_paid_is_told_before_it_is_signed(
    node: FakeLedger, recipient: Address, amount: int, fee: int | None, words: str
) -> None:
    async with node.client() as rpc:
        with pytest.raises(TooExpensive, match=words):
            await compute_bill(
                rpc,
                LightClient(rpc, make.CHAIN_ID),
                make.genesis().params.ledger,
                ALICE.address,
                transfer=Transfer(recipient, Amount(amount)),
                fee=None if fee is None else Amount(fee),
            )


@pytest.mark.parametrize("burn", [BURN, 0], ids=["waits", "is in a block"])
async def test_only_a_proven_account_costs_no_burn(node: FakeLedger, burn: int) -> None:
    async with node.client() as rpc:
        await send(rpc, 1, STRANGER)
        if not burn:
            node.make_block()
            node.make_block()
        bill = await compute_bill(
            rpc,
            LightClient(rpc, make.CHAIN_ID),
            make.genesis().params.ledger,
            ALICE.address,
            transfer=Transfer(STRANGER, Amount(1)),
        )
    assert bill.burn == burn
