"""What the application and its verifier process tell each other, and how it is framed.

Both ends are this package at the same version, parent and child over a pipe, so the messages
are pickled: u32 big-endian length, then the pickle.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.rules.params import Params
    from pol_abci.rules.proof import Claim, WalkVerdict

LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Configure:
    """First message: the task. The process loads the data and holds it against the digests.

    Before that it holds its device against the golden walk.
    """

    chain_id: str
    params: Params
    weights_root: bytes  # root(W_0)
    threads: int
    device: str = "cpu"
    data_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class SetHead:
    """A new head; walks from an older one are abandoned where they are."""

    generation: int
    seed: bytes
    weights: bytes


@dataclass(frozen=True, slots=True)
class VerifyWalk:
    """Redo a walk from the head."""

    job: int
    claim: Claim


@dataclass(frozen=True, slots=True)
class ComputeWeights:
    """The weights at the end of a walk that was found true."""

    job: int
    claim: Claim


@dataclass(frozen=True, slots=True)
class ComputeInitialWeights:
    """W_0 of the task."""

    job: int


@dataclass(frozen=True, slots=True)
class MeasureAccuracy:
    """Count what given weights classify rightly of all of E; beside consensus, for people."""

    job: int
    weights: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """The task is loaded; E has `size_all` images."""

    size_all: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The task cannot be loaded: what is wrong, for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """A job's result: a verdict, weights, a count, or None when its head is gone.

    `steps` were walked for it, in `seconds`.
    """

    job: int
    result: WalkVerdict | bytes | int | None
    steps: int
    seconds: float


Job = VerifyWalk | ComputeWeights | ComputeInitialWeights | MeasureAccuracy
ToVerifier = Configure | SetHead | Job
FromVerifier = Ready | Refused | Done


def encode_message(message: ToVerifier | FromVerifier) -> bytes:
    """Frame and pickle one message."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


def decode_message(data: bytes) -> ToVerifier | FromVerifier:
    """Unpickle one message's frame, without its length."""
    message: ToVerifier | FromVerifier = pickle.loads(data)  # noqa: S301  (our own child's pipe)
    return message
