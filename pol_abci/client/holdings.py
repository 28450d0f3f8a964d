"""What an account holds beside its balance, and how its validator stands, as a node tells it.

These are many small reads of the newest state, without proofs: a proof comes a block later, and
whoever has just sent something wants to see it. `client.light` proves what it reads.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.client.chain import check_answer
from pol_abci.client.rpc_errors import UnexpectedAnswer
from pol_abci.rules import keys
from pol_abci.rules.address import compute_consensus_address
from pol_abci.rules.codec import Account, Head, Liveness, Reward, ValidatorSet
from pol_abci.rules.errors import MalformedRecord
from pol_abci.rules.liveness import count_missed
from pol_abci.rules.params import Amount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pol_abci.client.rpc import RpcClient
    from pol_abci.rules.params import Address, Params

STATE_PATH = "/store/state/key"
MAX_VALIDATORS_PER_PAGE = 100
MAX_VALIDATORS = 10_000
"""CometBFT's own bound on a set of validators."""

_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MaturingReward:
    """Coins that can be spent once generation `generation` is made."""

    amount: Amount
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """At the head's `generation`: rewards in the order in which they mature, slots of the ring."""

    generation: int
    rewards: tuple[MaturingReward, ...]
    slots: int

    @property
    def maturing(self) -> Amount:
        """All rewards together."""
        return Amount(sum(reward.amount for reward in self.rewards))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An account's validator after block `height`.

    `power` is what the application gave it, 0 for none; `voting_power` what CometBFT counts in
    the block after this one, of `total_power`. `observed` are the blocks with a proof that
    liveness looks back on.
    """

    height: int
    account: Account
    slots: int
    power: int
    voting_power: int
    total_power: int
    observed: int
    missed: int

    @property
    def consensus_address(self) -> bytes | None:
        """What CometBFT calls the validator, None without one."""
        key = self.account.consensus_key
        return compute_consensus_address(key) if key else None


async def get_holdings(rpc: RpcClient, params: Params, address: Address) -> Holdings:
    """Look for an account's rewards and slots.

    Raises
    ------
    RpcError, NodeUnreachable
        When the node does not say.
    """
    try:
        generation = Head.decode(await _read(rpc, keys.head())).generation
        maturity = params.ledger.maturity_generations
        minted = range(max(1, generation - maturity + 1), generation + 1)
        rewards = [
            (number + maturity, Reward.decode(payload))
            for number, payload in zip(minted, await _read_rewards(rpc, minted), strict=True)
            if payload  # else it was burned, or there was none
        ]
    except MalformedRecord as error:
        raise _call_foreign(rpc, error) from error
    return Holdings(
        generation=generation,
        rewards=tuple(
            MaturingReward(amount=Amount(reward.amount), generation=number)
            for number, reward in rewards
            if reward.address == address
        ),
        slots=await count_slots(rpc, params, address),
    )


async def get_standing(rpc: RpcClient, params: Params, address: Address) -> Standing:
    """Look how an account's validator stands.

    Raises
    ------
    RpcError, NodeUnreachable
        When the node does not say.
    """
    height, voting = await _get_voting_powers(rpc)
    try:
        account = Account.decode(await _read(rpc, keys.account(address)))
        chosen = ValidatorSet.decode(await _read(rpc, keys.validators())).validators
        consensus_address = compute_consensus_address(account.consensus_key)
        counted = await _read(rpc, keys.liveness(consensus_address))
        liveness = Liveness.decode(counted)
    except MalformedRecord as error:
        raise _call_foreign(rpc, error) from error
    powers = {each.consensus_key: each.power for each in chosen}
    return Standing(
        height=height,
        account=account,
        slots=await count_slots(rpc, params, address),
        power=powers.get(account.consensus_key, 0),
        voting_power=voting.get(consensus_address, 0),
        total_power=sum(voting.values()),
        observed=liveness.observed,
        missed=count_missed(liveness),
    )


async def count_slots(rpc: RpcClient, params: Params, address: Address) -> int:
    """Count the slots of the ring that an account holds; errors as above."""
    slots = await _read_all(rpc, (keys.slot(index) for index in range(params.shares.slots)))
    return slots.count(address)


async def _read_rewards(rpc: RpcClient, generations: range) -> list[bytes]:
    return await _read_all(rpc, (keys.reward(number) for number in generations))


async def _read_all(rpc: RpcClient, wanted: Iterable[bytes]) -> list[bytes]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def read(key: bytes) -> bytes:
        async with gate:
            return await _read(rpc, key)

    return list(await asyncio.gather(*map(read, wanted)))


async def _read(rpc: RpcClient, key: bytes) -> bytes:
    """Return the newest value under a state key, empty where there is none."""
    answer = await rpc.abci_query(STATE_PATH, key)
    check_answer(rpc, STATE_PATH, answer)
    return answer.value


async def _get_voting_powers(rpc: RpcClient) -> tuple[int, dict[bytes, int]]:
    """Return a height, and whose votes count there."""
    powers: dict[bytes, int] = {}
    per_page = str(MAX_VALIDATORS_PER_PAGE)
    for page in range(1, MAX_VALIDATORS // MAX_VALIDATORS_PER_PAGE + 1):
        answer = await rpc.call("validators", page=str(page), per_page=per_page)
        items = answer.items("validators")
        for item in items:
            powers[item.hex("address")] = item.integer("voting_power")
        if page * MAX_VALIDATORS_PER_PAGE >= answer.integer("total"):
            return answer.integer("block_height"), powers
        if not items:
            raise UnexpectedAnswer(f"{rpc.url} sent a page of validators with none on it")
    raise UnexpectedAnswer(f"{rpc.url} counts more than {MAX_VALIDATORS} validators")


def _call_foreign(rpc: RpcClient, error: MalformedRecord) -> UnexpectedAnswer:
    return UnexpectedAnswer(f"{rpc.url} sent a state that cannot be read: {error}")
