"""The verifier: a process of its own that redoes walks from the head.

The only part of the application that trains, and so the only one that imports torch. It reads
messages from standard input and answers on standard output; between any two steps it looks
for new messages, so an urgent walk (a proposal, a block) goes before one that is under way, and
a new head ends walks from the old one at once. Accuracies are measured when nothing else is asked.
It leaves when its standard input ends.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import OrderedDict, deque

import torch

from pol_abci.app.verifier_messages import (
    LENGTH,
    ComputeInitialWeights,
    ComputeWeights,
    Configure,
    Done,
    FromVerifier,
    MeasureAccuracy,
    Ready,
    Refused,
    SetHead,
    ToVerifier,
    VerifyWalk,
    decode_message,
    encode_message,
)
from pol_abci.learning.evaluate import count_correct
from pol_abci.learning.golden import check_golden_walk
from pol_abci.learning.scheme import get_scheme
from pol_abci.learning.task import Head, Task, load_task
from pol_abci.learning.weights import from_bytes, to_bytes
from pol_abci.rules.errors import PolError
from pol_abci.rules.proof import Claim, TrueWalk, WalkVerdict

KEPT_WEIGHTS_BYTES = 256 * 2**20
"""Weights of true walks kept, so that a block's are at hand when it is decided."""


class HeadMoved(Exception):
    """The head that a walk starts from is no longer the newest."""


class Overtaken(Exception):
    """An urgent walk was done in the middle of this one, on the task's only model."""


class Channel:
    """Framed messages over a pair of file descriptors.

    The process ends quietly when the other side has gone: whoever killed the application knows.
    """

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    def has_message(self) -> bool:
        """Whether the other side has written something, or has gone."""
        return bool(select.select([self._source], [], [], 0)[0])

    def receive(self) -> ToVerifier:
        """Wait for a message."""
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        message = decode_message(self._read(length))
        assert not isinstance(message, (Ready, Refused, Done))
        return message

    def send(self, message: FromVerifier) -> None:
        """Write a message whole."""
        view = memoryview(encode_message(message))
        while view:
            try:
                written = os.write(self._sink, view)
            except BrokenPipeError:
                raise SystemExit(0) from None
            view = view[written:]

    def _read(self, count: int) -> bytes:
        parts = []
        while count:
            part = os.read(self._source, min(count, 1 << 20))
            if not part:
                raise SystemExit(0)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class Worker:
    """Answers jobs over one task."""

    def __init__(self, task: Task, channel: Channel) -> None:
        self._task = task
        self._channel = channel
        self._head: Head | None = None
        self._kept: OrderedDict[Claim, tuple[WalkVerdict, bytes]] = OrderedDict()
        self._put_off: deque[MeasureAccuracy] = deque()
        self._steps = 0
        self._walks = 0

    def run(self) -> None:
        """Answer messages until the application goes."""
        while True:
            if self._put_off and not self._channel.has_message():
                self._process(self._put_off.popleft())
            else:
                self._process(self._channel.receive())

    def _process(self, message: ToVerifier) -> None:
        if isinstance(message, SetHead):
            self._set_head(message)
            return
        assert not isinstance(message, Configure)
        started, self._steps = time.monotonic(), 0
        result: WalkVerdict | bytes | int | None
        try:
            match message:
                case VerifyWalk():
                    result, _ = self._walk(message.claim)
                case ComputeWeights():
                    _, result = self._walk(message.claim)
                case ComputeInitialWeights():
                    result = to_bytes(self._task.initial_weights)
                case MeasureAccuracy():
                    result = self._count(message.weights)
        except HeadMoved:
            result = None
        seconds = time.monotonic() - started
        self._channel.send(Done(message.job, result, self._steps, seconds))

    def _set_head(self, message: SetHead) -> None:
        weights = from_bytes(self._task.model, message.weights)
        self._head = Head(message.generation, message.seed, weights)
        self._kept.clear()

    def _walk(self, claim: Claim) -> tuple[WalkVerdict, bytes | None]:
        head = self._head
        if head is None or head.generation != claim.generation:
            raise HeadMoved
        key = claim.key
        while key not in self._kept:
            try:
                verdict, weights = self._verify(head, claim)
            except Overtaken:
                continue  # from the head again: its steps are few, and its time was not urgent
            if not isinstance(verdict, TrueWalk):
                return verdict, None
            assert weights is not None
            self._kept[key] = verdict, weights
            while len(self._kept) > 1 and len(self._kept) * len(weights) > KEPT_WEIGHTS_BYTES:
                self._kept.popitem(last=False)
        return self._kept[key]

    def _verify(self, head: Head, claim: Claim) -> tuple[WalkVerdict, bytes | None]:
        self._walks += 1
        walk = self._walks

        def between_steps() -> None:
            self._steps += 1
            between_images()

        def between_images() -> None:
            while self._channel.has_message():
                self._interrupt(self._channel.receive())
            if self._head is not head:
                raise HeadMoved
            if self._walks != walk:
                raise Overtaken

        verify_claim = get_scheme(self._task.params).verify_claim
        return verify_claim(self._task, head, claim, between_steps, between_images)

    def _count(self, data: bytes) -> int:
        def between_images() -> None:
            while self._channel.has_message():
                self._interrupt(self._channel.receive())

        weights = from_bytes(self._task.model, data)
        return count_correct(self._task, weights, None, between_images)

    def _interrupt(self, message: ToVerifier) -> None:
        """Process a message inside a job that is under way, whose count of steps goes on.

        An accuracy never gets in between: it waits until there is nothing else to do.
        """
        if isinstance(message, MeasureAccuracy):
            self._put_off.append(message)
            return
        steps = self._steps
        self._process(message)
        self._steps = steps


def main() -> None:
    """Serve one application over standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the application's
    sink = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may write there
    channel = Channel(sys.stdin.fileno(), sink)
    configure = channel.receive()
    assert isinstance(configure, Configure)
    torch.set_num_threads(configure.threads)
    try:
        check_golden_walk(configure.device)
        task = load_task(
            configure.params,
            configure.weights_root,
            configure.chain_id,
            configure.data_dir,
            configure.device,
        )
    except PolError as error:
        channel.send(Refused(str(error)))
        return
    channel.send(Ready(len(task.test)))
    Worker(task, channel).run()


if __name__ == "__main__":
    main()
