"""Random blocks for the rules and for the plain chain beside them, as hypothesis draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pol_abci.rules import keys
from pol_abci.rules.codec import ValidatorSet
from pol_abci.rules.ledger import compute_supply_gap
from pol_abci.rules.transition import get_head, process_block
from tests.unit.rules import build_chain as make
from tests.unit.rules.plain_chain import PlainChain

if TYPE_CHECKING:
    from pol_abci.rules.block import BlockOutcome, ValidatorUpdate

NAMES = ("alice", "bob", "carol", "dave")
names = st.sampled_from(NAMES)
lateness = st.sampled_from((0,) * 14 + (1, -1))
fees = st.sampled_from((10,) * 12 + (9, 0, 400))
amounts = st.one_of(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from((0, 2**63 - 1, 2**63, 2**64 - 1))
)
Draft = tuple[str, dict[str, Any]]


def drafts(kind: str, **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Draft]:
    return st.tuples(st.just(kind), st.fixed_dictionaries(parts))


true_walk = st.just((99 * 65_536, 64, 64))
transactions = st.one_of(
    drafts("transfer", name=names, late=lateness, recipient=names, amount=amounts, fee=fees),
    drafts("register", name=names, late=lateness, node=names, possessed=st.booleans()),
    drafts("unjail", name=names, late=lateness),
    drafts("proof", name=names, late=st.just(0), verdict=true_walk),
    drafts(
        "proof",
        name=names,
        late=lateness,
        steps=st.sampled_from((2, 3, 4, 3, 3, 3, 1, 5)),
        digest_bytes=st.sampled_from((None, None, None, None, 8)),
        stamped=st.sampled_from((True, True, True, False)),
        stamp_seed=st.sampled_from((None, None, None, "ab" * 32)),
        verdict=st.one_of(st.none(), true_walk),
    ),
    drafts(
        "proof",
        name=names,
        late=st.just(0),
        verdict=st.tuples(st.integers(0, 8 * 65_536), st.just(64), st.integers(60, 66)),
    ),
    drafts("bad", raw=st.binary(max_size=40)),
)


class RandomBlocks(RuleBasedStateMachine):
    """The rules on a state in memory, held against the plain chain after every block.

    `known` is the whole state, folded from what each block changed; `validators` the set that
    CometBFT would have, folded from the updates.
    """

    def __init__(self) -> None:
        super().__init__()
        self.chain = make.chain_context()
        self.state = make.first_state()
        self.plain = PlainChain(make.CHAIN_ID, make.genesis_json())
        self.height = 0
        self.time_ms = 0
        self.nonce = 0
        self.known: dict[bytes, bytes] = {}
        self.validators = {bytes.fromhex(key): n for key, n in self.plain.first_updates.items()}
        self.fold_changes()

    def finish(self, draft: Draft) -> dict[str, Any]:
        kind, parts = draft
        if kind == "bad":
            return make.bad(parts["raw"], 2)
        parts = dict(parts)
        name, late = parts.pop("name"), parts.pop("late")
        if kind == "proof":
            self.nonce += 1
            generation = max(0, self.plain.generation + late)
            return make.proof(name, generation, self.nonce, **parts)
        account = self.plain.accounts.get(make.address(name).hex(), {"sequence": 0})
        sequence = max(0, account["sequence"] + 1 + late)
        maker: Any = {
            "transfer": make.transfer,
            "register": make.register,
            "unjail": make.unjail,
        }[kind]
        made: dict[str, Any] = maker(name, sequence, **parts)
        return made

    @rule(
        drafts=st.lists(transactions, max_size=6),
        proposer=names,
        later_ms=st.integers(1, 3_000),
        signed=st.tuples(*[st.booleans()] * len(NAMES)),
        misbehaviour=st.sampled_from(((),) * 40 + (("bob",), ("dave", "dave"), ("nobody",))),
    )
    def block(
        self,
        drafts: list[Draft],
        proposer: str,
        later_ms: int,
        signed: tuple[bool, ...],
        misbehaviour: tuple[str, ...],
    ) -> None:
        self.height += 1
        self.time_ms += later_ms
        votes = [
            {"address": make.consensus_address(name).hex(), "signed": each}
            for name, each in zip(NAMES, signed, strict=True)
        ]
        named = [make.consensus_address(name).hex() for name in misbehaviour]
        block = make.plain_block(
            self.height, self.time_ms, proposer, votes=votes, misbehaviour=named
        )
        self.plain.begin_block(block)
        txs, codes = [], []
        for draft in drafts:
            txs.append(self.finish(draft))
            codes.append(self.plain.apply(txs[-1], block))
        updates = self.plain.end_block(block)

        head_seed = get_head(self.state).seed
        outcome = process_block(
            self.state,
            self.chain,
            make.block_context(block),
            [make.read_tx(make.encode_plain(tx, head_seed)) for tx in txs],
            make.build_verdicts(txs),
        )
        assert [each.error.code if each.error else 0 for each in outcome.txs] == codes
        told = {each.consensus_key.hex(): each.power for each in outcome.validator_updates}
        assert told == updates
        assert (outcome.accepted is not None) == self.plain.proved
        self.fold_updates(outcome.validator_updates)
        self.fold_changes()
        self.finish_block(outcome)

    @precondition(lambda self: self.height < 2)
    @rule()
    def start_chain(self) -> None:
        self.block([], "alice", 1_000, (True,) * len(NAMES), ())

    @invariant()
    def same_state(self) -> None:
        held = {key.hex(): payload.hex() for key, payload in sorted(self.known.items())}
        assert held == self.plain.entries()

    @invariant()
    def no_coin_made_or_lost(self) -> None:
        assert compute_supply_gap(self.state, self.known.items()) == 0
        assert self.plain.held() == self.plain.issued - self.plain.burned

    @invariant()
    def the_set_is_what_the_updates_make(self) -> None:
        stored = ValidatorSet.decode(self.known[keys.validators()]).validators
        assert {each.consensus_key: each.power for each in stored} == self.validators
        assert len(stored) == len(self.validators) > 0, "CometBFT halts without validators"

    def fold_updates(self, updates: tuple[ValidatorUpdate, ...]) -> None:
        """Do as CometBFT does, which stops for an update that makes no sense."""
        assert len({each.consensus_key for each in updates}) == len(updates)
        for update in updates:
            if update.power:
                self.validators[update.consensus_key] = update.power
            else:
                del self.validators[update.consensus_key]  # KeyError: was no member

    def fold_changes(self) -> None:
        for key, payload in self.state.changes.items():
            if payload is None:
                self.known.pop(key, None)
            else:
                self.known[key] = payload

    def finish_block(self, outcome: BlockOutcome) -> None:
        """For machines that do something with a block once it is processed."""
