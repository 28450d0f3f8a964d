"""What a node tells of validators is read as far as CometBFT's bounds go."""

from __future__ import annotations

from typing import Any

import pytest

from pol_abci.client.holdings import get_standing
from pol_abci.client.rpc_errors import UnexpectedAnswer
from tests.unit.client.fake_ledger import FakeLedger, key_of
from tests.unit.rules import build_chain as make


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
            await get_standing(rpc, make.genesis().params, key_of("alice").address)
    assert len(pages) == asked
