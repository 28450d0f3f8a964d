"""Quantisation, exact contractions, tree sums and the softmax gradient against integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from pol_abci.learning.exact import contraction as contractions
from pol_abci.learning.exact.arithmetic import (
    InvalidStep,
    SoftmaxGradient,
    TreeSum,
    compute_magnitude,
    round_to_float32,
)
from pol_abci.learning.exact.contraction import (
    Contraction,
    DigitContraction,
    FloatContraction,
    Scale,
    choose_contraction,
    contract,
)
from pol_abci.learning.exact.machine import (
    InexactMachine,
    check_machine,
    multiplies_digits,
    open_device,
)
from tests.unit.learning import integer_reference as reference

CPU = torch.device("cpu")


KINDS: list[type[FloatContraction | DigitContraction]] = [FloatContraction, DigitContraction]
needs_digits = pytest.mark.skipif(
    not multiplies_digits(CPU), reason="this processor has no instructions for int8 products"
)


def quantise(contraction: Contraction, values: reference.Floats) -> tuple[torch.Tensor, Scale]:
    """Operand [D, …] and its scale."""
    tensor = torch.from_numpy(values)
    out = torch.full((contraction.digits, *tensor.shape), 77, dtype=contraction.stored)
    scale = contraction.quantise(tensor, compute_magnitude(tensor), out)
    return out[: scale.digits], scale


def quantise_and_restore(contraction: Contraction, values: reference.Floats) -> reference.Floats:
    operand, scale = quantise(contraction, values)
    out = torch.empty(operand.shape[1:])
    contraction.restore(operand, scale, out)
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


VALUES = [
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
]


@pytest.mark.parametrize("bits", [2, 8, 16, 20, 22])
@pytest.mark.parametrize("kind", VALUES)
def test_quantise_is_the_definition(kind: str, bits: int) -> None:
    values = make_values(kind)
    expected = reference.to_floats(*reference.quantise(values, bits))
    np.testing.assert_array_equal(quantise_and_restore(FloatContraction(bits), values), expected)


@pytest.mark.parametrize("bits", [2, 7, 8, 9, 12, 16])
@pytest.mark.parametrize("kind", VALUES)
def test_digits_are_of_the_same_integers(kind: str, bits: int) -> None:
    values = make_values(kind)
    expected = reference.to_floats(*reference.quantise(values, bits))
    np.testing.assert_array_equal(quantise_and_restore(DigitContraction(bits), values), expected)


def test_every_integer_of_16_bits_has_its_digits() -> None:
    integers = np.arange(-32_767, 32_768, dtype=np.float32)
    operand, scale = quantise(DigitContraction(16), integers)
    assert scale == Scale(0, 3)
    total = sum(256**i * operand[i].to(torch.int64) for i in range(3))
    assert torch.equal(torch.as_tensor(total), torch.arange(-32_767, 32_768))
    _, scale = quantise(DigitContraction(16), integers[integers <= 32_639])
    assert scale.digits == 3, "-32,767 has as many as 32,767"
    _, scale = quantise(DigitContraction(16), integers[np.abs(integers) <= 32_639])
    assert scale.digits == 2


@pytest.mark.parametrize("part", [1, 5, 1_000_000])
def test_digits_do_not_depend_on_the_parts_that_are_quantised(
    monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    values = make_matrix((31, 17), 3)
    expected, _ = quantise(DigitContraction(16), values)
    monkeypatch.setattr(contractions, "_PART_VALUES", part)
    assert torch.equal(quantise(DigitContraction(16), values)[0], expected)


@pytest.mark.parametrize("contraction", [FloatContraction(16), DigitContraction(16)])
def test_each_image_has_its_own_scale(contraction: Contraction) -> None:
    kinds = ("normal", "tiny", "zeros", "vanishing", "huge", "vanishing")
    values = np.stack([make_values(kind) for kind in kinds]).reshape(len(kinds), -1, 1, 1)
    values[-1, 0] = 32_700 / 32_768  # takes a third digit
    out = torch.empty(contraction.digits, *values.shape, dtype=contraction.stored)
    units, is_valid, digits = contraction.quantise_images(torch.from_numpy(values), out)
    restored = torch.empty(values.shape)
    contraction.restore(out, Scale(0, max(digits)), restored)
    expected = [reference.to_floats(*reference.quantise(image, 16)) for image in values]
    np.testing.assert_array_equal(
        restored.mul_(units[:, None, None, None]).numpy(), np.stack(expected)
    )
    assert is_valid.tolist() == [True] * len(kinds)
    ordinary = min(contraction.digits, 2)
    assert digits[0] == ordinary
    assert digits[-1] == contraction.digits, "one image needs a third digit for itself alone"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2.0**60, -(2.0**60)])
def test_invalid_values_end_the_step_and_void_their_image_alone(bad: float) -> None:
    values = torch.ones(3, 4)
    values[1, 2] = bad
    with pytest.raises(InvalidStep, match="not finite or has reached"):
        compute_magnitude(values)
    for contraction in (FloatContraction(16), DigitContraction(16)):
        out = torch.empty(contraction.digits, 3, 4, dtype=contraction.stored)
        units, is_valid, digits = contraction.quantise_images(values.clone(), out)
        assert is_valid.tolist() == [True, False, True]
        restored = torch.empty(3, 4)
        contraction.restore(out, Scale(0, max(digits)), restored)
        restored.mul_(units[:, None])
        assert torch.equal(restored, torch.tensor([[1.0], [0.0], [1.0]]).expand(3, 4))


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


def multiply_exactly(
    contraction: Contraction, left: reference.Floats, right: reference.Floats
) -> reference.Floats:
    (a, a_scale), (b, b_scale) = quantise(contraction, left), quantise(contraction, right)
    out = torch.empty(left.shape[0], right.shape[1])
    exponent = a_scale.exponent + b_scale.exponent
    a, b = a.to(contraction.dtype), b.to(contraction.dtype)
    contract(contraction, a, b, exponent, out)
    transposed = torch.empty_like(out)
    columns = a.transpose(1, 2).contiguous().transpose(1, 2)
    contract(contraction, columns, b, exponent, transposed)
    assert torch.equal(out, transposed)
    return out.numpy()


@pytest.mark.parametrize("bits", [6, 8, 12, 16, 20])
@pytest.mark.parametrize("products", [1, 40, 1024, 1025, 3000])
@pytest.mark.parametrize("saturated", [False, True])
def test_contraction_is_one_exact_sum_rounded_once(
    bits: int, products: int, saturated: bool
) -> None:
    left = make_matrix((2, products), 1, saturated=saturated)
    right = make_matrix((products, 3), 2, saturated=saturated)
    expected = reference.contract(left, right, bits)
    np.testing.assert_array_equal(multiply_exactly(FloatContraction(bits), left, right), expected)


@needs_digits
@pytest.mark.parametrize("bits", [2, 6, 8, 9, 12, 16])
@pytest.mark.parametrize("products", [1, 31, 32, 40, 1025, 3000])
@pytest.mark.parametrize("saturated", [False, True])
def test_products_of_digits_are_the_same(bits: int, products: int, saturated: bool) -> None:
    left = make_matrix((5, products), 1, saturated=saturated)
    right = make_matrix((products, 3), 2, saturated=saturated)
    left[0, 0] = -1.0 if saturated else left[0, 0]
    expected = reference.contract(left, right, bits)
    np.testing.assert_array_equal(multiply_exactly(DigitContraction(bits), left, right), expected)


@needs_digits
@pytest.mark.parametrize(("bits", "value"), [(8, 127), (16, 32_767), (16, 32_639), (16, -32_767)])
def test_the_longest_sums_of_digits_are_exact(bits: int, value: int) -> None:
    contraction = DigitContraction(bits)
    products = contraction.max_products
    left = np.full((1, products), value, dtype=np.float32)
    out = multiply_exactly(contraction, left, left.T.copy())
    assert out.item() == np.float32(products * value**2)


def test_contractions_refuse_sums_that_they_cannot_hold() -> None:
    with pytest.raises(AssertionError, match="not exact"):
        choose_contraction(
            22, CPU, products=1, shortest=1, longest=FloatContraction(22).max_products + 1
        )
    chosen = choose_contraction(
        16, CPU, products=2**30, shortest=512, longest=DigitContraction(16).max_products + 1
    )
    assert isinstance(chosen, FloatContraction)


def test_digits_are_not_used_where_a_kernel_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    """As oneDNN's do for processors that have AVX2 or AVX-512 and no VNNI."""

    def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        pairs = left.int()[:, :, None] * right.int()[None]
        pairs = pairs[:, : pairs.shape[1] // 2 * 2].view(len(left), -1, 2, right.shape[1])
        return pairs.sum(2).clamp_(-(2**15), 2**15 - 1).sum(1).int()

    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch, "_int_mm", multiply)
    multiplies_digits.cache_clear()
    try:
        assert not multiplies_digits(CPU)
    finally:
        multiplies_digits.cache_clear()


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
