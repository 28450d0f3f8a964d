"""Quantisation, exact contractions, tree sums and the softmax gradient against integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from pol_abci.learning.arithmetic import (
    Contraction,
    InvalidStep,
    SoftmaxGradient,
    TreeSum,
    compute_magnitude,
    quantise,
    quantise_images,
    round_to_float32,
)
from pol_abci.learning.machine import InexactMachine, check_machine, open_device
from tests.unit.learning import integer_reference as reference

CPU = torch.device("cpu")


def quantise_here(values: reference.Floats, bits: int) -> reference.Floats:
    tensor = torch.from_numpy(values)
    out = torch.empty_like(tensor)
    quantise(tensor, compute_magnitude(tensor), bits, out)
    return out.numpy()


def make_values(kind: str, count: int = 257) -> reference.Floats:
    random = np.random.default_rng(5)
    normal = random.standard_normal(count).astype(np.float32)
    ties = ((random.integers(-254, 254, count) + 0.5) / 256).astype(np.float32)
    return {
        "normal": normal,
        "ties": np.append(ties, np.float32(127 / 128)),
        "negative": -np.abs(normal),
        "tiny": normal * np.float32(2.0**-39),
        "vanishing": np.clip(normal, -0.9, 0.9) * np.float32(2.0**-40),
        "subnormal beside large": np.append(normal, np.float32(2.0**-140)),
        "huge": np.clip(normal, -3.9, 3.9) * np.float32(2.0**58),
        "power of two": np.append(np.clip(normal, -0.9, 0.9), np.float32(1.0)),
        "just below a power of two": np.append(
            np.clip(normal, -0.9, 0.9), np.nextafter(np.float32(1.0), np.float32(0.0))
        ),
        "zeros": np.zeros(count, dtype=np.float32),
    }[kind]


@pytest.mark.parametrize("bits", [2, 8, 16, 20, 22])
@pytest.mark.parametrize(
    "kind",
    [
        "normal",
        "ties",
        "negative",
        "tiny",
        "vanishing",
        "subnormal beside large",
        "huge",
        "power of two",
        "just below a power of two",
        "zeros",
    ],
)
def test_quantise_is_the_definition(kind: str, bits: int) -> None:
    values = make_values(kind)
    expected = reference.to_floats(*reference.quantise(values, bits))
    np.testing.assert_array_equal(quantise_here(values, bits), expected)


def test_quantise_reports_an_exponent_above_its_values() -> None:
    values = torch.tensor([0.3, -1.0])
    out = torch.empty(2)
    exponent = quantise(values, compute_magnitude(values), 8, out)
    assert 2.0 ** (exponent - 1) <= out.abs().max() < 2.0**exponent


def test_each_image_has_its_own_scale() -> None:
    kinds = ("normal", "tiny", "zeros", "vanishing", "huge")
    values = np.stack([make_values(kind) for kind in kinds]).reshape(len(kinds), -1, 1, 1)
    got, is_valid, exponent = quantise_images(torch.from_numpy(values), 16)
    expected = [reference.to_floats(*reference.quantise(image, 16)) for image in values]
    np.testing.assert_array_equal(got.numpy(), np.stack(expected))
    assert is_valid.tolist() == [True] * len(kinds)
    assert float(got.abs().max()) < 2.0**exponent


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2.0**60, -(2.0**60)])
def test_invalid_values_end_the_step_and_void_their_image_alone(bad: float) -> None:
    values = torch.ones(3, 4)
    values[1, 2] = bad
    with pytest.raises(InvalidStep, match="not finite or has reached"):
        compute_magnitude(values)
    quantised, is_valid, _ = quantise_images(values, 16)
    assert is_valid.tolist() == [True, False, True]
    assert torch.equal(quantised, torch.tensor([[1.0], [0.0], [1.0]]).expand(3, 4))


def test_the_largest_valid_magnitude_is_just_below_the_limit() -> None:
    largest = np.nextafter(np.float32(2.0**60), np.float32(0))
    assert compute_magnitude(torch.tensor([-float(largest), 0.0])) == float(largest)


def make_matrix(
    shape: tuple[int, int], seed: int, scale: float = 1.0, *, saturated: bool = False
) -> reference.Floats:
    random = np.random.default_rng(seed)
    if saturated:
        return np.full(shape, scale * 127 / 128, dtype=np.float32)
    return (random.standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("bits", [6, 8, 12, 16, 20])
@pytest.mark.parametrize("products", [1, 40, 1024, 1025, 3000])
@pytest.mark.parametrize("saturated", [False, True])
def test_contraction_is_one_exact_sum_rounded_once(
    bits: int, products: int, saturated: bool
) -> None:
    left = make_matrix((2, products), 1, saturated=saturated)
    right = make_matrix((products, 3), 2, saturated=saturated)
    contraction = Contraction(bits)
    out = torch.empty(2, 3)
    contraction.contract(
        torch.from_numpy(quantise_here(left, bits)).to(contraction.dtype),
        torch.from_numpy(quantise_here(right, bits)).to(contraction.dtype),
        out,
    )
    np.testing.assert_array_equal(out.numpy(), reference.contract(left, right, bits))


def test_contraction_refuses_sums_that_float64_cannot_hold() -> None:
    contraction = Contraction(22)
    products = contraction.max_products + 1
    with pytest.raises(AssertionError, match="not exact"):
        contraction.contract(torch.zeros(1, products), torch.zeros(products, 1), torch.empty(1, 1))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 17, 64, 100])
def test_tree_sum_adds_in_the_fixed_order(rows: int) -> None:
    values = make_matrix((rows, 3), rows) * np.float32(1e3)
    tree = TreeSum(torch.empty(rows, 3))
    tree.buffer.copy_(torch.from_numpy(values))
    np.testing.assert_array_equal(tree.reduce().numpy(), reference.sum_tree(values.copy()))


def test_tree_sum_differs_from_adding_row_after_row() -> None:
    values = np.array([1.0, 2.0**-24, 2.0**-24, 2.0**-24], dtype=np.float32)[:, None]
    tree = TreeSum(torch.empty(4, 1))
    tree.buffer.copy_(torch.from_numpy(values))
    in_order = ((values[0] + values[1]) + values[2]) + values[3]
    assert tree.reduce().item() != in_order.item()


@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("scale", [0.01, 3.0, 300.0, 1e4])
def test_softmax_gradient_is_the_fixed_sequence(batch: int, scale: float) -> None:
    logits = make_matrix((batch, 10), batch, scale)
    logits[0, :2] = logits[0].max()  # a tie at the top
    labels = [index % 10 for index in range(batch)]
    got = SoftmaxGradient(batch, 10, CPU).compute(torch.from_numpy(logits), torch.tensor(labels))
    expected = reference.compute_softmax_gradient(logits, labels)
    np.testing.assert_array_equal(got.numpy(), expected)


def test_exp_of_the_reference_is_close_to_exp() -> None:
    for x in (-700.0, -100.3, -1.0, -1e-9, 0.0):
        assert reference.compute_exp(x) == pytest.approx(math.exp(x), rel=1e-15)


@pytest.mark.parametrize(
    "text",
    ["0.001", "0.0625", "0.1", "1e-5", "16777217", "16777219", "1e-45", "7e-46", "-0.3", "0"],
)
def test_decimal_strings_become_the_nearest_float32(text: str) -> None:
    value = Fraction(text)
    assert round_to_float32(value) == float(reference.round_to_float32(value))


def test_rounding_is_done_once() -> None:
    # Just above a tie of float32 by less than float64 can see: rounding twice would go down.
    value = 1 + Fraction(1, 2**24) + Fraction(1, 2**80)
    assert round_to_float32(value) == 1 + 2.0**-23


def test_rates_beyond_float32_are_refused() -> None:
    with pytest.raises(OverflowError):
        round_to_float32(Fraction(10) ** 39)


def test_an_inexact_process_is_refused_in_words() -> None:
    check_machine(CPU)
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(InexactMachine, match="set_float32_matmul_precision"):
            check_machine(CPU)
    finally:
        torch.set_float32_matmul_precision("highest")
    if torch.set_flush_denormal(True):
        try:
            with pytest.raises(InexactMachine, match="subnormal"):
                check_machine(CPU)
        finally:
            torch.set_flush_denormal(False)


def test_an_exact_process_is_not_refused(device: str) -> None:
    check_machine(open_device(device))


@pytest.mark.parametrize("lost_bits", [1, 30])
def test_a_device_that_multiplies_with_short_cuts_is_refused(
    monkeypatch: pytest.MonkeyPatch, lost_bits: int
) -> None:
    multiply = torch.mm

    def multiply_roughly(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = multiply(left, right)
        lost = 2.0 ** (lost_bits if product.dtype == torch.float64 else 0)
        return product.div_(lost).round_().mul_(lost)

    monkeypatch.setattr(torch, "mm", multiply_roughly)
    with pytest.raises(InexactMachine, match="float64 matrices of integers wrongly"):
        check_machine(CPU)


@pytest.mark.parametrize(
    "name", ["CUBLAS_EMULATE_DOUBLE_PRECISION", "CUBLAS_EMULATE_SINGLE_PRECISION"]
)
def test_emulated_products_of_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    check_machine(CPU)  # no matter there
    with pytest.raises(InexactMachine, match=f"{name}=1 .*unset it"):
        check_machine(torch.device("cuda"))
