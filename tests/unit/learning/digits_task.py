"""The golden walk's task, for tests that need something real to train."""

from __future__ import annotations

from pol_abci.learning.golden import read_golden_walk
from pol_abci.rules.genesis import parse_params
from pol_abci.rules.params import Address, Params

_GIVEN = read_golden_walk()["given"]
CHAIN_ID: str = _GIVEN["chain_id"]
ADDRESS = Address(bytes.fromhex(_GIVEN["address"]))


def make_digits_params() -> Params:
    return parse_params(_GIVEN["params"])
