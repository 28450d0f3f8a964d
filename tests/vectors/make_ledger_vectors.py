"""Vectors of transactions and blocks: `codec`, `signing`, `ledger`, `shares`, `transition`.

A case of the last three is a block: the state before it, CometBFT's word on it, transactions both
as bytes and as what they say, and what must come of it: codes, validator updates, state. The
cases of a file follow on each other from the genesis in `genesis.json`; each also stands alone.
"""

from __future__ import annotations

from typing import Any

from pol_abci.rules.codec import decode_tx, encode_body
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.rules.seed import hash_fields
from pol_abci.rules.signing import sign_body
from pol_abci.rules.transition import get_head, process_block
from tests.unit.rules import build_chain as make

Case = dict[str, Any]


class Scenario:
    """Blocks one after the other, each recorded as a case."""

    def __init__(self) -> None:
        self.chain = make.chain_context()
        self.state = make.first_state()
        self.height = 0
        self.time_ms = 1_700_000_000_000
        self.cases: list[Case] = []

    def block(self, name: str, *txs: Case, later_ms: int = 1_000, **block: Any) -> None:
        self.height += 1
        self.time_ms += later_ms
        before = make.entries(self.state)
        plain = make.plain_block(self.height, self.time_ms, **block)
        head_seed = get_head(self.state).seed
        raws = [make.encode_plain(tx, head_seed) for tx in txs]
        outcome = process_block(
            self.state,
            self.chain,
            make.block_context(plain),
            [make.read_tx(raw) for raw in raws],
            make.build_verdicts(list(txs)),
        )
        self.cases.append(
            {
                "name": name,
                "chain_id": make.CHAIN_ID,
                "pre": before,
                "block": plain,
                "txs": [{**tx, "raw": raw.hex()} for tx, raw in zip(txs, raws, strict=True)],
                "codes": [each.error.code if each.error else 0 for each in outcome.txs],
                "validator_updates": [
                    [update.consensus_key.hex(), update.power]
                    for update in outcome.validator_updates
                ],
                "post": make.entries(self.state),
            }
        )

    def start(self) -> None:
        self.block("first block", later_ms=0)
        self.block("second block sets t_0")


def sign_votes(**signed: bool) -> list[Case]:
    return [
        {"address": make.consensus_address(name).hex(), "signed": each}
        for name, each in signed.items()
    ]


def name_nodes(*names: str) -> list[str]:
    return [make.consensus_address(name).hex() for name in names]


def make_ledger() -> list[Case]:
    run = Scenario()
    run.start()
    run.block("to a new account burns", make.transfer("carol", 1, "dave", 100))
    run.block("to oneself", make.transfer("carol", 2, "carol", 500))
    run.block("by the proposer", make.transfer("alice", 1, "dave", 7, fee=50), proposer="alice")
    run.block("to the proposer", make.transfer("carol", 3, "alice", 9), proposer="alice")
    run.block("fee burned", make.transfer("carol", 4, "dave", 1), proposer="nobody")
    run.block(
        "refused, one code each",
        make.transfer("carol", 5, "dave", 0),
        make.transfer("carol", 5, "dave", 2**63),
        make.transfer("carol", 4, "dave", 1),
        make.transfer("carol", 6, "dave", 1),
        make.transfer("carol", 5, "dave", 1, fee=9),
        make.transfer("carol", 5, "dave", 10_000),
        make.transfer("erin", 1, "dave", 1),
    )
    run.block(
        "a fee that comes back must be there first",
        make.transfer("bob", 1, "carol", 291),
        proposer="bob",
    )
    run.block("all that is there", make.transfer("bob", 1, "carol", 290), proposer="bob")
    run.block(
        "received and spent in one block",
        make.transfer("carol", 5, "erin", 30),
        make.transfer("erin", 1, "carol", 20),
    )
    run.block(
        "a new account is paid for once",
        make.transfer("alice", 2, "frank", 1),
        make.transfer("alice", 3, "frank", 1),
    )
    run.block(
        "the burn must be there to the unit, where there is one",
        make.transfer("carol", 6, "grace", 991),
        make.transfer("carol", 6, "grace", 990),
        make.transfer("dave", 1, "carol", 98),
    )
    for generation in range(9):
        miner = "carol" if generation % 2 else "heidi"
        run.block(f"reward {generation}", make.proof(miner, generation))
    return run.cases


def make_shares() -> list[Case]:
    run = Scenario()
    run.start()
    run.block("money for a validator", make.transfer("alice", 1, "dave", 200))
    run.block(
        "register: possession false, another's key, then right, then again",
        make.register("dave", 1, possessed=False),
        make.register("dave", 1, "bob"),
        make.register("dave", 1),
        make.register("dave", 2, "second"),
        make.register("carol", 1, "dave"),
    )
    run.block("a proof fills the empty slot", make.proof("dave", 0))
    run.block("a proof takes the oldest slot", make.proof("dave", 1))
    run.block("without a key coins alone", make.proof("carol", 2))
    run.block("a fourth validator", make.register("carol", 1))
    run.block("is below the top three until it ties by address", make.proof("carol", 3))
    absent = sign_votes(alice=True, bob=False, dave=True, nobody=False)
    run.block("absent without a proof does not count", votes=absent)
    run.block("absent once", make.proof("bob", 4), votes=absent)
    run.block("absent twice", make.proof("bob", 5), votes=absent)
    run.block("absent three times of five: jail", make.proof("bob", 6), votes=absent)
    run.block("absent in jail does not count", make.proof("alice", 7), votes=absent)
    run.block("no share in jail", make.proof("bob", 8))
    run.block("leave jail, twice", make.unjail("bob", 1), make.unjail("bob", 2))
    run.block("the count starts anew", make.proof("bob", 9), votes=absent)
    run.block(
        "misbehaviour burns and bars",
        make.unjail("bob", 2),
        misbehaviour=name_nodes("bob", "nobody", "bob"),
    )
    run.block("barred earns coins alone", make.proof("bob", 10))
    run.block("all gone: the set stays", misbehaviour=name_nodes("alice", "dave", "carol"))
    return run.cases


def make_transition() -> list[Case]:
    run = Scenario()
    first_seed = get_head(run.state).seed
    run.block("no proof in the first block", make.proof("alice", 0), later_ms=0)
    run.block("no proof in the second block", make.proof("alice", 0))
    run.block(
        "refused, one code each",
        make.bad(b"", 2),
        make.proof("alice", 1),
        make.proof("alice", 0, steps=1),
        make.proof("alice", 0, steps=5),
        make.proof("alice", 0, digest_bytes=16),
        make.proof("alice", 0, stamped=False),
        make.proof("alice", 0, 1, verdict=None),
        make.proof("alice", 0, 2, verdict=[163_839, 64, 64]),
        make.proof("alice", 0, 3, verdict=[163_840, 64, 62]),
    )
    run.block(
        "exactly good enough, then a second",
        make.transfer("carol", 1, "dave", 1),
        make.proof("carol", 0, 4, verdict=[0, 64, 62]),
        make.proof("alice", 0, 5),
        make.proof("alice", 1, 6),
        make.transfer("carol", 2, "dave", 1),
        votes=sign_votes(alice=True, bob=True),
    )
    run.block("stale", make.proof("alice", 0, 7))
    run.block(
        "stamped for the generation before", make.proof("alice", 1, 8, stamp_seed=first_seed.hex())
    )
    for generation, later_ms in ((1, 1), (2, 999), (3, 2_001), (4, 60_000), (5, 500)):
        run.block(f"{later_ms} ms later", make.proof("alice", generation), later_ms=later_ms)
    return run.cases


def make_codec() -> list[Case]:
    samples = (
        make.transfer("alice", 1, "bob", 5),
        make.transfer("alice", 2**64 - 1, "bob", 2**64 - 1, fee=2**64 - 1),
        make.register("carol", 128),
        make.unjail("bob", 300),
        make.proof("alice", 0),
        make.proof("alice", 2**64 - 1, 2**64 - 1, steps=2**32 - 1, digest_bytes=0),
    )
    cases = []
    for tx in samples:
        raw = make.encode_plain(tx)
        body = encode_body(tx.get("sequence", 0), tx.get("fee", 0), make.make_message(tx))
        read = decode_tx(raw)
        cases.append({**tx, "body": body.hex(), "raw": raw.hex(), "hash": read.hash.hex()})
    return cases


def make_signing() -> list[Case]:
    cases = []
    for name, chain_id, body in (
        ("alice", "pol-test", b""),
        ("alice", "pol-other", b""),
        ("bob", "pol-test", bytes(range(40))),
    ):
        seed = make.account_seed(name)
        cases.append(
            {
                "seed": seed.hex(),
                "chain_id": chain_id,
                "body": body.hex(),
                "signed": hash_fields("tx", chain_id.encode(), body).hex(),
                "public_key": make.public_key(name).hex(),
                "address": make.address(name).hex(),
                "signature": sign_body(seed, chain_id, body).hex(),
            }
        )
    return cases


def make_genesis() -> list[Case]:
    return [
        {
            "app_state": make.genesis_json(),
            "digest": compute_genesis_digest(make.genesis()).hex(),
            "chain_id": make.CHAIN_ID,
            "state": make.entries(make.first_state()),
        }
    ]


def make_documents() -> dict[str, list[Case]]:
    """Cases by file name."""
    return {
        "codec": make_codec(),
        "signing": make_signing(),
        "genesis": make_genesis(),
        "ledger": make_ledger(),
        "shares": make_shares(),
        "transition": make_transition(),
    }
