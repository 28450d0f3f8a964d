"""A second, naive reading of the protocol, for the vectors: hashlib and arithmetic, no speed.

Nothing of `pol_abci.rules` is imported. Each answer takes the arguments of a vector as JSON has
them (bytes in hexadecimal, 64-bit integers as decimal strings) and gives its result.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = dict[str, Any]


# Section 1


def preimage(tag: str, *fields: bytes) -> bytes:
    encoded = bytes([len(tag)]) + tag.encode("ascii")
    for field in fields:
        encoded += len(field).to_bytes(4, "big") + field
    return encoded


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hashed(tag: str, *fields: bytes) -> bytes:
    return sha256(preimage(tag, *fields))


def u64(value: int | str) -> bytes:
    return int(value).to_bytes(8, "big")


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


class Words:
    """Words of a stream: all of them are squeezed at once, more than any vector reads."""

    def __init__(self, tag: str, *fields: bytes) -> None:
        data = hashlib.shake_256(preimage(tag, *fields)).digest(8 * 20_000)
        self.words = [int.from_bytes(data[i : i + 8], "big") for i in range(0, len(data), 8)]

    def uniform(self, bound: int) -> int:
        largest_multiple = 2**64 // bound * bound
        word = self.words.pop(0)
        while word >= largest_multiple:
            word = self.words.pop(0)
        return word % bound


def fields_of(arguments: Arguments) -> list[bytes]:
    return [u64(f["integer"]) if "integer" in f else unhex(f["bytes"]) for f in arguments["fields"]]


def answer_hash(a: Arguments) -> str:
    return hashed(a["tag"], *fields_of(a)).hex()


def answer_next_bytes(a: Arguments) -> list[str]:
    data = hashlib.shake_256(preimage(a["tag"], *fields_of(a))).digest(sum(a["counts"]))
    ends = [sum(a["counts"][: i + 1]) for i in range(len(a["counts"]))]
    return [data[end - count : end].hex() for end, count in zip(ends, a["counts"], strict=True)]


def answer_uniform(a: Arguments) -> list[str]:
    words = Words(a["tag"], *fields_of(a))
    return [str(words.uniform(int(bound))) for bound in a["bounds"]]


def answer_draw_distinct(a: Arguments) -> list[int]:
    words = Words(a["tag"], *fields_of(a))
    drawn: list[int] = []
    while len(drawn) < a["count"]:
        value = words.uniform(a["bound"])
        if value not in drawn:
            drawn.append(value)
    return drawn


# Sections 4, 7 and 9


def answer_chain_seed(a: Arguments) -> str:
    return hashed("chain-seed", a["chain_id"].encode()).hex()


def answer_first_seed(a: Arguments) -> str:
    return hashed("seed-0", a["chain_id"].encode(), unhex(a["genesis_digest"])).hex()


def answer_next_seed(a: Arguments) -> str:
    walk = (unhex(a["address"]), u64(a["nonce"]), u64(a["steps"]))
    return hashed("seed", unhex(a["seed"]), *walk, unhex(a["weights_root"])).hex()


def answer_probes(a: Arguments) -> list[str]:
    probe = unhex(a["seed"])
    probes = []
    for first_layer in a["first_layers"]:
        probe = hashed("probe", probe, unhex(first_layer))
        probes.append(probe.hex())
    return probes


def answer_find_stamp(a: Arguments) -> str:
    covered = (unhex(a["seed"]), unhex(a["address"]), unhex(a["body"]))
    stamp = 0
    while True:
        digest = hashed("stamp", *covered, u64(stamp))
        if "".join(f"{byte:08b}" for byte in digest).startswith("0" * a["stamp_bits"]):
            return str(stamp)
        stamp += 1


# Section 5


def answer_requirements(a: Arguments) -> list[list[int]]:
    seed, address, probe = (unhex(a[name]) for name in ("seed", "address", "probe_before"))
    words = Words("requirements", seed, address, u64(a["nonce"]), u64(a["step"]), probe)
    pairs: list[list[int]] = []
    seen = set()
    for _ in range(4096):
        r = words.uniform(2 * a["weight_count"])
        if r // 2 not in seen:
            pairs.append([r // 2, -1 if r % 2 == 1 else 1])
        seen.add(r // 2)
    return pairs


def answer_score(a: Arguments) -> int:
    count = 0
    for index, direction in a["requirements"]:
        if a["moves"][index] == 0:
            continue
        if a["moves"][index] != direction:
            break
        count += 1
    first, second = hashed("fraction", unhex(a["probe"]))[:2]
    return 65536 * count + 256 * first + second


# Section 14


def answer_paper_requirements(a: Arguments) -> list[int]:
    words = Words("paper-requirements", unhex(a["seed"]), unhex(a["address"]))
    drawn = [words.uniform(2 * a["weight_count"]) for _ in range(4096)]
    return [r for i, r in enumerate(drawn) if all(r // 2 != other // 2 for other in drawn[:i])]


def answer_next_paper_seed(a: Arguments) -> str:
    batch = b"".join(bytes(u64(ordinal)[4:]) for ordinal in a["ordinals"])
    return hashed(
        "paper-seed", unhex(a["seed"]), unhex(a["address"]), batch, unhex(a["weights_root"])
    ).hex()


# Sections 6 and 8


def answer_next_difficulty(a: Arguments) -> int:
    target, tau = a["target_interval_ms"], a["tau_intervals"] * a["target_interval_ms"]
    rise = floor(Fraction(65536 * (target - a["interval_ms"]), tau))
    following: int = a["previous"] + max(rise, -a["max_fall"])
    return max(0, min(following, 4096 * 65536))


def difficulty_after(a: Arguments, elapsed_ms: int) -> int:
    fallen = floor(Fraction(a["slope"] * elapsed_ms, a["target_interval_ms"]))
    return max(0, int(a["head_difficulty"]) - fallen)


def answer_difficulty(a: Arguments) -> int:
    return difficulty_after(a, a["now_ms"] - a["head_time_ms"])


def answer_good_time(a: Arguments) -> int:
    if a["score"] >= a["head_difficulty"]:
        return int(a["head_time_ms"])
    gap = a["head_difficulty"] - a["score"]
    elapsed = ceil(Fraction(gap * a["target_interval_ms"], a["slope"]))
    assert difficulty_after(a, elapsed) <= a["score"] < difficulty_after(a, elapsed - 1)
    return int(a["head_time_ms"]) + elapsed


def answer_progress(a: Arguments) -> bool:
    ticket, head = a["correct_ticket"], a["correct_head"]
    if a["progress"] == "strict":
        return bool(ticket > head)
    allowed = min(
        floor(Fraction(a["elapsed_ms"], a["target_interval_ms"])),
        floor(Fraction(a["evaluation_samples"], 4)),
    )
    return bool(ticket >= head - allowed)


# Section 12


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, by its recursion."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0])
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return sha256(b"\x01" + tree_root(leaves[:split]) + tree_root(leaves[split:]))


def pair(key: bytes, value: bytes) -> bytes:
    """A `simple:v` leaf; two bytes of length serve keys of up to 16,383 bytes."""
    size = len(key)
    length = bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])
    return length + key + b"\x20" + sha256(value)


def stored(payload: bytes) -> bytes:
    return b"\x02\x00" + payload if len(payload) == 31 else b"\x01" + payload


def state_root(entries: dict[bytes, bytes]) -> bytes:
    buckets: list[dict[bytes, bytes]] = [{} for _ in range(65536)]
    for key, payload in entries.items():
        first, second = sha256(key)[:2]
        buckets[256 * first + second][key] = payload
    empty = pair(b"", tree_root([]))
    return tree_root(
        [
            pair(b"", tree_root([pair(key, stored(bucket[key])) for key in sorted(bucket)]))
            if bucket
            else empty
            for bucket in buckets
        ]
    )


def weights_root(weights: bytes) -> bytes:
    starts = range(0, len(weights), 65536)
    chunks = [weights[start : start + 65536] for start in starts]
    return tree_root([pair(u64(i), stored(chunk)) for i, chunk in enumerate(chunks)])


def app_hash(entries: dict[bytes, bytes], weights: bytes) -> bytes:
    state, model = state_root(entries), weights_root(weights)
    return tree_root([pair(b"state", state), pair(b"weights", model)])


def patterned(length: int) -> bytes:
    """Weights' bytes of the vectors: position times 7, shifted by the chunk's number."""
    return bytes((7 * i + i // 65536) % 256 for i in range(length))


def answer_root(a: Arguments) -> str:
    return tree_root([unhex(leaf) for leaf in a["leaves"]]).hex()


def answer_leaf(a: Arguments) -> str:
    return pair(unhex(a["key"]), stored(unhex(a["payload"]))).hex()


def answer_weights_root(a: Arguments) -> str:
    return weights_root(patterned(a["length"])).hex()


def answer_app_hash(a: Arguments) -> str:
    entries = {unhex(key): unhex(payload) for key, payload in a["entries"]}
    return app_hash(entries, patterned(a["weights_length"])).hex()


def path_up(leaves: list[bytes], index: int) -> list[bytes]:
    """Siblings from the leaf up, by the recursion of RFC 6962, section 2.1.1."""
    if len(leaves) <= 1:
        return []
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    if index < split:
        return [*path_up(leaves[:split], index), tree_root(leaves[split:])]
    return [*path_up(leaves[split:], index - split), tree_root(leaves[:split])]


def answer_aunts(a: Arguments) -> list[str]:
    return [aunt.hex() for aunt in path_up([unhex(leaf) for leaf in a["leaves"]], a["index"])]


def value_op(key: bytes, leaves: list[bytes], index: int) -> list[str]:
    """CometBFT's ProofOp of type simple:v, its data the protobuf message crypto.ValueOp."""

    def varint(number: int) -> bytes:
        low, rest = number % 128, number // 128
        return bytes([low + 128]) + varint(rest) if rest else bytes([low])

    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return bytes([8 * number]) + varint(value) if value else b""
        return bytes([8 * number + 2]) + varint(len(value)) + value if value else b""

    proof = field(1, len(leaves)) + field(2, index) + field(3, sha256(b"\x00" + leaves[index]))
    proof += b"".join(field(4, aunt) for aunt in path_up(leaves, index))
    return ["simple:v", key.hex(), (field(1, key) + field(2, proof)).hex()]


def answer_state_proof(a: Arguments) -> list[list[str]]:
    entries = {unhex(key): unhex(payload) for key, payload in a["entries"]}
    key, weights = unhex(a["key"]), patterned(a["weights_length"])
    buckets: list[dict[bytes, bytes]] = [{} for _ in range(65536)]
    for entry_key, payload in entries.items():
        buckets[int(sha256(entry_key).hex()[:4], 16)][entry_key] = payload
    mine = int(sha256(key).hex()[:4], 16)
    leaves = [pair(k, stored(buckets[mine][k])) for k in sorted(buckets[mine])]
    if key in entries:
        first = value_op(key, leaves, sorted(buckets[mine]).index(key))
    else:
        first = ["pol:absent", key.hex(), b"".join(leaves).hex()]
    roots = [tree_root([pair(k, stored(b[k])) for k in sorted(b)]) for b in buckets]
    bucket_leaves = [pair(b"", root) for root in roots]
    stores = [pair(b"state", tree_root(bucket_leaves)), pair(b"weights", weights_root(weights))]
    return [first, value_op(b"", bucket_leaves, mine), value_op(b"state", stores, 0)]


def answer_chunk_proof(a: Arguments) -> list[list[str]]:
    weights = patterned(a["weights_length"])
    chunks = [weights[start : start + 65536] for start in range(0, len(weights), 65536)]
    leaves = [pair(u64(i), stored(chunk)) for i, chunk in enumerate(chunks)]
    stores = [pair(b"state", state_root({})), pair(b"weights", tree_root(leaves))]
    return [value_op(u64(a["index"]), leaves, a["index"]), value_op(b"weights", stores, 1)]


def answer_key(a: Arguments) -> str:
    """The keys as the comments of proto/pol/v1/state.proto give them."""
    name: str = a["name"]
    if "argument" not in a:
        return name.encode().hex()
    widths = {"reward": 8, "slot": 4}
    if name in widths:
        suffix = int(a["argument"]).to_bytes(widths[name], "big")
    else:
        suffix = unhex(a["argument"])
    return (name.encode() + b"/" + suffix).hex()


ANSWERS: dict[str, Callable[[Arguments], Any]] = {
    "hash_fields": answer_hash,
    "Stream.next_bytes": answer_next_bytes,
    "Stream.uniform": answer_uniform,
    "Stream.draw_distinct": answer_draw_distinct,
    "compute_chain_seed": answer_chain_seed,
    "compute_first_seed": answer_first_seed,
    "compute_next_seed": answer_next_seed,
    "compute_probe": answer_probes,
    "find_stamp": answer_find_stamp,
    "iterate_requirements": answer_requirements,
    "iterate_paper_requirements": answer_paper_requirements,
    "compute_next_paper_seed": answer_next_paper_seed,
    "compute_score": answer_score,
    "compute_next_difficulty": answer_next_difficulty,
    "compute_difficulty": answer_difficulty,
    "compute_good_time_ms": answer_good_time,
    "is_progress": answer_progress,
    "compute_root": answer_root,
    "compute_aunts": answer_aunts,
    "compute_leaf": answer_leaf,
    "compute_weights_root": answer_weights_root,
    "compute_app_hash": answer_app_hash,
    "prove_state_entry": answer_state_proof,
    "prove_weights_chunk": answer_chunk_proof,
    "keys": answer_key,
}
