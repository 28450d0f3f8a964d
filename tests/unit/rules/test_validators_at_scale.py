"""A ring of 1,000 slots with 100 validators over many blocks: what CometBFT is told, and bears."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pol_abci.rules import keys
from pol_abci.rules.block import ChainContext
from pol_abci.rules.genesis import Genesis, parse_genesis, process_genesis
from pol_abci.rules.ledger import get_account
from pol_abci.rules.params import Address
from pol_abci.rules.state import DictState, Overlay
from pol_abci.rules.transition import get_head, process_block
from tests.abci.blocks import change_set, to_update
from tests.unit.rules import build_chain as make

if TYPE_CHECKING:
    from pol_abci.rules.codec import Account

SLOTS, MOST, WINDOW = 1_000, 100, 20
NAMES = tuple(f"validator {number}" for number in range(130))
BLOCKS = 500


def build_genesis() -> Genesis:
    """The first hundred hold ten slots each; thirty more have keys and no slot yet."""
    document = make.genesis_json()
    document["shares"] = {"slots": SLOTS, "max_validators": MOST, "liveness_window": WINDOW}
    document["accounts"] = [
        {
            "address": make.address(name).hex(),
            "balance": "100000",
            "consensus_key": make.consensus_key(name).hex(),
        }
        for name in NAMES
    ]
    document["ring"] = [
        {"address": make.address(name).hex(), "slots": SLOTS // MOST} for name in NAMES[:MOST]
    ]
    return parse_genesis(document)


class Network:
    """The rules, and CometBFT's side: its sets at H, H + 1 and H + 2, its checks of each update."""

    def __init__(self, seed: int) -> None:
        genesis = build_genesis()
        self.chain = ChainContext(make.CHAIN_ID, genesis.params)
        self.state = Overlay(DictState())
        first = process_genesis(self.state, make.CHAIN_ID, genesis)
        updates = [to_update(each.consensus_key, each.power) for each in first]
        self.last: dict[bytes, int] = {}
        self.now = change_set({}, updates)
        self.next = self.now
        self.choose = random.Random(seed)
        self.height = self.nonce = 0
        self.events: Counter[str] = Counter()

    def get_account(self, name: str) -> Account:
        return get_account(self.state, make.address(name))

    def make_block(
        self, txs: list[dict[str, Any]], asleep: frozenset[str], misbehaviour: tuple[str, ...]
    ) -> None:
        self.height += 1
        names = [name for name in NAMES if make.consensus_key(name) in self.last]
        votes = [
            {"address": make.consensus_address(name).hex(), "signed": name not in asleep}
            for name in names
        ]
        block = make.plain_block(
            self.height,
            self.height * 1_000,
            self.choose.choice(names or NAMES[:MOST]),
            votes=votes,
            misbehaviour=[make.consensus_address(name).hex() for name in misbehaviour],
        )
        seed = get_head(self.state).seed
        outcome = process_block(
            self.state,
            self.chain,
            make.block_context(block),
            [make.read_tx(make.encode_plain(tx, seed)) for tx in txs],
            make.build_verdicts(txs),
        )
        self.events.update(event.type for event in outcome.events)
        self.events.update(event.type for tx in outcome.txs for event in tx.events)
        updates = [to_update(each.consensus_key, each.power) for each in outcome.validator_updates]
        following = change_set(self.next, updates)
        assert following, "CometBFT halts without validators"
        for key, power in ((each.consensus_key, each.power) for each in outcome.validator_updates):
            assert self.next.get(key, 0) != power, "told what CometBFT knows"
        self.last, self.now, self.next = self.now, self.next, following

    def count_slots(self) -> dict[bytes, int]:
        """Powers from the ring itself: the most slots first, then the lowest addresses."""
        held = Counter(self.state.get(keys.slot(index)) for index in range(SLOTS))
        accounts = [
            (-slots, Address(owner), get_account(self.state, Address(owner)))
            for owner, slots in held.items()
            if owner is not None
        ]
        standing = sorted(
            (each for each in accounts if each[2].is_validating), key=lambda each: each[:2]
        )
        return {
            account.consensus_key: -slots
            for slots, _, account in standing[:MOST]
            if account.consensus_key
        }


@pytest.mark.parametrize("seed", [1, 2])
def test_updates_stay_what_cometbft_bears_over_many_blocks(seed: int) -> None:
    network = Network(seed)
    choose = network.choose
    asleep: frozenset[str] = frozenset()
    for _ in range(BLOCKS):
        if network.height % 40 == 0:  # others fall asleep, long enough to be jailed
            asleep = frozenset(choose.sample(NAMES, 30))
        txs = []
        if network.height >= 2 and choose.random() < 0.8:
            network.nonce += 1
            generation = get_head(network.state).generation
            txs.append(make.proof(choose.choice(NAMES), generation, network.nonce))
        jailed = [name for name in NAMES if network.get_account(name).jailed and name not in asleep]
        txs += [
            make.unjail(name, network.get_account(name).sequence + 1)
            for name in choose.sample(jailed, min(2, len(jailed)))
        ]
        guilty = tuple(choose.sample(NAMES, 2)) if choose.random() < 0.02 else ()
        network.make_block(txs, asleep, guilty)
        assert network.next == network.count_slots()
        assert len(network.next) <= MOST
        assert sum(network.next.values()) <= SLOTS
    assert network.events["jail"] > 20
    assert network.events["unjail"] > 20
    assert network.events["bar"] > 5
    assert network.events["proof"] > BLOCKS // 2


def test_a_validator_set_that_would_lose_all_its_members_stays() -> None:
    network = Network(3)
    before = dict(network.next)
    network.make_block([], frozenset(), ())
    network.make_block([], frozenset(), NAMES)  # everybody signed twice
    assert network.next == before
    assert network.count_slots() == {}
