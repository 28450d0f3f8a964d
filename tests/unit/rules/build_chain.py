"""Small chains for tests and vectors: a genesis, keys, and plain transactions made into bytes."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from nacl.signing import SigningKey

from pol_abci.rules.address import compute_address, compute_consensus_address
from pol_abci.rules.block import BlockContext, ChainContext, CommitVote
from pol_abci.rules.codec import (
    ProofMessage,
    RegisterValidator,
    SignedTx,
    Transfer,
    Unjail,
    encode_body,
    encode_tx,
    encode_unstamped_body,
)
from pol_abci.rules.errors import InvalidTx
from pol_abci.rules.genesis import (
    Genesis,
    compute_genesis_digest,
    parse_genesis,
    process_genesis,
)
from pol_abci.rules.params import Address, Amount
from pol_abci.rules.proof import Claim, FalseWalk, TrueWalk, WalkClaim, WalkVerdict
from pol_abci.rules.seed import compute_first_seed, is_stamped
from pol_abci.rules.signing import authenticate, sign_body, sign_possession
from pol_abci.rules.state import DictState, Overlay

CHAIN_ID = "pol-test"
STAMP_BITS = 3
TARGET_MS = 1_000
Plain = dict[str, Any]


@functools.cache
def account_seed(name: str) -> bytes:
    return name.encode().ljust(32, b".")


@functools.cache
def public_key(name: str) -> bytes:
    return bytes(SigningKey(account_seed(name)).verify_key)


def address(name: str) -> Address:
    return compute_address(public_key(name))


def consensus_key(name: str) -> bytes:
    return public_key(f"{name} node")


def consensus_address(name: str) -> bytes:
    return compute_consensus_address(consensus_key(name))


def genesis_json() -> Plain:
    """Alice holds three slots of five and Bob one; Carol has coins alone."""
    return {
        "protocol_version": 1,
        "scheme": "walk",
        "task": {
            "architecture": "cnn",
            "channels": [8, 16, 32],
            "dataset": "digits",
            "train_digest": "11" * 32,
            "test_digest": "22" * 32,
            "augmentation": {"shift": 1, "flip": False, "cutout": 0},
            "batch_size": 16,
            "learning_rate": "0.0625",
        },
        "arithmetic": {"version": 1, "forward_bits": 16, "backward_bits": 8},
        "walk": {
            "min_steps": 2,
            "max_steps": 4,
            "progress": "guard",
            "evaluation_samples": 128,
            "stamp_bits": STAMP_BITS,
        },
        "difficulty": {
            "first": 5 * 65_536,
            "target_interval_ms": TARGET_MS,
            "tau_intervals": 4,
            "slope": 5 * 32_768,
            "max_fall": 65_536,
        },
        "ledger": {
            "reward": "1001",
            "halving_generations": 3,
            "min_fee": "10",
            "account_burn": "40",
            "maturity_generations": 2,
        },
        "shares": {"slots": 5, "max_validators": 3, "liveness_window": 5},
        "accounts": [
            {
                "address": address("alice").hex(),
                "balance": "5000",
                "consensus_key": consensus_key("alice").hex(),
            },
            {
                "address": address("bob").hex(),
                "balance": "300",
                "consensus_key": consensus_key("bob").hex(),
            },
            {"address": address("carol").hex(), "balance": "1000", "consensus_key": None},
        ],
        "ring": [
            {"address": address("alice").hex(), "slots": 3},
            {"address": address("bob").hex(), "slots": 1},
        ],
        "weights_root": "33" * 32,
    }


def genesis() -> Genesis:
    return parse_genesis(genesis_json())


@functools.cache
def first_seed() -> bytes:
    return compute_first_seed(CHAIN_ID, compute_genesis_digest(genesis()))


def chain_context() -> ChainContext:
    return ChainContext(CHAIN_ID, genesis().params)


def first_state() -> Overlay:
    state = Overlay(DictState())
    process_genesis(state, CHAIN_ID, genesis())
    return state


def entries(state: Overlay) -> dict[str, str]:
    """Of a state whose base is empty."""
    return {
        key.hex(): payload.hex()
        for key, payload in sorted(state.changes.items())
        if payload is not None
    }


def plain_block(height: int, time_ms: int, proposer: str = "alice", **rest: Any) -> Plain:
    block = {
        "height": height,
        "initial_height": 1,
        "time_ms": time_ms,
        "proposer": consensus_address(proposer).hex(),
        "votes": [],
        "misbehaviour": [],
    }
    return {**block, **rest}


def block_context(block: Plain) -> BlockContext:
    return BlockContext(
        height=block["height"],
        initial_height=block["initial_height"],
        time_ms=block["time_ms"],
        proposer=bytes.fromhex(block["proposer"]),
        votes=tuple(
            CommitVote(bytes.fromhex(vote["address"]), vote["signed"]) for vote in block["votes"]
        ),
        misbehaviour=tuple(map(bytes.fromhex, block["misbehaviour"])),
    )


def transfer(name: str, sequence: int, recipient: str, amount: int, fee: int = 10) -> Plain:
    return {
        "type": "transfer",
        "name": name,
        "sender": address(name).hex(),
        "sequence": sequence,
        "fee": fee,
        "recipient": address(recipient).hex(),
        "amount": amount,
    }


def register(
    name: str, sequence: int, node: str | None = None, *, possessed: bool = True, fee: int = 10
) -> Plain:
    return {
        "type": "register",
        "name": name,
        "node": node or name,
        "sender": address(name).hex(),
        "sequence": sequence,
        "fee": fee,
        "key": consensus_key(node or name).hex(),
        "possessed": possessed,
    }


def unjail(name: str, sequence: int, fee: int = 10) -> Plain:
    sender = address(name).hex()
    return {"type": "unjail", "name": name, "sender": sender, "sequence": sequence, "fee": fee}


def proof(name: str, generation: int, nonce: int = 0, **changes: Any) -> Plain:
    """A true proof of three steps that scores 100 bits, unless `changes` say otherwise.

    Its stamp covers `stamp_seed`, by default the seed of the head that it is made for.
    """
    tx: Plain = {
        "type": "proof",
        "name": name,
        "sender": address(name).hex(),
        "generation": generation,
        "nonce": nonce,
        "steps": 3,
        "digest_bytes": None,
        "root": (generation + 1).to_bytes(32, "big").hex(),
        "stamped": True,
        "stamp_seed": None,
        "verdict": [100 * 65_536, 64, 64],
    }
    tx.update(changes)
    if tx["digest_bytes"] is None:
        tx["digest_bytes"] = 8 * tx["steps"]
    return tx


def bad(raw: bytes, code: int) -> Plain:
    return {"type": "bad", "raw": raw.hex(), "code": code}


def make_message(
    tx: Plain, head_seed: bytes | None = None
) -> ProofMessage | Transfer | RegisterValidator | Unjail:
    """What a transaction says; a proof is stamped for this head's seed, by default the first."""
    sender = Address(bytes.fromhex(tx["sender"]))
    match tx["type"]:
        case "transfer":
            return Transfer(Address(bytes.fromhex(tx["recipient"])), Amount(tx["amount"]))
        case "register":
            signer = account_seed(f"{tx['node'] if tx['possessed'] else 'somebody'} node")
            possession = sign_possession(signer, CHAIN_ID, sender)
            return RegisterValidator(bytes.fromhex(tx["key"]), possession)
        case "unjail":
            return Unjail()
        case _:
            return stamp_proof(tx, make_claim(tx), head_seed or first_seed())


def make_claim(tx: Plain) -> WalkClaim:
    return WalkClaim(
        generation=tx["generation"],
        address=Address(bytes.fromhex(tx["sender"])),
        nonce=tx["nonce"],
        steps=tx["steps"],
        step_digests=bytes(range(256))[: tx["digest_bytes"]],
        weights_root=bytes.fromhex(tx["root"]),
    )


def stamp_proof(tx: Plain, claim: WalkClaim, head_seed: bytes) -> ProofMessage:
    """The least stamp that is as the transaction says, and right for no head by mere chance."""
    message = ProofMessage(claim, 0)
    body = encode_unstamped_body(message)
    covered = bytes.fromhex(tx["stamp_seed"]) if tx["stamp_seed"] else head_seed
    wanted = {head_seed: False, covered: tx["stamped"]}
    stamp = 0
    while any(
        is_stamped(seed, claim.address, body, stamp, STAMP_BITS) != is_wanted
        for seed, is_wanted in wanted.items()
    ):
        stamp += 1
    return replace(message, stamp=stamp)


def encode_plain(tx: Plain, head_seed: bytes | None = None) -> bytes:
    if tx["type"] == "bad":
        return bytes.fromhex(tx["raw"])
    body = encode_body(tx.get("sequence", 0), tx.get("fee", 0), make_message(tx, head_seed))
    signature = sign_body(account_seed(tx["name"]), CHAIN_ID, body)
    return encode_tx(body, public_key(tx["name"]), signature)


def read_tx(raw: bytes) -> SignedTx | InvalidTx:
    try:
        return authenticate(CHAIN_ID, raw)
    except InvalidTx as error:
        return error


def build_tx(tx: Plain, head_seed: bytes | None = None) -> SignedTx:
    return authenticate(CHAIN_ID, encode_plain(tx, head_seed))


def build_verdicts(txs: list[Plain]) -> dict[Claim, WalkVerdict]:
    verdicts: dict[Claim, WalkVerdict] = {}
    for tx in txs:
        if tx["type"] == "proof":
            verdict = tx["verdict"]
            verdicts[make_claim(tx)] = TrueWalk(*verdict) if verdict else FalseWalk("made up")
    return verdicts
