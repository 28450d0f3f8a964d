"""First weights, the order of tensors, and canonical bytes."""

from __future__ import annotations

import hashlib
import math
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch

from pol_abci.learning import weights as canonical
from pol_abci.learning.models import build_model
from pol_abci.learning.weights import WeightsMismatch
from pol_abci.rules import merkle
from pol_abci.rules.errors import GenesisError
from tests.unit.learning.integer_reference import round_to_float32

SEED = bytes(range(32))


def test_tensors_have_the_names_shapes_and_order_of_the_protocol() -> None:
    model = build_model("cnn", (8, 16, 32), (8, 8, 1), 10)
    norms = ("weight", "bias", "running_mean", "running_var")
    expected: list[tuple[str, tuple[int, ...]]] = []
    for number, shape in ((1, (9, 8)), (2, (72, 16)), (3, (144, 32))):
        expected.append((f"conv{number}.weight", shape))
        expected += [(f"bn{number}.{name}", shape[1:]) for name in norms]
    expected += [("fc.weight", (128, 10)), ("fc.bias", (10,))]
    assert [(spec.name, spec.shape) for spec in model.tensors] == expected
    assert model.weight_count == 7_234
    assert model.first_layer_size == 72


def test_requirements_index_learnable_values_only() -> None:
    model = build_model("cnn", (1, 2, 3), (4, 4, 1), 2)
    flat = torch.arange(model.size, dtype=torch.float32)
    learnable = [
        view.flatten() for (name, view) in model.split(flat).items() if "running" not in name
    ]
    assert model.learnable_positions.tolist() == torch.cat(learnable).int().tolist()


def test_first_weights_are_drawn_as_the_protocol_says() -> None:
    model = build_model("cnn", (2, 3, 4), (5, 5, 1), 3)
    views = model.split(model.initial_weights(SEED))
    for name, bound in (("conv2.weight", math.sqrt(6 / 18)), ("fc.weight", 1 / math.sqrt(16))):
        fields = b"".join(struct.pack(">I", len(field)) + field for field in (SEED, name.encode()))
        tag = b"initial-weights"
        raw = hashlib.shake_256(bytes([len(tag)]) + tag + fields).digest(3 * views[name].numel())
        for index, value in enumerate(views[name].flatten().tolist()):
            u = int.from_bytes(raw[3 * index : 3 * index + 3], "big")
            exact = Fraction((2 * u + 1) - 2**24, 2**24)
            assert value == float(round_to_float32(Fraction(float(exact) * bound)))
    assert views["bn2.weight"].tolist() == [1.0] * 3
    assert views["bn2.running_var"].tolist() == [1.0] * 3
    for name in ("bn2.bias", "bn2.running_mean", "fc.bias"):
        assert not views[name].any()


def test_first_weights_depend_on_the_chain() -> None:
    model = build_model("cnn", (2, 3, 4), (5, 5, 1), 3)
    assert not torch.equal(model.initial_weights(b"a"), model.initial_weights(b"b"))


@pytest.mark.parametrize(
    ("architecture", "channels", "message"),
    [
        ("transformer", (8, 16, 32), "no architecture"),
        ("cnn", (8, 16), "three channel counts"),
        ("cnn", (8, 0, 32), "three channel counts"),
    ],
)
def test_what_the_registry_lacks_is_refused(
    architecture: str, channels: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GenesisError, match=message):
        build_model(architecture, channels, (8, 8, 1), 10)


def test_canonical_bytes_are_little_endian_and_know_one_zero() -> None:
    data = canonical.to_bytes(torch.tensor([1.0, -0.0, 0.0, -(2.0**-149)]))
    assert data.hex() == "0000803f" + "00000000" + "00000000" + "01000080"


def test_bytes_and_weights_turn_into_each_other() -> None:
    model = build_model("cnn", (2, 3, 4), (5, 5, 1), 3)
    flat = model.initial_weights(SEED)
    data = canonical.to_bytes(flat)
    assert torch.equal(canonical.from_bytes(model, data), flat)
    assert canonical.compute_root(flat) == merkle.compute_weights_root(data)


def test_bytes_of_another_model_are_refused() -> None:
    model = build_model("cnn", (2, 3, 4), (5, 5, 1), 3)
    data = canonical.to_bytes(model.initial_weights(SEED))
    for wrong in (data[:-4], data + bytes(4), data[:-1], b""):
        with pytest.raises(WeightsMismatch, match="bytes are not weights"):
            canonical.from_bytes(model, wrong)
    with pytest.raises(WeightsMismatch, match="not finite"):
        canonical.from_bytes(model, np.float32(np.nan).tobytes() + data[4:])
