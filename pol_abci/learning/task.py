"""The task of a chain on this machine: its data, its model and the head that walks start from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from pol_abci.learning import weights as canonical
from pol_abci.learning.datasets import Dataset, check_digest, load_dataset
from pol_abci.learning.exact.arithmetic import round_to_float32
from pol_abci.learning.exact.bound_model import BoundModel
from pol_abci.learning.exact.contraction import MAX_BITS, FloatContraction
from pol_abci.learning.exact.convolution import Conv2d
from pol_abci.learning.exact.layers import BatchNorm, Linear
from pol_abci.learning.exact.machine import check_machine, open_device
from pol_abci.learning.models import build_model
from pol_abci.learning.sampling import TrainSet
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.params import ARITHMETIC_VERSION, PaperParams, WalkParams
from pol_abci.rules.seed import compute_chain_seed

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from pol_abci.learning.exact.graph import Model
    from pol_abci.learning.exact.layer import Layer
    from pol_abci.rules.params import ArithmeticParams, Params

_MIN_BITS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The model of the newest generation: W_n flat, and the seed s_n of its walks."""

    generation: int
    seed: bytes
    weights: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """Everything that a walk needs beside its head. Made by `load_task`.

    `bound` is the model that steps run on. It has room for one walk: a newer one takes it over.
    """

    params: Params
    model: Model
    train: TrainSet
    test: Dataset
    initial_weights: Tensor
    device: torch.device
    bound: BoundModel


def load_task(
    params: Params,
    weights_root: bytes | None,
    chain_id: str,
    data_dir: Path | None = None,
    device: str = "cpu",
) -> Task:
    """The task of a chain, checked against its genesis.

    Parameters
    ----------
    params, chain_id
        Of the genesis.
    weights_root
        root(W_0) of the genesis; None while one is being made.
    data_dir
        Where datasets lie that do not come with a package.
    device
        torch's name of it. The bits do not depend on it.

    Raises
    ------
    DatasetMissing, DatasetMismatch
        When the data is not on this machine, or not the chain's.
    GenesisError
        When this version cannot run the task, or its first weights are not the genesis's.
    DeviceMissing
        When `device` is not there.
    InexactMachine
        When this process, or the device, would not compute exactly.
    """
    place = open_device(device)
    check_machine(place)
    task = params.task
    train, test = load_dataset(task.dataset, data_dir)
    check_digest(task.dataset, "train", train, task.train_digest)
    check_digest(task.dataset, "test", test, task.test_digest)
    model = build_model(task.architecture, task.channels, train.images.shape[1:], train.classes)
    _check_sizes(params, len(train), len(test), canonical.VALUE_BYTES * model.size)
    _check_arithmetic(params.arithmetic, model.layers, task.batch_size)
    initial_weights = model.initial_weights(compute_chain_seed(chain_id))
    if weights_root is not None and canonical.compute_root(initial_weights) != weights_root:
        raise GenesisError(
            f"the first weights of {chain_id} have the root "
            f"{canonical.compute_root(initial_weights).hex()} here, genesis says "
            f"{weights_root.hex()}: the genesis file is of another chain or version"
        )
    return Task(
        params=params,
        model=model,
        train=TrainSet(train, task.batch_size, task.augmentation, place),
        test=test,
        initial_weights=initial_weights.to(place),
        device=place,
        bound=BoundModel(
            model,
            task.batch_size,
            parse_learning_rate(task.learning_rate),
            params.arithmetic,
            place,
        ),
    )


def parse_learning_rate(text: str) -> float:
    """The float32 nearest to a decimal string.

    Raises
    ------
    GenesisError
        For text that is no number above 0 that float32 has.
    """
    try:
        rate = round_to_float32(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise GenesisError(f'learning_rate "{text}" is not a decimal number') from error
    if rate <= 0.0:
        raise GenesisError(f'learning_rate "{text}" is not above 0 in float32')
    return rate


def _check_sizes(params: Params, train_count: int, test_count: int, weights_bytes: int) -> None:
    if not 1 <= params.task.batch_size <= train_count:
        raise GenesisError(
            f"batch_size {params.task.batch_size}: the train set has {train_count} images"
        )
    match params.scheme:
        case WalkParams(evaluation_samples=samples) if not 1 <= samples <= test_count:
            raise GenesisError(
                f"evaluation_samples {samples}: the test set has {test_count} images"
            )
        case PaperParams(weights_bytes=given) if given != weights_bytes:
            raise GenesisError(f"weights_bytes {given}: the model's weights have {weights_bytes}")


def _check_arithmetic(
    arithmetic: ArithmeticParams, layers: tuple[Layer, ...], batch_size: int
) -> None:
    """Refuse bits at which a sum of the model would not be exact, and statistics of one row."""
    if arithmetic.version != ARITHMETIC_VERSION:
        raise GenesisError(
            f"arithmetic version {arithmetic.version}: this program has {ARITHMETIC_VERSION}"
        )
    for name, bits, limit in (
        ("forward_bits", arithmetic.forward_bits, _count_forward_products(layers)),
        ("backward_bits", arithmetic.backward_bits, _count_backward_products(layers, batch_size)),
    ):
        if not _MIN_BITS <= bits <= MAX_BITS:
            raise GenesisError(f"{name} {bits}: {_MIN_BITS} to {MAX_BITS} are defined")
        if limit > FloatContraction(bits).max_products:
            raise GenesisError(f"{name} {bits}: a sum of {limit} products would not be exact")
    for layer in layers:
        if isinstance(layer, BatchNorm) and _count_rows(layer, batch_size) < 2:  # noqa: PLR2004 - a variance
            raise GenesisError(
                f"batch_size {batch_size}: {layer.name} would have one row to take statistics of"
            )


def _count_rows(layer: Layer, batch_size: int) -> int:
    return batch_size * math.prod(layer.output_shape[:-1])


def _count_forward_products(layers: tuple[Layer, ...]) -> int:
    """Products of the longest sum that a forward pass or an evaluation contracts."""
    return max(layer.tensors[0].shape[0] for layer in layers if isinstance(layer, Conv2d | Linear))


def _count_backward_products(layers: tuple[Layer, ...], batch_size: int) -> int:
    """Products of the longest sum of a backward pass: over rows, or over outputs and taps."""
    counts = []
    for layer in layers:
        if isinstance(layer, Conv2d):
            taps = layer.window.taps
            counts += [_count_rows(layer, batch_size), taps * layer.filters]
        elif isinstance(layer, Linear):
            counts += [batch_size, layer.outputs]
    return max(counts)
