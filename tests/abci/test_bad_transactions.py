"""Transactions of coins and validators that cannot be: code, sentence, nothing changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nacl.signing import SigningKey

from pol_abci.rules.codec import (
    RegisterValidator,
    Transfer,
    decode_tx,
    encode_body,
    encode_tx,
)
from pol_abci.rules.errors import (
    CODE_FAILED,
    CODE_OK,
    CODESPACE,
    BarredValidator,
    FeeTooLow,
    InsufficientFunds,
    InvalidAmount,
    InvalidPossession,
    InvalidSequence,
    InvalidSignature,
    KeyAlreadyBound,
    MalformedTx,
    NotJailed,
    OversizeTx,
)
from pol_abci.rules.ledger import get_account
from pol_abci.rules.params import MAX_SUPPLY, MAX_TX_BYTES, Address
from tests.abci.digits_chain import (
    CHAIN_ID,
    FUNDS,
    make_consensus_key,
    make_genesis,
    make_key,
)
from tests.abci.digits_driver import (
    FEE,
    get_consensus_address,
    register,
    run_chain,
    transfer,
    unjail,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.rules.codec import Message
    from pol_abci.rules.errors import InvalidTx
    from tests.abci.digits_driver import DigitsChain

GENESIS = make_genesis(validators=((1, 50), (2, 50)), funded=(3, 4))
BURN = GENESIS.params.ledger.account_burn


def sign(number: int, sequence: int, message: Message, *, fee: int = FEE) -> bytes:
    """Any message, also such as the client would not build."""
    key = make_key(number)
    body = encode_body(sequence, fee, message)
    return encode_tx(body, key.public_key, key.sign_body(CHAIN_ID, body))


async def expect_refused(
    chain: DigitsChain, raw: bytes, error: type[InvalidTx], sentence: str, *, good: bytes
) -> None:
    """Refused in CheckTx; no proposal may hold it; a block that does goes on without it."""
    reply = await chain.check(raw)
    assert (reply.code, reply.codespace) == (error.code, CODESPACE), reply.log
    assert sentence in reply.log
    assert await chain.prepare([raw, good]) == [good]
    assert not await chain.is_accepted([raw])
    assert not await chain.is_accepted([good, raw, raw])
    result = await chain.finalize([raw, good])
    assert [each.code for each in result.tx_results] == [CODE_FAILED, CODE_OK]
    assert result.tx_results[0].log.startswith(f"code {error.code}: ")
    bad = result.tx_results[0]
    assert (bad.data, bad.gas_wanted, bad.gas_used, len(bad.events)) == (b"", 0, 0, 0)
    assert result.app_hash == (await chain.finalize([good])).app_hash
    assert (await chain.check(raw)).code == error.code  # nor did the mempool's state change


async def test_forms_and_signatures(tmp_path: Path) -> None:
    async with run_chain(tmp_path, genesis=GENESIS) as chain:
        await chain.driver.make_blocks(2)
        good, raw = transfer(2, 1), transfer(1, 1)
        tx = decode_tx(raw)
        message = Transfer(Address(b"short"), tx.message.amount)  # type: ignore[union-attr]  # a transfer
        for bad, sentence in (
            (raw[:-1], "not a protobuf Tx"),
            (raw + b"\x20\x01", "encode the transaction canonically"),
            (b"not a transaction", ""),
            (encode_tx(tx.body_bytes, tx.public_key[:-1], tx.signature), "public_key has 31 bytes"),
            (sign(1, 1, message), "recipient has 5 bytes: give 20"),
        ):
            await expect_refused(chain, bad, MalformedTx, sentence, good=good)
        await expect_refused(chain, raw + bytes(MAX_TX_BYTES), OversizeTx, "at most", good=good)
        other = transfer(1, 1, chain_id="pol-another")
        await expect_refused(chain, other, InvalidSignature, f"for {CHAIN_ID}", good=good)
        stolen = encode_tx(tx.body_bytes, make_key(2).public_key, tx.signature)
        await expect_refused(chain, stolen, InvalidSignature, "sign the body", good=good)


async def test_transfers_without_funds_with_impossible_amounts_or_low_fees(tmp_path: Path) -> None:
    async with run_chain(tmp_path, genesis=GENESIS) as chain:
        await chain.driver.make_blocks(2)
        good = transfer(2, 1)
        for bad, error, sentence in (
            (
                transfer(1, 1, amount=FUNDS),
                InsufficientFunds,
                f"{FUNDS + FEE + BURN} needed ({BURN} of it burned, for a new account)",
            ),
            (transfer(1, 1, amount=FUNDS - FEE), InsufficientFunds, f"{FUNDS} there"),
            (transfer(1, 1, recipient=2, amount=FUNDS), InsufficientFunds, f"{FUNDS + FEE} needed"),
            (transfer(1, 1, recipient=1, amount=FUNDS), InsufficientFunds, "needed"),
            (transfer(1, 1, amount=1, fee=FUNDS), InsufficientFunds, "needed"),
            (transfer(1, 1, fee=2**64 - 1), InsufficientFunds, "needed"),
            (transfer(7, 1, amount=1), InsufficientFunds, "0 there"),
            (transfer(1, 1, amount=0), InvalidAmount, f"give 1 to {MAX_SUPPLY}"),
            (transfer(1, 1, amount=2**63), InvalidAmount, f"amount {2**63}"),
            (transfer(1, 1, amount=2**64 - 1), InvalidAmount, f"amount {2**64 - 1}"),
            (transfer(1, 1, amount=2**63 - 1, fee=2**64 - 1), InsufficientFunds, "needed"),
            (transfer(1, 1, fee=FEE - 1), FeeTooLow, f"fee {FEE - 1}: give at least {FEE}"),
        ):
            await expect_refused(chain, bad, error, sentence, good=good)
        everything = transfer(1, 1, amount=FUNDS - FEE - BURN)
        assert (await chain.driver.add_tx(everything)).code == CODE_OK
        # the mempool's state is ahead of the committed one: that account is empty there
        reply = await chain.check(transfer(1, 2, amount=1))
        assert reply.code == InsufficientFunds.code
        assert (await chain.driver.make_block()).codes == (CODE_OK,)


async def test_sequences_used_and_ahead(tmp_path: Path) -> None:
    async with run_chain(tmp_path, genesis=GENESIS) as chain:
        await chain.driver.make_blocks(2)
        first, second, third = (transfer(1, number) for number in (1, 2, 3))
        good = transfer(2, 1)
        await expect_refused(chain, second, InvalidSequence, "sequence 2: the next is 1", good=good)
        await expect_refused(
            chain, transfer(1, 0), InvalidSequence, "sequence 0: the next is 1", good=good
        )
        assert not await chain.is_accepted([second, first])
        assert not await chain.is_accepted([first, first])
        assert [each.code for each in (await chain.finalize([first, first])).tx_results] == [0, 1]
        assert await chain.prepare([first, first, third, second]) == [first, second]
        assert (await chain.driver.add_tx(first)).code == CODE_OK
        assert (await chain.driver.add_tx(second)).code == CODE_OK
        assert (await chain.driver.make_block()).codes == (CODE_OK, CODE_OK)
        await expect_refused(chain, first, InvalidSequence, "sequence 1: the next is 3", good=third)
        assert get_account(chain.nodes[0].replica.state, make_key(9).address).balance == 10_000


async def test_keys_are_bound_once_and_by_who_has_them(tmp_path: Path) -> None:
    async with run_chain(tmp_path, genesis=GENESIS) as chain:
        await chain.driver.make_blocks(2)
        good = transfer(2, 1)
        await expect_refused(
            chain, register(1, 1, consensus=8), KeyAlreadyBound, "has a consensus key", good=good
        )
        await expect_refused(
            chain, register(3, 1, consensus=1), KeyAlreadyBound, "make another", good=good
        )
        key = bytes(SigningKey(make_consensus_key(8).seed).verify_key)
        mine = decode_tx(register(4, 1, consensus=8)).message
        assert isinstance(mine, RegisterValidator)
        for stolen in (mine.possession, bytes(64), bytes(reversed(mine.possession))):
            raw = sign(3, 1, RegisterValidator(key, stolen))
            await expect_refused(chain, raw, InvalidPossession, "with the consensus key", good=good)
        assert not await chain.is_accepted([register(3, 1), register(4, 1, consensus=3)])
        await chain.driver.make_block([register(3, 1)])
        await expect_refused(
            chain, register(3, 2), KeyAlreadyBound, "has a consensus key and keeps it", good=good
        )


async def test_who_may_leave_jail(tmp_path: Path) -> None:
    async with run_chain(tmp_path, genesis=GENESIS) as chain:
        await chain.driver.make_blocks(2)
        good = transfer(1, 1)
        for number in (2, 3):
            await expect_refused(chain, unjail(number, 1), NotJailed, "is not in jail", good=good)
        await chain.driver.make_block(misbehaviour=[get_consensus_address(2)])
        await expect_refused(chain, unjail(2, 1), BarredValidator, "is barred for ever", good=good)
        await expect_refused(
            chain, register(2, 1, consensus=8), KeyAlreadyBound, "keeps it", good=good
        )


async def test_a_failing_transaction_costs_its_sender_nothing(tmp_path: Path) -> None:
    async with run_chain(tmp_path, genesis=GENESIS) as chain:
        await chain.driver.make_blocks(2)
        before = get_account(chain.nodes[0].replica.state, make_key(3).address)
        block = chain.make_block_request([unjail(3, 1), transfer(3, 1, amount=FUNDS)])
        await chain.driver._execute(block, chain.driver.nodes[0], None)
        assert chain.driver.blocks[-1].codes == (CODE_FAILED, CODE_FAILED)
        assert get_account(chain.nodes[0].replica.state, make_key(3).address) == before
        assert before == replace(before, balance=FUNDS, sequence=0)
