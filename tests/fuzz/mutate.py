"""Changes bytes and JSON in ways that parsers get wrong: lengths, ends, repeats, odd numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pol_abci.abci.framing import encode_varint

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

INTEGERS = (0, 1, 2, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63)
LARGE = (2**64 - 1, 2**64, 2**70)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 2**64, 10**400, 0.5, 1e308, "", "0", "-1", "00", "1e3",
    "9" * 30, "\x00", "\ud800", "é", [], {}, [[]], [None], {"": ""}, "ab" * 32,
)  # fmt: skip
MAX_BYTES = 4_096


def mutate_bytes(choose: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One to four changes of one of the seeds."""
    data = choose.choice(seeds)
    for _ in range(choose.choice((1, 1, 1, 2, 2, 3, 4))):
        data = _mutate_once(choose, data, seeds)
    return data[:MAX_BYTES]


def _mutate_once(  # noqa: PLR0911  # one a way
    choose: random.Random, data: bytes, seeds: Sequence[bytes]
) -> bytes:
    here = choose.randrange(len(data) + 1)
    there = min(len(data), here + choose.choice((0, 1, 1, 2, 4, 8, 32)))
    match choose.randrange(10):
        case 0:  # a bit
            changed = data[here : here + 1] or b"\x00"
            return data[:here] + bytes([changed[0] ^ 1 << choose.randrange(8)]) + data[here + 1 :]
        case 1:  # a byte
            return data[:here] + bytes([choose.randrange(256)]) + data[here + 1 :]
        case 2:  # left out
            return data[:here] + data[there:]
        case 3:  # put in
            return data[:here] + choose.randbytes(choose.randrange(1, 9)) + data[here:]
        case 4:  # twice
            return data[:there] + data[here:there] + data[there:]
        case 5:  # cut off
            return data[:here]
        case 6:  # a number in place of what is there
            number = choose.choice(INTEGERS + LARGE)
            return data[:here] + encode_varint(number) + data[there:]
        case 7:  # a longer way to write a number
            changed = data[here : here + 1] or b"\x00"
            padded = bytes([changed[0] | 0x80]) + b"\x80" * choose.randrange(9) + b"\x00"
            return data[:here] + padded + data[here + 1 :]
        case 8:  # a part of another
            other = choose.choice(seeds)
            start = choose.randrange(len(other) + 1)
            return data[:here] + other[start : start + choose.randrange(40)] + data[there:]
        case _:  # the end of another
            other = choose.choice(seeds)
            return data[:here] + other[min(here, len(other)) :]


def mutate_json(choose: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A document with a value or a key changed, or its text; seldom nested without end."""
    kind = choose.randrange(100)
    if kind == 0:
        return choose.choice((b"[", b'{"result":')) * 100_000
    if kind < 20:
        return mutate_bytes(choose, seeds)
    try:
        document = json.loads(choose.choice(seeds))
    except (ValueError, RecursionError):  # a seed that was made of a mutation
        return mutate_bytes(choose, seeds)
    for _ in range(choose.choice((1, 1, 2, 3))):
        document = _change_value(choose, document)
    return json.dumps(document).encode()


def _change_value(choose: random.Random, value: Any) -> Any:
    """Go down at random, and change what is there."""
    if isinstance(value, dict) and value and choose.random() < 0.9:
        key = choose.choice(sorted(value))
        if choose.random() < 0.1:
            return {name: value[name] for name in value if name != key}
        if choose.random() < 0.05:
            return {**value, key + choose.choice(("_", "")): value}
        return {**value, key: _change_value(choose, value[key])}
    if isinstance(value, list) and value and choose.random() < 0.9:
        index = choose.randrange(len(value))
        if choose.random() < 0.1:
            return [*value, value[index]]
        return [*value[:index], _change_value(choose, value[index]), *value[index + 1 :]]
    return choose.choice(VALUES)
