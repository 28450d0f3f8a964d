"""What a node tells of accounts and validators is read as far as its bounds go."""

from __future__ import annotations

from typing import Any

import pytest

from pol_abci.client.holdings import Holdings, MaturingReward, get_holdings, get_standing
from pol_abci.client.rpc_errors import UnexpectedAnswer
from pol_abci.rules.params import Amount
from tests.unit.client.fake_ledger import FakeLedger, encode, key_of


@pytest.mark.parametrize(
    ("shown", "asked", "words"),
    [(0, 1, "none on it"), (1, 100, "more than 10000 validators")],
)
async def test_validators_without_end_are_left(shown: int, asked: int, words: str) -> None:
    class Endless(FakeLedger):
        def rpc_validators(self, page: str, per_page: str) -> Any:
            pages.append(page)
            assert len(pages) < 999
            answer = super().rpc_validators("1", per_page)
            return answer | {"validators": answer["validators"][:shown], "total": str(10**9)}

    pages: list[str] = []
    async with Endless().client() as rpc:
        with pytest.raises(UnexpectedAnswer, match=words):
            await get_standing(rpc, key_of("alice").address)
    assert len(pages) == asked


@pytest.mark.parametrize("told", [b"", bytes(15), bytes(24)])
async def test_holdings_that_cannot_be_read_are_the_nodes_fault(told: bytes) -> None:
    class Strange(FakeLedger):
        def rpc_abci_query(self, path: str, data: str, prove: bool) -> Any:
            answer = super().rpc_abci_query(path, data, prove)
            answer["response"]["value"] = encode(told)
            return answer

    async with Strange().client() as rpc:
        with pytest.raises(UnexpectedAnswer, match=f"{len(told)} bytes are not holdings"):
            await get_holdings(rpc, key_of("alice").address)


def test_holdings_are_read_as_they_were_written() -> None:
    rewards = tuple(
        MaturingReward(amount=Amount(amount), generation=generation)
        for amount, generation in [(2**64 - 1, 7), (0, 8)]
    )
    for holdings in (
        Holdings(generation=6, rewards=rewards, slots=1_000),
        Holdings(generation=0, rewards=(), slots=0),
    ):
        assert Holdings.decode(holdings.encode()) == holdings
