"""A second, naive reading of protocol sections 9 to 12: a chain in plain dictionaries and lists.

Nothing of `pol_abci.rules` is imported. Addresses and keys are hexadecimal, transactions are
dictionaries that say what they are (`build_chain.py` makes the bytes), protobuf is written out by
hand, liveness is the whole history, and difficulty is made of fractions.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

from tests.unit.rules.reference import preimage, sha256

Plain = dict[str, Any]


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


def integer(number: int, value: int) -> bytes:
    return varint(number * 8) + varint(value) if value else b""


def fixed(number: int, value: int) -> bytes:
    return varint(number * 8 + 1) + value.to_bytes(8, "little") if value else b""


def binary(number: int, value: bytes, *, always: bool = False) -> bytes:
    return varint(number * 8 + 2) + varint(len(value)) + value if value or always else b""


def consensus_address(key: str) -> bytes:
    return sha256(bytes.fromhex(key))[:20]


class PlainChain:
    def __init__(self, chain_id: str, genesis: Plain) -> None:
        self.params = genesis
        self.accounts: dict[str, Plain] = {}
        self.owners: dict[str, str] = {}  # consensus key -> address
        self.rewards: dict[int, tuple[str, int]] = {}
        self.slots: list[str | None] = [None] * genesis["shares"]["slots"]
        self.taken = 0
        self.burned = 0
        self.signatures: dict[str, list[bool]] = {}  # consensus key -> missed, from the first
        self.validators: list[tuple[str, int]] = []
        self.stage = 0
        self.proved = False
        self.generation = 0
        digest = sha256(preimage("genesis", self.canonical_json(genesis)))
        self.seed = sha256(preimage("seed-0", chain_id.encode(), digest))
        self.difficulty = genesis["difficulty"]["first"]
        self.time = 0
        self.root = genesis["weights_root"]
        for account in genesis["accounts"]:
            address, key = account["address"], account["consensus_key"]
            self.account(address)["balance"] = int(account["balance"])
            if key:
                self.account(address)["key"] = key
                self.owners[key] = address
        self.issued = sum(account["balance"] for account in self.accounts.values())
        for share in genesis["ring"]:
            for _ in range(share["slots"]):
                self.take_slot(share["address"])
        self.first_updates = self.update_validators()

    @classmethod
    def canonical_json(cls, value: Any) -> bytes:
        if isinstance(value, dict):
            members = (cls.canonical_json(k) + b":" + cls.canonical_json(value[k]) for k in value)
            return b"{" + b",".join(sorted(members)) + b"}"
        if isinstance(value, list):
            return b"[" + b",".join(cls.canonical_json(item) for item in value) + b"]"
        if value is None or isinstance(value, bool):
            return str(value).lower().replace("none", "null").encode()
        return f'"{value}"'.encode() if isinstance(value, str) else str(value).encode()

    def account(self, address: str) -> Plain:
        empty = {"balance": 0, "sequence": 0, "key": "", "jailed": False, "barred": False}
        return self.accounts.setdefault(address, empty)

    def validates(self, address: str) -> bool:
        account = self.accounts.get(address)
        return bool(account and account["key"] and not account["jailed"] and not account["barred"])

    def take_slot(self, address: str) -> None:
        self.slots[self.taken % len(self.slots)] = address
        self.taken += 1

    # One transaction: 0, or the code of the first thing that is wrong with it

    def apply(self, tx: Plain, block: Plain) -> int:
        if tx["type"] == "bad":
            return int(tx["code"])
        if tx["type"] == "proof":
            code = self.find_fault_of_proof(tx, block)
            if not code:
                self.apply_proof(tx, block)
            return code
        code = self.find_fault(tx)
        if not code:
            self.apply_paying(tx, block)
        return code

    def find_fault(self, tx: Plain) -> int:
        kind, amount = tx["type"], tx.get("amount", 0)
        nobody = {"balance": 0, "sequence": 0, "key": "", "jailed": False, "barred": False}
        sender = self.accounts.get(tx["sender"], nobody)
        due = tx["fee"] + amount + self.burn_for_accounts(tx)
        faults = [
            (kind == "transfer" and not 1 <= amount < 2**63, 8),
            (tx["sequence"] != sender["sequence"] + 1, 5),
            (tx["fee"] < int(self.params["ledger"]["min_fee"]), 6),
            (due > sender["balance"], 7),
            (kind == "register" and (sender["key"] or tx["key"] in self.owners), 40),
            (kind == "register" and not tx["possessed"], 41),
            (kind == "unjail" and sender["barred"], 43),
            (kind == "unjail" and not sender["jailed"], 42),
        ]
        return next((code for wrong, code in faults if wrong), 0)

    def burn_for_accounts(self, tx: Plain) -> int:
        known = tx["sender"] in self.accounts and tx.get("recipient", tx["sender"]) in self.accounts
        return 0 if known else int(self.params["ledger"]["account_burn"])

    def apply_paying(self, tx: Plain, block: Plain) -> None:
        burn = self.burn_for_accounts(tx)
        sender = self.account(tx["sender"])
        sender["sequence"] += 1
        sender["balance"] -= tx["fee"] + burn
        self.burned += burn
        proposer = self.owner_of(block["proposer"])
        if proposer is None:
            self.burned += tx["fee"]
        else:
            self.account(proposer)["balance"] += tx["fee"]
        if tx["type"] == "transfer":
            sender["balance"] -= tx["amount"]
            self.account(tx["recipient"])["balance"] += tx["amount"]
        elif tx["type"] == "register":
            sender["key"] = tx["key"]
            self.owners[tx["key"]] = tx["sender"]
        else:
            sender["jailed"] = False

    def owner_of(self, consensus: str) -> str | None:
        for key, address in self.owners.items():
            if consensus_address(key).hex() == consensus:
                return address
        return None

    def find_fault_of_proof(self, tx: Plain, block: Plain) -> int:
        walk = self.params["walk"]
        faults = [
            (self.proved, 29),
            (self.stage < 2, 20),
            (tx["generation"] < self.generation, 21),
            (tx["generation"] > self.generation, 22),
            (not walk["min_steps"] <= tx["steps"] <= walk["max_steps"], 23),
            (tx["digest_bytes"] != 8 * tx["steps"], 23),
            (not tx["stamped"] or tx["stamp_seed"] not in (None, self.seed.hex()), 24),
            (tx["verdict"] is None, 26),
        ]
        code = next((code for wrong, code in faults if wrong), 0)
        return code or self.find_fault_of_walk(tx["verdict"], block["time_ms"] - self.time)

    def find_fault_of_walk(self, verdict: list[int], elapsed: int) -> int:
        score, of_head, of_ticket = verdict
        walk, rules = self.params["walk"], self.params["difficulty"]
        fallen = floor(Fraction(rules["slope"] * elapsed, rules["target_interval_ms"]))
        if score < max(0, self.difficulty - fallen):
            return 27
        if walk["progress"] == "strict":
            return 0 if of_ticket > of_head else 28
        late = elapsed // rules["target_interval_ms"]
        forgiven = min(late, walk["evaluation_samples"] // 4)
        return 0 if of_ticket >= of_head - forgiven else 28

    def apply_proof(self, tx: Plain, block: Plain) -> None:
        self.proved = True
        self.change_head(tx, block["time_ms"])
        ledger = self.params["ledger"]
        halvings = (self.generation - 1) // ledger["halving_generations"]
        reward = int(ledger["reward"]) // 2**halvings
        if reward:
            self.rewards[self.generation] = (tx["sender"], reward)
            self.issued += reward
        ripe = self.rewards.pop(self.generation - ledger["maturity_generations"], None)
        if ripe:
            self.account(ripe[0])["balance"] += ripe[1]
        if self.validates(tx["sender"]):
            self.take_slot(tx["sender"])

    def change_head(self, tx: Plain, time: int) -> None:
        rules = self.params["difficulty"]
        fields = [bytes.fromhex(tx["sender"]), tx["nonce"].to_bytes(8, "big")]
        fields += [tx["steps"].to_bytes(8, "big"), bytes.fromhex(tx["root"])]
        self.seed = sha256(preimage("seed", self.seed, *fields))
        target = rules["target_interval_ms"]
        change = floor(
            Fraction(65_536 * (target - time + self.time), rules["tau_intervals"] * target)
        )
        self.difficulty += max(change, -rules["max_fall"])
        self.difficulty = min(max(self.difficulty, 0), 4_096 * 65_536)
        self.generation += 1
        self.time = time
        self.root = tx["root"]

    # One block

    def begin_block(self, block: Plain) -> None:
        self.proved = False
        for consensus in block["misbehaviour"]:
            address = self.owner_of(consensus)
            if address is None:
                continue
            self.slots = [None if owner == address else owner for owner in self.slots]
            for generation, (miner, amount) in list(self.rewards.items()):
                if miner == address:
                    self.burned += amount
                    del self.rewards[generation]
            self.account(address)["barred"] = True
            self.signatures.pop(self.account(address)["key"], None)

    def end_block(self, block: Plain) -> Plain:
        if self.proved:
            for vote in block["votes"]:
                self.count_vote(vote["address"], missed=not vote["signed"])
        updates = self.update_validators()
        if self.stage < 2:
            self.stage += 1
            if self.stage == 2:
                self.time = block["time_ms"]
        return updates

    def count_vote(self, consensus: str, *, missed: bool) -> None:
        address = self.owner_of(consensus)
        if address is None or not self.validates(address):
            return
        account, window = self.account(address), self.params["shares"]["liveness_window"]
        history = self.signatures.setdefault(account["key"], [])
        history.append(missed)
        if sum(history[-window:]) > window / 2:
            account["jailed"] = True
            del self.signatures[account["key"]]

    def update_validators(self) -> Plain:
        held = [(self.slots.count(a), a) for a in self.accounts if self.validates(a)]
        ranked = sorted((-power, address) for power, address in held if power)
        ranked = ranked[: self.params["shares"]["max_validators"]]
        new = [(str(self.accounts[address]["key"]), -power) for power, address in ranked]
        if not new:
            return {}
        old, self.validators = dict(self.validators), new
        gone = {key: 0 for key in old if key not in dict(new)}
        return {key: power for key, power in {**dict(new), **gone}.items() if old.get(key) != power}

    # The state as every node stores it

    def entries(self) -> dict[str, str]:
        validators = b"".join(
            binary(1, binary(1, bytes.fromhex(key)) + integer(2, power))
            for key, power in self.validators
        )
        head = integer(1, self.generation) + binary(2, self.seed) + integer(3, self.difficulty)
        head += integer(4, self.time) + binary(5, bytes.fromhex(self.root))
        out = {
            b"chain": integer(1, self.stage),
            b"head": head,
            b"supply": integer(1, self.issued) + integer(2, self.burned),
            b"ring": integer(1, self.taken),
            b"validators": validators,
        }
        for address, account in self.accounts.items():
            value = integer(1, account["balance"]) + integer(2, account["sequence"])
            value += binary(3, bytes.fromhex(account["key"]))
            value += integer(4, account["jailed"]) + integer(5, account["barred"])
            out[b"account/" + bytes.fromhex(address)] = value
        for key, address in self.owners.items():
            out[b"validator/" + consensus_address(key)] = binary(1, bytes.fromhex(address))
        for generation, (miner, amount) in self.rewards.items():
            value = binary(1, bytes.fromhex(miner)) + integer(2, amount)
            out[b"reward/" + generation.to_bytes(8, "big")] = value
        for index, owner in enumerate(self.slots):
            if owner:
                out[b"slot/" + index.to_bytes(4, "big")] = bytes.fromhex(owner)
        for key, history in self.signatures.items():
            out[b"liveness/" + consensus_address(key)] = self.encode_liveness(history)
        return {key.hex(): value.hex() for key, value in sorted(out.items())}

    def encode_liveness(self, history: list[bool]) -> bytes:
        window = self.params["shares"]["liveness_window"]
        bits = [0] * (-(-window // 8) * 8)
        for index, missed in enumerate(history):
            bits[index % window] = int(missed)
        missed_bytes = int("".join(map(str, bits)), 2).to_bytes(len(bits) // 8, "big")
        value = integer(1, min(len(history), window)) + integer(2, len(history) % window)
        return value + binary(3, missed_bytes)

    def held(self) -> int:
        balances: int = sum(account["balance"] for account in self.accounts.values())
        return balances + sum(amount for _, amount in self.rewards.values())
