"""Vectors of what the rules compute: cases to choose, and the package's answers to them.

Arguments are plain JSON: bytes in hexadecimal, integers that may take 64 bits as decimal strings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pol_abci.rules import (
    difficulty,
    keys,
    merkle,
    merkle_proofs,
    progress,
    requirements,
    seed,
)
from pol_abci.rules.params import Address, DifficultyParams, WalkParams
from pol_abci.rules.proof import TrueWalk
from pol_abci.rules.scheme import WalkScheme
from pol_abci.rules.state import DictState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Arguments = dict[str, Any]
Case = tuple[str, Arguments]

SEED, OTHER_SEED, PROBE, ROOT = (bytes([byte]) * 32 for byte in (0x51, 0x52, 0x53, 0x54))
ADDRESS, OTHER_ADDRESS = Address(bytes(range(20))), Address(b"\xff" * 20)
LARGEST = 2**64 - 1


# The package's answers


def _fields(a: Arguments) -> list[bytes | int]:
    return [int(f["integer"]) if "integer" in f else bytes.fromhex(f["bytes"]) for f in a["fields"]]


def _stream(a: Arguments) -> seed.Stream:
    return seed.Stream(a["tag"], *_fields(a))


def _bytes(a: Arguments, *names: str) -> list[bytes]:
    return [bytes.fromhex(a[name]) for name in names]


def answer_uniform(a: Arguments) -> list[str]:
    stream = _stream(a)
    return [str(stream.uniform(int(bound))) for bound in a["bounds"]]


def answer_next_bytes(a: Arguments) -> list[str]:
    stream = _stream(a)
    return [stream.next_bytes(count).hex() for count in a["counts"]]


def answer_next_seed(a: Arguments) -> str:
    before, address, root = _bytes(a, "seed", "address", "weights_root")
    return seed.compute_next_seed(before, Address(address), int(a["nonce"]), a["steps"], root).hex()


def answer_probes(a: Arguments) -> list[str]:
    layers = [bytes.fromhex(layer) for layer in a["first_layers"]]
    probes = [seed.compute_first_probe(bytes.fromhex(a["seed"]), layers[0])]
    for layer in layers[1:]:
        probes.append(seed.compute_probe(probes[-1], layer))
    return [probe.hex() for probe in probes]


def answer_find_stamp(a: Arguments) -> str:
    head_seed, address, body = _bytes(a, "seed", "address", "body")
    return str(seed.find_stamp(head_seed, Address(address), body, a["stamp_bits"]))


def answer_requirements(a: Arguments) -> list[list[int]]:
    before, address, probe = _bytes(a, "seed", "address", "probe_before")
    pairs = requirements.iterate_requirements(
        before, Address(address), int(a["nonce"]), a["step"], probe, a["weight_count"]
    )
    return [list(pair) for pair in pairs]


def answer_paper_requirements(a: Arguments) -> list[int]:
    before, address = _bytes(a, "seed", "address")
    return list(
        requirements.iterate_paper_requirements(before, Address(address), a["weight_count"])
    )


def answer_next_paper_seed(a: Arguments) -> str:
    before, address, root = _bytes(a, "seed", "address", "weights_root")
    batch = b"".join(ordinal.to_bytes(4, "big") for ordinal in a["ordinals"])
    return seed.compute_next_paper_seed(before, Address(address), batch, root).hex()


def answer_score(a: Arguments) -> int:
    pairs = [(index, direction) for index, direction in a["requirements"]]
    return requirements.compute_score(pairs, a["moves"].__getitem__, bytes.fromhex(a["probe"]))


def _difficulty_params(a: Arguments) -> DifficultyParams:
    return DifficultyParams(
        first=0,
        target_interval_ms=a["target_interval_ms"],
        tau_intervals=a.get("tau_intervals", 4),
        slope=a.get("slope", 163_840),
        max_fall=a.get("max_fall", 65_536),
    )


def answer_next_difficulty(a: Arguments) -> int:
    params = _difficulty_params(a)
    return difficulty.compute_next_difficulty(params, a["previous"], a["interval_ms"])


def answer_difficulty(a: Arguments) -> int:
    params = _difficulty_params(a)
    return difficulty.compute_difficulty(
        params, a["head_difficulty"], a["head_time_ms"], a["now_ms"]
    )


def answer_good_time(a: Arguments) -> int:
    params = _difficulty_params(a)
    return difficulty.compute_good_time_ms(
        params, a["head_difficulty"], a["head_time_ms"], a["score"]
    )


def answer_progress(a: Arguments) -> bool:
    walk = WalkParams(
        min_steps=2,
        max_steps=32,
        progress=a["progress"],
        evaluation_samples=a["evaluation_samples"],
        stamp_bits=12,
    )
    verdict = TrueWalk(0, a["correct_head"], a["correct_ticket"])
    return progress.is_progress(WalkScheme(walk), _difficulty_params(a), verdict, a["elapsed_ms"])


def patterned(length: int) -> bytes:
    """Weights' bytes: position times 7, shifted by the chunk's number."""
    return bytes((7 * i + i // 65_536) % 256 for i in range(length))


def answer_leaf(a: Arguments) -> str:
    key, payload = _bytes(a, "key", "payload")
    return merkle.compute_leaf(key, merkle.encode_value(payload)).hex()


def answer_aunts(a: Arguments) -> list[str]:
    hashes = [merkle.hash_leaf(bytes.fromhex(leaf)) for leaf in a["leaves"]]
    return [aunt.hex() for aunt in merkle.compute_aunts(hashes, a["index"])]


def _make_state(a: Arguments) -> tuple[DictState, merkle.BucketTree]:
    state = DictState({bytes.fromhex(key): bytes.fromhex(payload) for key, payload in a["entries"]})
    indexes = sorted({merkle.bucket_of(bytes.fromhex(key)) for key, _ in a["entries"]})
    roots = {index: merkle.compute_bucket_root(state.bucket(index)) for index in indexes}
    return state, merkle.BucketTree.from_roots(roots)


def answer_app_hash(a: Arguments) -> str:
    _, tree = _make_state(a)
    weights_root = merkle.compute_weights_root(patterned(a["weights_length"]))
    return merkle.compute_app_hash(tree.root, weights_root).hex()


def _format_ops(ops: list[merkle_proofs.ProofOp]) -> list[list[str]]:
    return [[op.type, op.key.hex(), op.data.hex()] for op in ops]


def answer_state_proof(a: Arguments) -> list[list[str]]:
    state, tree = _make_state(a)
    key = bytes.fromhex(a["key"])
    bucket = merkle.bucket_of(key)
    weights_root = merkle.compute_weights_root(patterned(a["weights_length"]))
    entries = state.bucket(bucket)
    ops = merkle_proofs.prove_state_entry(key, entries, tree.prove(bucket), weights_root)
    app_hash = merkle.compute_app_hash(tree.root, weights_root)
    merkle_proofs.verify_state(ops, app_hash, key, state.get(key))
    return _format_ops(ops)


def answer_chunk_proof(a: Arguments) -> list[list[str]]:
    hashes = merkle.compute_chunk_hashes(patterned(a["weights_length"]))
    state_root = merkle.BucketTree().root
    return _format_ops(merkle_proofs.prove_weights_chunk(a["index"], hashes, state_root))


def answer_key(a: Arguments) -> str:
    compute_key = getattr(keys, a["name"])
    if "argument" not in a:
        return str(compute_key().hex())
    is_number = a["name"] in ("reward", "slot")
    return str(compute_key(int(a["argument"]) if is_number else bytes.fromhex(a["argument"])).hex())


ANSWERS: dict[str, Callable[[Arguments], Any]] = {
    "hash_fields": lambda a: seed.hash_fields(a["tag"], *_fields(a)).hex(),
    "Stream.next_bytes": answer_next_bytes,
    "Stream.uniform": answer_uniform,
    "Stream.draw_distinct": lambda a: _stream(a).draw_distinct(a["count"], a["bound"]),
    "compute_chain_seed": lambda a: seed.compute_chain_seed(a["chain_id"]).hex(),
    "compute_first_seed": lambda a: seed.compute_first_seed(
        a["chain_id"], bytes.fromhex(a["genesis_digest"])
    ).hex(),
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
    "compute_root": lambda a: merkle.compute_root([bytes.fromhex(x) for x in a["leaves"]]).hex(),
    "compute_aunts": answer_aunts,
    "compute_leaf": answer_leaf,
    "compute_weights_root": lambda a: merkle.compute_weights_root(patterned(a["length"])).hex(),
    "compute_app_hash": answer_app_hash,
    "prove_state_entry": answer_state_proof,
    "prove_weights_chunk": answer_chunk_proof,
    "keys": answer_key,
}


# The cases


def iterate_seed_cases() -> Iterable[Case]:
    """Hashes, streams, seeds, probes and stamps."""
    texts: list[dict[str, str]] = [{"bytes": "00"}, {"bytes": ""}, {"integer": str(LARGEST)}]
    for fields in ([], [texts[0]], [texts[1]], [texts[1], texts[1]], [{"integer": "0"}], texts):
        yield "hash_fields", {"tag": "test", "fields": fields}
    yield "hash_fields", {"tag": "t" * 255, "fields": []}
    yield "Stream.next_bytes", {"tag": "test", "fields": [], "counts": [3, 0, 1, 2_000, 3, 9_000]}
    bounds = [1, 2, 3, 10, 2**32, 2**63 + 1, 2**63 + 1, 2**63 + 1, 2**64 - 1, 2**64, 7] * 40
    yield (
        "Stream.uniform",
        {"tag": "test", "fields": [texts[2]], "bounds": [str(bound) for bound in bounds]},
    )
    for count, bound in ((0, 0), (1, 1), (16, 16), (16, 1_437), (300, 301)):
        arguments = {"tag": "batch", "fields": texts, "count": count, "bound": bound}
        yield "Stream.draw_distinct", arguments
    for chain_id in ("pol-1", "ünïcode"):
        yield "compute_chain_seed", {"chain_id": chain_id}
        yield "compute_first_seed", {"chain_id": chain_id, "genesis_digest": ROOT.hex()}
    walk = {"seed": SEED.hex(), "address": ADDRESS.hex(), "weights_root": ROOT.hex()}
    for nonce, steps in ((0, 2), (LARGEST, 32)):
        yield "compute_next_seed", {**walk, "nonce": str(nonce), "steps": steps}
    layers = [b"first".hex(), b"second".hex(), ""]
    yield "compute_probe", {"seed": SEED.hex(), "first_layers": layers}
    for head_seed, address in ((SEED, ADDRESS), (SEED, OTHER_ADDRESS), (OTHER_SEED, ADDRESS)):
        covered = {"seed": head_seed.hex(), "address": address.hex(), "body": b"body".hex()}
        for bits in (0, 1, 9, 12):
            yield "find_stamp", {**covered, "stamp_bits": bits}


def iterate_requirement_cases() -> Iterable[Case]:
    """Streams of requirements, and scores."""
    walk = {"seed": SEED.hex(), "address": ADDRESS.hex(), "probe_before": PROBE.hex()}
    # With 40 weights all are drawn long before the draws end; with 7,234 some repeat.
    for nonce, step, weight_count in ((0, 2, 40), (LARGEST, 32, 7_234), (5, 3, 1)):
        arguments = {"nonce": str(nonce), "step": step, "weight_count": weight_count}
        yield "iterate_requirements", {**walk, **arguments}
    pairs = [[0, 1], [1, -1], [2, 1], [3, -1]]
    for moves in (
        [1, -1, 1, -1],
        [-1, -1, 1, -1],
        [1, 1, 1, -1],
        [0, -1, 0, -1],
        [0, 0, 0, 0],
        [0, 0, 1, 1],
    ):
        for probe in (SEED, PROBE):
            yield "compute_score", {"requirements": pairs, "moves": moves, "probe": probe.hex()}
    yield "compute_score", {"requirements": [], "moves": [], "probe": PROBE.hex()}


def iterate_paper_cases() -> Iterable[Case]:
    """Requirements and seeds of the paper's scheme, section 14."""
    for head_seed, address, weight_count in (
        (SEED, ADDRESS, 7_234),
        (SEED, OTHER_ADDRESS, 7_234),
        (OTHER_SEED, ADDRESS, 4_234_826),
        (SEED, ADDRESS, 3),
    ):
        yield (
            "iterate_paper_requirements",
            {"seed": head_seed.hex(), "address": address.hex(), "weight_count": weight_count},
        )
    for ordinals in ([0, 1, 2, 3], [3, 2, 1, 0], [2**32 - 1], []):
        yield (
            "compute_next_paper_seed",
            {
                "seed": SEED.hex(),
                "address": ADDRESS.hex(),
                "ordinals": ordinals,
                "weights_root": ROOT.hex(),
            },
        )


def iterate_difficulty_cases() -> Iterable[Case]:
    """Difficulty of the next generation and within one, and when a score is good."""
    asert = {"target_interval_ms": 4_000, "tau_intervals": 4, "max_fall": 65_536}
    for previous in (0, 1, 16_384, 655_360, 4_096 * 65_536 - 1, 4_096 * 65_536):
        for interval_ms in (0, 1, 3_999, 4_000, 4_001, 4_003, 19_999, 20_000, 20_001, 10**9):
            yield (
                "compute_next_difficulty",
                {**asert, "previous": previous, "interval_ms": interval_ms},
            )
    head = {"target_interval_ms": 4_000, "slope": 163_840, "head_time_ms": 1_700_000_000_000}
    for head_difficulty in (0, 1, 163_841, 655_360):
        for elapsed_ms in (0, 1, 3, 3_999, 4_000, 16_000, 16_001, 10**9):
            now_ms = head["head_time_ms"] + elapsed_ms
            yield (
                "compute_difficulty",
                {**head, "head_difficulty": head_difficulty, "now_ms": now_ms},
            )
        for score in (0, 1, 40, 41, 163_840, 655_359, 655_360, 10**8):
            yield (
                "compute_good_time_ms",
                {**head, "head_difficulty": head_difficulty, "score": score},
            )
    for slope in (1, 3, 10**9):
        yield (
            "compute_good_time_ms",
            {**head, "slope": slope, "head_difficulty": 655_360, "score": 655_358},
        )


def iterate_progress_cases() -> Iterable[Case]:
    """Both rules around their edges."""
    task = {"target_interval_ms": 4_000, "evaluation_samples": 130, "correct_head": 100}
    for rule in ("guard", "strict"):
        for elapsed_ms in (0, 3_999, 4_000, 127_999, 128_000, 10**9):
            for correct in (0, 67, 68, 69, 98, 99, 100, 101):
                arguments = {"progress": rule, "elapsed_ms": elapsed_ms, "correct_ticket": correct}
                yield "is_progress", {**task, **arguments}


def iterate_merkle_cases() -> Iterable[Case]:
    """Trees, leaves, roots of weights and app hashes."""
    leaves = [bytes([i]).hex() * (i % 5) for i in range(17)]
    for count in (0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17):
        yield "compute_root", {"leaves": leaves[:count]}
    for count in (1, 2, 3, 5, 8, 17):
        for index in sorted({0, count // 2, count - 1}):
            yield "compute_aunts", {"leaves": leaves[:count], "index": index}
    for key_length in (0, 1, 127, 128, 300):
        for payload_length in (0, 30, 31, 32, 33):
            key, payload = "6b" * key_length, "70" * payload_length
            yield "compute_leaf", {"key": key, "payload": payload}
    for length in (0, 1, 30, 31, 32, 65_535, 65_536, 65_537, 200_000):
        yield "compute_weights_root", {"length": length}
    entries = [[f"{i:04x}", "aa" * (i % 40)] for i in range(60)]
    # A bucket with several entries, given out of order.
    *held, absent = _find_keys_of_one_bucket(4)
    entries += [[key.hex(), "bb"] for key in held]
    for chosen in ([], entries[:1], entries):
        yield "compute_app_hash", {"entries": chosen, "weights_length": 100_000}
    for asked in (*held, absent, b"in an empty bucket"):
        arguments = {"entries": entries[-5:], "weights_length": 100, "key": asked.hex()}
        yield "prove_state_entry", arguments
    for index in (0, 2):
        yield "prove_weights_chunk", {"weights_length": 150_000, "index": index}


def _find_keys_of_one_bucket(count: int) -> list[bytes]:
    """So many keys that share a bucket, the last found first."""
    found: dict[int, list[bytes]] = {}
    number = 0
    while True:
        key = b"account/%d" % number
        same = found.setdefault(merkle.bucket_of(key), [])
        same.append(key)
        if len(same) == count:
            return [same[-1], *same[:-1]]
        number += 1


def iterate_key_cases() -> Iterable[Case]:
    """Every key of the state."""
    for name in ("chain", "head", "supply", "ring", "validators"):
        yield "keys", {"name": name}
    for name in ("account", "validator", "liveness"):
        yield "keys", {"name": name, "argument": ADDRESS.hex()}
    for argument in (0, 1, LARGEST):
        yield "keys", {"name": "reward", "argument": str(argument)}
    for argument in (0, 999):
        yield "keys", {"name": "slot", "argument": str(argument)}


CASES: dict[str, Callable[[], Iterable[Case]]] = {
    "seed": iterate_seed_cases,
    "requirements": iterate_requirement_cases,
    "paper": iterate_paper_cases,
    "difficulty": iterate_difficulty_cases,
    "progress": iterate_progress_cases,
    "merkle": iterate_merkle_cases,
    "keys": iterate_key_cases,
}


def make_documents() -> dict[str, Any]:
    """Content of each JSON file by name: a list of function, arguments and result."""
    return {
        name: [
            {"function": function, "arguments": arguments, "result": ANSWERS[function](arguments)}
            for function, arguments in iterate_cases()
        ]
        for name, iterate_cases in CASES.items()
    }
