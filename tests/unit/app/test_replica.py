"""What a node keeps in memory for strangers is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.app import replica as replica_module
from pol_abci.client.transactions import build_unjail
from pol_abci.rules.params import Amount
from tests.abci.digits_chain import CHAIN_ID, DigitsNode, make_key

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_shortest_of_signed_transactions_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "AUTHENTICATED_BYTES", 20_000)
    node = DigitsNode(tmp_path)
    for number in range(1, 60):
        # Signed and well formed, of an account that does not exist: it costs its sender nothing.
        raw = build_unjail(make_key(number), CHAIN_ID, sequence=0, fee=Amount(0))
        assert node.replica.authenticate(raw) is node.replica.authenticate(raw)
    assert len(node.replica._authenticated) < 20
    node.replica.store.close()
