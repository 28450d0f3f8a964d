"""Which walk the verifier takes next."""

from __future__ import annotations

import pytest

from pol_abci.app.walk_queue import Standing, WalkQueue
from pol_abci.rules.errors import ProofRefused
from pol_abci.rules.params import Address
from pol_abci.rules.proof import WalkClaim


def make_claim(owner: int, nonce: int = 0) -> WalkClaim:
    return WalkClaim(
        generation=1,
        address=Address(bytes([owner]) * 20),
        nonce=nonce,
        steps=2,
        step_digests=bytes(16),
        weights_root=bytes(32),
    )


def pop_all(queue: WalkQueue) -> list[tuple[int, int]]:
    popped = []
    while (entry := queue.pop()) is not None:
        popped.append((entry[0].address[0], entry[0].nonce))
    return popped


def test_slots_go_before_balances_before_unknown_addresses() -> None:
    queue = WalkQueue(256)
    queue.add(make_claim(1), b"", Standing.UNKNOWN)
    queue.add(make_claim(2), b"", Standing.HAS_BALANCE)
    queue.add(make_claim(3), b"", Standing.HAS_SLOTS)
    queue.add(make_claim(4), b"", Standing.HAS_SLOTS)
    assert [owner for owner, _ in pop_all(queue)] == [3, 4, 2, 1]


def test_nobodys_second_walk_goes_before_anothers_first() -> None:
    queue = WalkQueue(256)
    queue.add(make_claim(1), b"", Standing.UNKNOWN)
    queue.add(make_claim(2, nonce=1), b"", Standing.HAS_SLOTS)
    served = []
    for nonce in range(2, 5):
        entry = queue.pop()
        assert entry is not None
        served.append(entry[0].address[0])
        queue.add(make_claim(2, nonce=nonce), b"", Standing.HAS_SLOTS)  # back in line at once
    assert served == [2, 1, 2]
    queue.clear()
    queue.add(make_claim(1), b"", Standing.UNKNOWN)
    queue.add(make_claim(2), b"", Standing.HAS_SLOTS)
    assert [owner for owner, _ in pop_all(queue)] == [2, 1]


def test_a_newer_walk_takes_the_place_of_its_addresss_older_one() -> None:
    queue = WalkQueue(256)
    queue.add(make_claim(1, nonce=1), b"", Standing.UNKNOWN)
    queue.add(make_claim(2), b"", Standing.UNKNOWN)
    queue.add(make_claim(1, nonce=2), b"", Standing.UNKNOWN)
    assert pop_all(queue) == [(1, 2), (2, 0)]


def test_a_full_queue_gives_up_its_last_for_a_better_address_only() -> None:
    queue = WalkQueue(limit=2)
    queue.add(make_claim(1), b"", Standing.UNKNOWN)
    queue.add(make_claim(2), b"", Standing.UNKNOWN)
    with pytest.raises(ProofRefused, match="wait for verification"):
        queue.add(make_claim(3), b"", Standing.UNKNOWN)
    queue.add(make_claim(4), b"", Standing.HAS_SLOTS)
    assert [owner for owner, _ in pop_all(queue)] == [4, 1]


def test_an_address_that_was_false_waits_for_the_next_generation() -> None:
    queue = WalkQueue(256)
    queue.add(make_claim(1), b"", Standing.HAS_SLOTS)
    queue.refuse(make_claim(1).address)
    assert len(queue) == 0
    with pytest.raises(ProofRefused, match="was false"):
        queue.add(make_claim(1, nonce=5), b"", Standing.HAS_SLOTS)
    queue.clear()
    queue.add(make_claim(1, nonce=5), b"", Standing.HAS_SLOTS)
    assert pop_all(queue) == [(1, 5)]
