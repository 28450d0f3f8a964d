"""Streams and stamps beyond the vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol_abci.rules.params import Address
from pol_abci.rules.seed import (
    Stream,
    compute_chain_seed,
    compute_first_seed,
    find_stamp,
    hash_fields,
    is_stamped,
)

ADDRESS = Address(b"a" * 20)
SEED = b"s" * 32


@given(st.integers(1, 2**64), st.integers(0, 2**64 - 1))
def test_uniform_stays_below_its_bound(bound: int, field: int) -> None:
    stream = Stream("test", field)
    assert all(0 <= stream.uniform(bound) < bound for _ in range(20))


@pytest.mark.parametrize("bound", [0, -1, 2**64 + 1])
def test_uniform_refuses_a_bound_that_no_word_serves(bound: int) -> None:
    with pytest.raises(ValueError, match="cannot draw below"):
        Stream("test").uniform(bound)


def test_uniform_passes_over_words_of_the_cut_off_last_multiple() -> None:
    # For 2^63 + 1 about half of all words lie at or above the only multiple that fits.
    bound = 2**63 + 1
    raw = Stream("test").next_bytes(8_000)
    words = [int.from_bytes(raw[i : i + 8], "big") for i in range(0, len(raw), 8)]
    kept = [word for word in words if word < bound]
    stream = Stream("test")
    assert 400 < len(kept) < 600
    assert [stream.uniform(bound) for _ in kept] == kept


@given(st.lists(st.integers(0, 5_000), max_size=8))
def test_reads_in_pieces_equal_one_read(counts: list[int]) -> None:
    stream = Stream("test", b"field")
    pieces = b"".join(stream.next_bytes(count) for count in counts)
    assert pieces == Stream("test", b"field").next_bytes(sum(counts))


def test_stream_squeezes_in_blocks_that_double() -> None:
    # One squeeze a word would make long streams quadratic.
    stream = Stream("test")
    sizes = []

    class CountingShake:
        @staticmethod
        def digest(length: int) -> bytes:
            sizes.append(length)
            return hashlib.shake_256(b"").digest(length)

    stream._shake = CountingShake()  # type: ignore[assignment]  # counts what it is asked for
    for _ in range(10_000):
        stream.uniform(10)
    assert len(sizes) <= 8


@given(st.integers(0, 60), st.integers(0, 40))
def test_draw_distinct_draws_distinct_values(count: int, spare: int) -> None:
    drawn = Stream("test").draw_distinct(count, count + spare)
    assert len(set(drawn)) == len(drawn) == count
    assert all(0 <= value < count + spare for value in drawn)


def test_draw_distinct_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="3 different values of 2"):
        Stream("test").draw_distinct(3, 2)


def test_fields_do_not_run_into_each_other() -> None:
    variants = [
        ("t", [b"ab"]),
        ("t", [b"a", b"b"]),
        ("t", [b"ab", b""]),
        ("t", [b"", b"ab"]),
        ("ta", [b"b"]),
    ]
    digests = {hash_fields(tag, *fields) for tag, fields in variants}
    assert len(digests) == len(variants)


@pytest.mark.parametrize("integer", [-1, 2**64])
def test_hash_refuses_an_integer_beyond_64_bits(integer: int) -> None:
    with pytest.raises(OverflowError):
        hash_fields("test", integer)


def test_chains_have_their_own_seeds() -> None:
    assert compute_chain_seed("a") != compute_chain_seed("b")
    assert compute_first_seed("a", b"g") != compute_first_seed("b", b"g")
    assert compute_first_seed("a", b"g") != compute_first_seed("a", b"h")


def test_found_stamp_is_valid_for_its_seed_address_body_and_bits_only() -> None:
    stamp = find_stamp(SEED, ADDRESS, b"body", 14)
    assert is_stamped(SEED, ADDRESS, b"body", stamp, 14)
    assert not is_stamped(SEED, ADDRESS, b"body", stamp + 1, 14)
    assert not is_stamped(SEED, ADDRESS, b"bodY", stamp, 14)
    assert not is_stamped(SEED, Address(b"b" * 20), b"body", stamp, 14)
    assert not is_stamped(b"t" * 32, ADDRESS, b"body", stamp, 14)
    assert not is_stamped(SEED, ADDRESS, b"body", stamp, 40)


def test_find_stamp_goes_on_from_its_start() -> None:
    first = find_stamp(SEED, ADDRESS, b"body", 6)
    second = find_stamp(SEED, ADDRESS, b"body", 6, start=first + 1)
    assert second > first
    assert is_stamped(SEED, ADDRESS, b"body", second, 6)
