"""The verifier as the application sees it, with its real process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import pytest_asyncio

from pol_abci.app.verifier import MAX_ATTEMPTS, HeadMoved, OtherWeights, Verifier, VerifierError
from pol_abci.app.verifier_messages import (
    Configure,
    Done,
    MeasureAccuracy,
    SetHead,
    VerifyWalk,
)
from pol_abci.app.verifier_process import Channel, Worker
from pol_abci.app.walk_queue import Standing
from pol_abci.learning.walk import Head, Walk
from pol_abci.learning.weights import compute_root, to_bytes
from pol_abci.rules.proof import Claim, FalseWalk, TrueWalk, WalkClaim
from tests.abci.digits_chain import CHAIN_ID, load_digits_task, make_key, make_test_params

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from pol_abci.app.verifier_messages import FromVerifier, ToVerifier
    from pol_abci.rules.params import Params

SEED = bytes(range(32))
LONG_WALK_STEPS = 300
shared = pytest.mark.asyncio(loop_scope="module")
"""For tests of `verifier`, which lives from the first of them to the last."""


def make_long_params() -> Params:
    """The test chain's task with walks of seconds, which leave time to get in between."""
    params = make_test_params()
    return replace(params, scheme=replace(params.walk, max_steps=LONG_WALK_STEPS))


def make_claim(owner: int, steps: int, generation: int = 0) -> WalkClaim:
    params = make_long_params()
    task = replace(load_digits_task(), params=params)
    address = make_key(owner).address
    walk = Walk(task, Head(generation, SEED, task.initial_weights), address, 7)
    for _ in range(steps):
        walk.step()
    return WalkClaim(
        generation=generation,
        address=address,
        nonce=7,
        steps=steps,
        step_digests=walk.digests,
        weights_root=walk.root(),
    )


async def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110  (the verifier tells nobody else)
        await asyncio.sleep(0.001)


def make_verifier(params: Params, device: str = "cpu") -> Verifier:
    weights = load_digits_task().initial_weights
    verifier = Verifier(Configure(CHAIN_ID, params, compute_root(weights), 1, device))
    verifier.set_head(0, SEED, to_bytes(weights))
    return verifier


@asynccontextmanager
async def run_verifier(
    params: Params | None = None, device: str = "cpu"
) -> AsyncIterator[Verifier]:
    verifier = make_verifier(params or make_long_params(), device)
    running = asyncio.create_task(verifier.run())
    try:
        await wait_until(lambda: verifier.status.alive or running.done())
        if running.done():
            running.result()
        yield verifier
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def started() -> AsyncIterator[Verifier]:
    """One verifier for many tests: each start of its process loads torch, which takes seconds."""
    async with run_verifier() as verifier:
        yield verifier


@pytest_asyncio.fixture(loop_scope="module")
async def verifier(started: Verifier) -> Verifier:
    """The shared verifier, ready, at the first head."""
    await wait_until(lambda: started.status.alive)
    assert not started._jobs
    started.on_true_walk = lambda *_: None
    started.set_head(0, SEED, to_bytes(load_digits_task().initial_weights))
    return started


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
async def test_true_and_false_walks_are_told_apart_and_weights_come_with_the_true(
    device: str,
) -> None:
    claim = make_claim(1, 3)
    wrong = replace(claim, weights_root=bytes(32))
    async with run_verifier(device=device) as verifier:
        verdict = await verifier.verify(claim)
        assert isinstance(verdict, TrueWalk)
        assert isinstance(await verifier.verify(wrong), FalseWalk)
        weights = await verifier.compute_weights(claim)
        assert len(weights) == 4 * load_digits_task().model.size
        assert verifier.status.walked == 2
        assert verifier.status.false == 1
        initial = await verifier.compute_initial_weights()
    assert initial == to_bytes(load_digits_task().initial_weights)


async def test_what_is_asked_before_the_process_is_ready_waits_for_it() -> None:
    claim = make_claim(1, 3)
    verifier = make_verifier(make_long_params())
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(verifier.verify(claim))
        verifier.enqueue(make_claim(2, 3), b"queued", Standing.UNKNOWN)
        await asyncio.sleep(0)
        running = tasks.create_task(verifier.run())
        assert isinstance(await asking, TrueWalk)
        await wait_until(lambda: verifier.status.walked == 2)
        running.cancel()


@shared
@pytest.mark.parametrize("ask", [Verifier.verify, Verifier.compute_weights])
async def test_a_walk_of_a_block_is_told_as_under_way_until_it_is_answered(
    verifier: Verifier, ask: Callable[[Verifier, Claim], Awaitable[object]]
) -> None:
    assert not verifier.is_walking
    asking = asyncio.ensure_future(ask(verifier, make_claim(1, LONG_WALK_STEPS)))
    await wait_until(lambda: verifier.is_walking)
    await asking
    assert not verifier.is_walking


async def test_a_device_that_is_not_there_is_told_at_the_start() -> None:
    with pytest.raises(VerifierError, match="no device 'foo' here: use cpu"):
        async with run_verifier(device="foo"):
            pass


@shared
async def test_an_urgent_walk_goes_before_a_long_one_that_is_under_way(verifier: Verifier) -> None:
    long, short = make_claim(1, LONG_WALK_STEPS), make_claim(2, 3)
    heard: asyncio.Queue[Claim] = asyncio.Queue()
    verifier.on_true_walk = lambda claim, _raw, _verdict: heard.put_nowait(claim)
    verifier.enqueue(long, b"long", Standing.UNKNOWN)
    await wait_until(lambda: verifier.is_walking)
    assert isinstance(await verifier.verify(short), TrueWalk)
    assert heard.empty(), "the short one waited for the long one"
    assert await heard.get() == long  # which is done in its turn, from the start again


@shared
async def test_a_killed_process_is_started_again_and_answers_what_it_was_asked(
    verifier: Verifier,
) -> None:
    claim = make_claim(1, LONG_WALK_STEPS)
    answer = asyncio.create_task(verifier.verify(claim))
    await asyncio.sleep(0)
    assert verifier._process is not None
    killed = verifier._process.pid
    os.kill(killed, signal.SIGKILL)
    assert isinstance(await answer, TrueWalk)
    assert verifier._process is not None
    assert verifier._process.pid != killed


def test_the_process_ends_quietly_when_the_application_has_gone() -> None:
    source, sink = os.pipe()
    os.close(source)
    with pytest.raises(SystemExit) as ended:
        Channel(source, sink).send(Done(1, None, 0, 0.0))
    assert ended.value.code == 0
    os.close(sink)


@shared
async def test_a_walk_that_ends_the_process_each_time_is_given_up_in_words(
    verifier: Verifier,
) -> None:
    claim = make_claim(1, LONG_WALK_STEPS)
    answer = asyncio.create_task(verifier.verify(claim))
    killed: set[int] = set()
    while not answer.done():
        await asyncio.sleep(0.01)
        process = verifier._process
        if verifier.status.alive and process is not None and process.pid not in killed:
            killed.add(process.pid)
            os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(VerifierError, match="ended 3 times"):
        answer.result()


@shared
async def test_a_true_walk_that_turns_out_false_stops_the_node_in_words(verifier: Verifier) -> None:
    wrong = replace(make_claim(1, 3), weights_root=bytes(32))
    with pytest.raises(OtherWeights, match="not compute the same twice"):
        await verifier.compute_weights(wrong)


@shared
async def test_a_false_walk_that_others_decided_on_is_redone(verifier: Verifier) -> None:
    claim = make_claim(1, 3)
    verifier.verdicts[claim] = FalseWalk("a bit of this machine's memory fell over")
    assert isinstance(await verifier.verify(claim), FalseWalk)
    assert isinstance(await verifier.verify(claim, is_decided=True), TrueWalk)


@shared
async def test_an_accuracy_that_ends_the_process_each_time_ends_nothing_else(
    verifier: Verifier,
) -> None:
    claim = make_claim(1, 3)
    weights = to_bytes(load_digits_task().initial_weights)
    verifier.measure_accuracy(0, weights, lambda *_: pytest.fail("it was measured"))
    process = verifier._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # so that the accuracy is asked for and not answered
    try:
        await wait_until(lambda: bool(verifier._jobs))
        (job,) = verifier._jobs.values()
        job.attempts = MAX_ATTEMPTS
    finally:
        os.kill(process.pid, signal.SIGKILL)
    assert isinstance(await verifier.verify(claim), TrueWalk)


async def test_a_process_that_never_gets_ready_is_given_up_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    monkeypatch.setattr("pol_abci.app.verifier.RESTART_DELAY_S", 0.0)
    with pytest.raises(VerifierError, match="before it was ready"):
        async with run_verifier():
            pytest.fail("it started all the same")


@shared
async def test_a_new_head_ends_the_walks_from_the_old_one(verifier: Verifier) -> None:
    task = load_digits_task()
    long, after = make_claim(1, LONG_WALK_STEPS), make_claim(2, 3, generation=1)
    verifier.on_true_walk = lambda *_: pytest.fail("a walk from an old head was kept")
    verifier.enqueue(long, b"long", Standing.UNKNOWN)
    await wait_until(lambda: verifier.is_walking)
    asking = asyncio.create_task(verifier.verify(long))
    await asyncio.sleep(0)
    verifier.set_head(1, SEED, to_bytes(task.initial_weights))
    assert isinstance(await verifier.verify(after), TrueWalk)
    with pytest.raises(HeadMoved):
        await asking
    await wait_until(lambda: not verifier.is_walking)
    assert long not in verifier.verdicts


@shared
async def test_accuracy_is_measured_when_nothing_waits(verifier: Verifier) -> None:
    task = load_digits_task()
    measured: asyncio.Queue[tuple[int, int, int]] = asyncio.Queue()
    verifier.measure_accuracy(
        5, to_bytes(task.initial_weights), lambda *result: measured.put_nowait(result)
    )
    generation, correct, size = await measured.get()
    assert (generation, size) == (5, 360)
    assert 0 <= correct <= 360


@shared
async def test_a_queued_walk_does_not_wait_for_an_accuracy_that_is_asked_for(
    verifier: Verifier,
) -> None:
    claim = make_claim(1, 3)
    heard: asyncio.Queue[str] = asyncio.Queue()
    verifier.on_true_walk = lambda *_: heard.put_nowait("walk")
    process = verifier._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        weights = to_bytes(load_digits_task().initial_weights)
        verifier.measure_accuracy(0, weights, lambda *_: heard.put_nowait("accuracy"))
        await wait_until(lambda: len(verifier._jobs) == 1)
        verifier.enqueue(claim, b"walk", Standing.UNKNOWN)
        await wait_until(lambda: len(verifier._jobs) == 2)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert {await heard.get(), await heard.get()} == {"walk", "accuracy"}


class ScriptedChannel:
    """All messages are there from the start; the application goes after the last one."""

    def __init__(self, *messages: ToVerifier) -> None:
        self.messages = deque(messages)
        self.answers: list[FromVerifier] = []

    def has_message(self) -> bool:
        return bool(self.messages)

    def receive(self) -> ToVerifier:
        if not self.messages:
            raise SystemExit(0)
        return self.messages.popleft()

    def send(self, message: FromVerifier) -> None:
        self.answers.append(message)


@pytest.mark.parametrize("is_walk_first", [True, False])
def test_a_walk_goes_before_an_accuracy_whichever_is_under_way(is_walk_first: bool) -> None:
    task = replace(load_digits_task(), params=make_long_params())
    weights = to_bytes(task.initial_weights)
    jobs: list[ToVerifier] = [VerifyWalk(1, make_claim(1, 3)), MeasureAccuracy(2, weights)]
    channel = ScriptedChannel(
        SetHead(0, SEED, weights), *(jobs if is_walk_first else reversed(jobs))
    )
    with pytest.raises(SystemExit):
        Worker(task, cast("Channel", channel)).run()
    done = [answer for answer in channel.answers if isinstance(answer, Done)]
    assert [answer.job for answer in done] == [1, 2]
    assert isinstance(done[0].result, TrueWalk)
    assert isinstance(done[1].result, int)


async def test_the_dataset_is_looked_for_where_the_home_says(tmp_path: Path) -> None:
    params = make_long_params()
    params = replace(params, task=replace(params.task, dataset="fashion-mnist"))
    verifier = Verifier(Configure(CHAIN_ID, params, bytes(32), 1, data_dir=tmp_path))
    with pytest.raises(VerifierError, match=str(tmp_path)):
        await verifier.run()


async def test_a_dataset_with_one_byte_changed_stops_the_start_in_words() -> None:
    params = make_long_params()
    digest = bytearray(params.task.train_digest)
    digest[0] ^= 1
    params = replace(params, task=replace(params.task, train_digest=bytes(digest)))
    with pytest.raises(VerifierError, match="digits"):
        async with run_verifier(params):
            pytest.fail("it started all the same")
