"""The driver follows a correct application through every crash, and catches each kind of fault."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.abci.generated.abci import types_pb2 as pb
from tests.abci.blocks import SpecificationBroken, compute_consensus_address, to_ms, to_update
from tests.abci.counting_app import CountingApp, Disk, compute_hash
from tests.abci.driver import AlreadyInMempool, ConsensusDriver, CrashPoint, ProposalRejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEYS = [bytes([number]) * 32 for number in range(1, 5)]
SET = [(KEYS[0], 10), (KEYS[1], 20), (KEYS[2], 30)]


def on_disk(kind: type[CountingApp], disk: Disk) -> Callable[[], Awaitable[CountingApp]]:
    async def factory() -> CountingApp:
        return kind(disk)

    return factory


async def start(*kinds: type[CountingApp], initial_height: int = 1) -> ConsensusDriver[CountingApp]:
    driver = ConsensusDriver(
        [on_disk(kind, Disk()) for kind in kinds],
        app_state=b'"5"',
        validators=SET,
        initial_height=initial_height,
    )
    await driver.start()
    return driver


async def test_a_block_holds_the_mempool_and_empties_it() -> None:
    driver = await start(CountingApp)
    assert driver.app_hash == compute_hash(5)
    assert (await driver.add_tx(b"1")).code == 0
    assert (await driver.add_tx(b"2")).code == 0
    assert (await driver.add_tx(b"x")).code == 1
    with pytest.raises(AlreadyInMempool):
        await driver.add_tx(b"1")
    block = await driver.make_block()
    assert block.txs == (b"1", b"2")
    assert block.codes == (0, 0)
    assert block.reply.app_hash == compute_hash(8)
    assert (await driver.make_block()).txs == ()
    assert driver.height == 2


@pytest.mark.parametrize("crash", CrashPoint)
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("initial_height", [1, 100])
async def test_a_correct_application_survives_a_crash_at_every_point(
    crash: CrashPoint, nodes: int, initial_height: int
) -> None:
    driver = await start(*[CountingApp] * nodes, initial_height=initial_height)
    last = driver.nodes[-1]
    for height in range(initial_height, initial_height + 3):
        crashed = last.app
        block = await driver.make_block([b"1", b"2"], crash=crash, crashing_node=nodes - 1)
        assert block.height == height
        assert last.app is not crashed
        assert last.app.disk == Disk(height, 5 + 3 * len(driver.blocks), driver.app_hash or b"")


async def test_an_application_that_lost_its_disk_gets_every_block_again() -> None:
    disk = Disk()
    driver = ConsensusDriver([on_disk(CountingApp, disk)], validators=SET, app_state=b'"5"')
    await driver.start()
    await driver.make_blocks(2)
    await driver.make_block([b"7"])
    vars(disk).update(vars(Disk()))
    await driver.crash()
    assert disk == Disk(3, 12, compute_hash(12))


async def test_a_crash_forgets_the_mempool_and_calls_abandon() -> None:
    abandoned: list[CountingApp] = []

    async def abandon(app: CountingApp) -> None:
        abandoned.append(app)

    driver = ConsensusDriver([on_disk(CountingApp, Disk())], validators=SET, abandon=abandon)
    await driver.start()
    await driver.add_tx(b"1")
    first = driver.app
    await driver.crash()
    assert abandoned == [first]
    assert (await driver.make_block()).txs == ()


async def test_time_votes_misbehaviour_and_proposer_are_as_asked() -> None:
    driver = await start(CountingApp)
    addresses = [compute_consensus_address(key) for key, _ in SET]
    first = await driver.make_block()
    assert to_ms(first.request.time) == driver.genesis_time_ms
    assert not first.request.decided_last_commit.votes
    block = await driver.make_block(
        time_ms=driver.genesis_time_ms + 7,
        proposer=addresses[2],
        absent=[addresses[0]],
        misbehaviour=[addresses[1]],
    )
    assert to_ms(block.request.time) == driver.genesis_time_ms + 7
    assert block.request.proposer_address == addresses[2]
    votes = block.request.decided_last_commit.votes
    assert [vote.validator.power for vote in votes] == [30, 20, 10]
    assert [vote.block_id_flag for vote in votes] == [2, 2, 1]
    assert [one.validator.address for one in block.request.misbehavior] == [addresses[1]]
    with pytest.raises(ValueError, match="header times rise"):
        await driver.make_block(time_ms=driver.genesis_time_ms + 7)


async def test_a_bad_proposal_is_rejected_but_can_be_forced_as_decided() -> None:
    driver = await start(CountingApp, CountingApp)
    with pytest.raises(ProposalRejected):
        await driver.make_block([b"x"])
    assert driver.height == 0
    block = await driver.make_block([b"x"], is_catching_up=True)
    assert block.codes == (1,)


async def test_rounds_that_fail_change_nothing() -> None:
    driver = await start(CountingApp)
    await driver.add_tx(b"3")
    block = await driver.make_block(failed_rounds=3)
    assert block.reply.app_hash == compute_hash(8)


async def test_a_transaction_that_fails_its_recheck_leaves_the_mempool() -> None:
    class OnceApp(CountingApp):
        async def check_tx(self, request: pb.RequestCheckTx, /) -> pb.ResponseCheckTx:
            return pb.ResponseCheckTx(code=int(request.type == pb.RECHECK))

    driver = await start(OnceApp)
    await driver.make_block()
    await driver.add_tx(b"1")
    await driver.add_tx(b"not proposed")
    await driver.make_block()
    assert not driver.nodes[0].mempool


async def test_a_transaction_reaches_the_mempools_of_the_nodes_that_accept_it() -> None:
    class DeafApp(CountingApp):
        async def check_tx(self, _request: pb.RequestCheckTx, /) -> pb.ResponseCheckTx:
            return pb.ResponseCheckTx(code=1)

    driver = await start(CountingApp, DeafApp, CountingApp)
    await driver.add_tx(b"1")
    assert [list(node.mempool) for node in driver.nodes] == [[b"1"], [], [b"1"]]
    assert (await driver.make_block(proposing_node=1)).txs == ()
    assert (await driver.make_block(proposing_node=2)).txs == (b"1",)


async def test_validator_updates_sign_two_heights_later() -> None:
    class GrowingApp(CountingApp):
        async def finalize_block(
            self, request: pb.RequestFinalizeBlock, /
        ) -> pb.ResponseFinalizeBlock:
            reply = await super().finalize_block(request)
            if request.height == 1:
                reply.validator_updates.extend([to_update(KEYS[3], 40), to_update(KEYS[0], 0)])
            return reply

    driver = await start(GrowingApp)
    expected = [{10, 20, 30}, {10, 20, 30}, {20, 30, 40}]
    for powers in expected:
        assert set(driver.validators.values()) == powers
        await driver.make_block()
    votes = (await driver.make_block()).request.decided_last_commit.votes
    assert [vote.validator.power for vote in votes] == [40, 30, 20]


class EagerApp(CountingApp):
    """Makes a block durable before Commit."""

    async def finalize_block(self, request: pb.RequestFinalizeBlock, /) -> pb.ResponseFinalizeBlock:
        reply = await super().finalize_block(request)
        vars(self.disk).update(vars(self.pending))
        return reply


class ForgetfulApp(CountingApp):
    """Replies to Commit, and writes nothing."""

    async def commit(self, _request: pb.RequestCommit, /) -> pb.ResponseCommit:
        return pb.ResponseCommit()


class HasteApp(CountingApp):
    """Executes what is only proposed."""

    async def process_proposal(
        self, request: pb.RequestProcessProposal, /
    ) -> pb.ResponseProcessProposal:
        self.disk.total += len(request.txs)
        self.disk.app_hash = compute_hash(self.disk.total)
        return await super().process_proposal(request)


class GreedyApp(CountingApp):
    """Fills a block with more than fits."""

    async def prepare_proposal(
        self, request: pb.RequestPrepareProposal, /
    ) -> pb.ResponsePrepareProposal:
        return pb.ResponsePrepareProposal(txs=[b"1" * request.max_tx_bytes])


class IncoherentApp(CountingApp):
    """Rejects what it has prepared itself."""

    async def prepare_proposal(
        self, _request: pb.RequestPrepareProposal, /
    ) -> pb.ResponsePrepareProposal:
        return pb.ResponsePrepareProposal(txs=[b"x"])


class SilentApp(CountingApp):
    """Forgets ProcessProposal's answer."""

    async def process_proposal(
        self, _request: pb.RequestProcessProposal, /
    ) -> pb.ResponseProcessProposal:
        return pb.ResponseProcessProposal()


class ShortApp(CountingApp):
    """Gives no result for a transaction that it passes over."""

    async def finalize_block(self, request: pb.RequestFinalizeBlock, /) -> pb.ResponseFinalizeBlock:
        reply = await super().finalize_block(request)
        del reply.tx_results[:]
        return reply


class RetainingApp(CountingApp):
    """Lets CometBFT drop blocks that do not exist yet."""

    async def commit(self, request: pb.RequestCommit, /) -> pb.ResponseCommit:
        await super().commit(request)
        return pb.ResponseCommit(retain_height=1_000)


class RemovingApp(CountingApp):
    """Removes a validator that is none."""

    async def finalize_block(self, request: pb.RequestFinalizeBlock, /) -> pb.ResponseFinalizeBlock:
        reply = await super().finalize_block(request)
        reply.validator_updates.append(to_update(KEYS[3], 0))
        return reply


class OverpoweringApp(CountingApp):
    """Gives a validator more power than CometBFT adds up."""

    async def finalize_block(self, request: pb.RequestFinalizeBlock, /) -> pb.ResponseFinalizeBlock:
        reply = await super().finalize_block(request)
        reply.validator_updates.append(to_update(KEYS[0], 2**60))
        return reply


class AbdicatingApp(CountingApp):
    """Removes every validator."""

    async def finalize_block(self, request: pb.RequestFinalizeBlock, /) -> pb.ResponseFinalizeBlock:
        reply = await super().finalize_block(request)
        reply.validator_updates.extend(to_update(key, 0) for key, _ in SET)
        return reply


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (EagerApp, "Info after a proposal"),
        (ForgetfulApp, "Info's height after Commit"),
        (HasteApp, "Info after a proposal"),
        (GreedyApp, "more than max_tx_bytes"),
        (IncoherentApp, "a prepared proposal was rejected"),
        (SilentApp, "neither accepted nor rejected"),
        (ShortApp, "0 results for 1 transactions"),
        (RetainingApp, "retain_height 1000"),
        (RemovingApp, "is no validator"),
        (OverpoweringApp, "a total voting power of"),
        (AbdicatingApp, "would be empty"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_a_wrong_application_is_caught(kind: type[CountingApp], words: str) -> None:
    driver = await start(kind)
    await driver.add_tx(b"1")
    with pytest.raises(SpecificationBroken, match=words):
        await driver.make_block()


@dataclass
class ClockDisk(Disk):
    runs: list[object] = field(default_factory=list)


class ClockApp(CountingApp):
    """Its result depends on which run of the process computes it."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        assert isinstance(disk, ClockDisk)
        disk.runs.append(self)
        self.run = len(disk.runs)

    async def finalize_block(self, request: pb.RequestFinalizeBlock, /) -> pb.ResponseFinalizeBlock:
        reply = await super().finalize_block(request)
        for result in reply.tx_results:
            result.data = b"%d" % self.run
        return reply


async def test_a_replay_with_other_results_is_caught() -> None:
    driver = ConsensusDriver([on_disk(ClockApp, ClockDisk())], validators=SET)
    await driver.start()
    await driver.make_block([b"1"])
    with pytest.raises(SpecificationBroken, match="replay of 2"):
        await driver.make_block([b"2"], crash=CrashPoint.AFTER_FINALIZE)


class BiasedApp(CountingApp):
    async def finalize_block(self, request: pb.RequestFinalizeBlock, /) -> pb.ResponseFinalizeBlock:
        reply = await super().finalize_block(request)
        self.pending = replace(self.pending, app_hash=compute_hash(-1))
        reply.app_hash = self.pending.app_hash
        return reply


class StrictApp(CountingApp):
    async def process_proposal(
        self, _request: pb.RequestProcessProposal, /
    ) -> pb.ResponseProcessProposal:
        return pb.ResponseProcessProposal(status=pb.ResponseProcessProposal.REJECT)


@pytest.mark.parametrize(
    ("kind", "words"), [(BiasedApp, "block 1 is"), (StrictApp, "nodes do not agree")]
)
async def test_nodes_that_part_are_caught(kind: type[CountingApp], words: str) -> None:
    driver = await start(CountingApp, kind)
    with pytest.raises(SpecificationBroken, match=words):
        await driver.make_block([b"1"])


async def test_a_genesis_that_differs_after_a_restart_is_caught() -> None:
    class RestartedApp(CountingApp):
        async def init_chain(self, request: pb.RequestInitChain, /) -> pb.ResponseInitChain:
            await super().init_chain(request)
            return pb.ResponseInitChain(app_hash=b"%d" % id(self))

    driver = await start(RestartedApp)
    first = driver.app
    with pytest.raises(SpecificationBroken, match="InitChain's answer"):
        await driver.crash()
    assert first is not driver.app


async def test_a_chain_without_validators_is_caught() -> None:
    driver = ConsensusDriver([on_disk(CountingApp, Disk())])
    with pytest.raises(SpecificationBroken, match="no validators"):
        await driver.start()


async def test_a_disk_of_another_chain_is_caught() -> None:
    disk = Disk()
    driver = ConsensusDriver([on_disk(CountingApp, disk)], validators=SET)
    await driver.start()
    await driver.make_block()
    disk.app_hash = b"other"
    with pytest.raises(SpecificationBroken, match="Info's app hash"):
        await driver.crash()
    disk.height = 9
    with pytest.raises(SpecificationBroken, match="the application is at 9"):
        await driver.crash()
