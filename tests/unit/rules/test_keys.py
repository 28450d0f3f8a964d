"""Keys that a node, a wallet and CometBFT's light client must read alike."""

from __future__ import annotations

from pol_abci.rules import keys
from pol_abci.rules.params import Address

ADDRESS = Address(bytes(range(20)))
SAMPLES = [
    keys.chain(),
    keys.head(),
    keys.account(ADDRESS),
    keys.validator(ADDRESS),
    keys.reward(7),
    keys.supply(),
    keys.ring(),
    keys.slot(7),
    keys.liveness(ADDRESS),
    keys.validators(),
]


def test_every_function_is_sampled() -> None:
    functions = [name for name in vars(keys) if callable(getattr(keys, name))]
    assert len(functions) == len(SAMPLES)


def test_no_two_kinds_of_key_meet() -> None:
    # A kind's name ends at "/" or at the end of the key, so different names never collide.
    names = [key.split(b"/")[0] for key in SAMPLES]
    assert len(set(names)) == len(names)


def test_keys_pass_the_key_paths_of_the_light_client() -> None:
    assert all(key and not key.startswith(b"x:") for key in SAMPLES)


def test_numbered_keys_sort_by_number() -> None:
    assert keys.reward(255) < keys.reward(256) < keys.reward(2**63)
    assert keys.slot(255) < keys.slot(256)
