"""InitChain refuses a genesis that is not this home's, in words that say what differs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.genesis import genesis_to_json
from pol_abci.rules.params import Amount
from tests.abci.digits_chain import CHAIN_ID, FUNDS, DigitsNode, make_consensus_key, make_genesis
from tests.abci.digits_driver import encode_app_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def make_request() -> pb.RequestInitChain:
    request = pb.RequestInitChain(
        chain_id=CHAIN_ID, initial_height=1, app_state_bytes=encode_app_state(make_genesis())
    )
    request.consensus_params.version.app = 1
    return request


@pytest.fixture
def node(tmp_path: Path) -> Iterator[DigitsNode]:
    node = DigitsNode(tmp_path)
    yield node
    node.close()


def set_chain_id(request: pb.RequestInitChain) -> None:
    request.chain_id = "pol-another"


def set_initial_height(request: pb.RequestInitChain) -> None:
    request.initial_height = 7


def set_app_version(request: pb.RequestInitChain) -> None:
    request.consensus_params.version.app = 2


def leave_out_app_version(request: pb.RequestInitChain) -> None:
    request.ClearField("consensus_params")


def change_balance(request: pb.RequestInitChain) -> None:
    genesis = make_genesis()
    richer = replace(genesis.accounts[0], balance=Amount(FUNDS + 1))
    request.app_state_bytes = encode_app_state(replace(genesis, accounts=(richer,)))


def change_weights_root(request: pb.RequestInitChain) -> None:
    request.app_state_bytes = encode_app_state(replace(make_genesis(), weights_root=bytes(32)))


def add_key(request: pb.RequestInitChain) -> None:
    document = genesis_to_json(make_genesis()) | {"surprise": 1}
    request.app_state_bytes = json.dumps(document).encode()


def cut_off(request: pb.RequestInitChain) -> None:
    request.app_state_bytes = request.app_state_bytes[:-1]


def empty(request: pb.RequestInitChain) -> None:
    request.app_state_bytes = b"{}"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (set_chain_id, f"starts chain 'pol-another', this home is of '{CHAIN_ID}'"),
        (set_initial_height, "CometBFT starts at height 7, this home at 1"),
        (set_app_version, r"version.app of genesis.json is 2, this program speaks version 1"),
        (leave_out_app_version, "version.app of genesis.json is 0"),
        (change_balance, "the app_state of CometBFT's genesis.json is not the one of this home"),
        (change_weights_root, "is not the one of this home"),
        (add_key, "surprise"),
        (cut_off, "give JSON"),
        (empty, "protocol_version"),
    ],
)
async def test_a_genesis_that_is_not_this_homes_is_refused(
    node: DigitsNode, change: Callable[[pb.RequestInitChain], None], sentence: str
) -> None:
    request = make_request()
    change(request)
    with pytest.raises(GenesisError, match=sentence):
        await node.application.init_chain(request)
    assert node.replica.store.height == 0
    # and nothing is left of it
    reply = await node.application.init_chain(make_request())
    assert [each.pub_key.ed25519 for each in reply.validators] == [make_consensus_key(1).public_key]


async def test_the_same_genesis_written_otherwise_is_the_same(node: DigitsNode) -> None:
    expected = await node.application.init_chain(make_request())
    request = make_request()
    document = json.loads(request.app_state_bytes)
    request.app_state_bytes = json.dumps(
        dict(reversed(document.items())), indent=2, ensure_ascii=False
    ).encode()
    assert await node.application.init_chain(request) == expected
