"""Exact products of quantised matrices by whole numbers; the contractions of protocol section 3.

A quantised tensor is integers times a unit, which is a power of two. Operands hold the integers
alone, as floats or as digits of 8 bits, so that sums neither round nor overflow. RN32 is taken of
the sum of integers, and its product with the two units is exact: 2^-40 and 2^60 keep it normal.

Operands have an axis of digits in front: [D, R, K] and [D, K, O] for a product [R, O]. A tensor is
quantised into [D, …] of the type `stored`; a product takes operands of the type `dtype`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from pol_abci.learning.exact.arithmetic import MAGNITUDE_LIMIT, ZERO_LIMIT, power_of_two
from pol_abci.learning.exact.machine import multiplies_digits

if TYPE_CHECKING:
    from torch import Tensor

MAX_BITS = 22
"""Above it the rounding by addition no longer holds."""

_FLOAT32_BITS = 24
_FLOAT64_BITS = 53
_INT32_BITS = 32
_MIN_BLOCK = 64  # shorter float32 sums cost more joins than a float64 product does
_ROUND = torch.tensor(1.5 * 2.0 ** (_FLOAT32_BITS - 1))
"""A float32 of [2^23, 2^24) has the unit 1: adding this rounds half to even to an integer."""
_ROUND_BITS = int(_ROUND.view(torch.int32))
"""The float's own bits: those of the sum are this integer more than the one rounded to."""
_DIGIT_BITS = 8
_MAX_DIGITS = 3
_MAX_DIGIT_BITS = 16
"""Of operands that digits are worth their products for: nine are no quicker than float64."""
_MIN_PRODUCTS_OF_DIGITS = 2**20
"""Smaller products cost less than what is done to their digits."""
_MIN_SUM_OF_DIGITS = {1: 32, _MAX_DIGITS: 512}
"""By digits: shorter sums cost less than what is done to their results."""
_MIN_DIGITS_OF_SUM = 32
"""Shorter sums of digits are made quicker as floats: what counts then is the writing of results."""
_PART_VALUES = 2**16
"""So many are quantised at once: their roundings stay in a core's cache."""


class Scale(NamedTuple):
    """The unit 2^exponent of a quantised tensor, and how many of its digits are in use."""

    exponent: int
    digits: int


class Contraction(Protocol):
    """How matrices of `bits`-bit operands are multiplied; every way gives the same bits."""

    bits: int
    stored: torch.dtype
    dtype: torch.dtype
    digits: int
    """Length of the first axis of what is quantised."""
    max_products: int
    """To a sum that is exact."""

    def quantise(self, values: Tensor, magnitude: float, out: Tensor) -> Scale:
        """Write the integers of Q(values) to `out` [digits, …]; any strides.

        `magnitude` is `compute_magnitude(values)`.
        """
        ...

    def quantise_images(self, values: Tensor, out: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """Q with a scale of each image, into `out` [digits, N, …]: batches do not matter then.

        Returns units float32 [N]; bool [N], false for images with a value that is not finite or
        reaches 2^60 (their integers become zeros); and of each image the digits in use. What lies
        above those is zero, or undefined where no image uses it.
        """
        ...

    def restore(self, quantised: Tensor, scale: Scale, out: Tensor) -> None:
        """Write Q(values) to `out` float32, from what `quantise` made of them."""
        ...

    def choose_sum_dtype(self, products: int) -> torch.dtype:
        """The type that holds sums of so many products of integers exactly."""
        ...

    def multiply(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """The exact left [D, R, K] @ right [D', K, O], integers of `choose_sum_dtype(K)`.

        Written to `out` [R, O] where that is given, of that type or a wider one.
        """
        ...


def make_operand(
    contraction: Contraction, values: Tensor, magnitude: float, stored: Tensor
) -> tuple[Tensor, Scale]:
    """Quantise into `stored` [digits, …]; the operand [D, …] of the digits in use."""
    scale = contraction.quantise(values, magnitude, stored)
    return stored[: scale.digits].to(contraction.dtype), scale


def contract(
    contraction: Contraction, left: Tensor, right: Tensor, exponent: int, out: Tensor
) -> Tensor:
    """Write RN32 of the exact product, in units of 2^exponent, to `out` [R, O] and return it."""
    assert left.shape[2] <= contraction.max_products, "this sum would not be exact"
    return out.copy_(contraction.multiply(left, right)).mul_(2.0**exponent)


def choose_contraction(
    bits: int, device: torch.device, *, products: int, shortest: int, longest: int
) -> Contraction:
    """The quickest way here for so many scalar products, in sums of `shortest` to `longest`."""
    if bits <= _MAX_DIGIT_BITS and products >= _MIN_PRODUCTS_OF_DIGITS:
        contraction = DigitContraction(bits)
        is_worth_it = shortest >= _MIN_SUM_OF_DIGITS[contraction.digits]
        if is_worth_it and longest <= contraction.max_products and multiplies_digits(device):
            return contraction
    floats = FloatContraction(bits)
    assert longest <= floats.max_products, f"a sum of {longest} products is not exact"
    return floats


def _find_unit(magnitude: float, bits: int) -> int:
    """Exponent of the unit of a tensor with this max|values|."""
    # Exact in float64: a float32 and bits <= 22.
    return math.frexp(magnitude * (1.0 + 2.0 ** (1 - bits)))[1] - bits + 1


class _Images(NamedTuple):
    rounded: Tensor
    """_ROUND + integers, [N, values]."""
    units: Tensor
    is_valid: Tensor
    tops: list[float]
    """The greatest integer's magnitude, by image."""


def _round_images(values: Tensor, bits: int) -> _Images:
    rows = values.reshape(values.shape[0], -1)
    lowest, highest = torch.aminmax(rows, dim=1)
    magnitude = torch.maximum(lowest.neg_(), highest)
    is_valid = magnitude < MAGNITUDE_LIMIT
    is_zero = (magnitude < ZERO_LIMIT).logical_or_(is_valid.logical_not())
    magnitude = magnitude.masked_fill_(is_zero, ZERO_LIMIT).double()
    exponents = torch.frexp(torch.mul(magnitude, 1.0 + 2.0 ** (1 - bits))).exponent - (bits - 1)
    inverse = power_of_two(-exponents)
    # The device is asked once.
    *tops, zeros = torch.cat((magnitude.mul_(inverse).round_(), is_zero.sum()[None])).tolist()
    rounded = torch.mul(rows, inverse.float()[:, None]).add_(_ROUND)
    if zeros:
        rounded.masked_fill_(is_zero[:, None], _ROUND.item())
    return _Images(rounded, power_of_two(exponents).float(), is_valid, tops)


class FloatContraction:
    """Integers as floats, of which sums are exact as long as they fit the mantissa.

    A sum of K products of integers below 2^(bits-1) is exact in float32, whatever its order and
    with or without fused operations, while K <= 2^(24 - 2(bits-1)); in float64 while
    2(bits-1) + log2 K <= 53. Longer float32 sums are cut into blocks joined in float64.
    """

    stored = torch.float32
    digits = 1

    def __init__(self, bits: int) -> None:
        assert 2 <= bits <= MAX_BITS, f"{bits} bits: 2 to {MAX_BITS} are defined"  # noqa: PLR2004 - a sign and a digit
        product_bits = 2 * (bits - 1)
        self.bits = bits
        self.max_products = 2 ** (_FLOAT64_BITS - product_bits)
        block = 2 ** max(_FLOAT32_BITS - product_bits, 0)
        self._block = block if block >= _MIN_BLOCK else 0
        self.dtype = torch.float32 if self._block else torch.float64

    def quantise(self, values: Tensor, magnitude: float, out: Tensor) -> Scale:
        """See `Contraction`."""
        if magnitude < ZERO_LIMIT:
            out.zero_()
            return Scale(0, 1)
        unit = _find_unit(magnitude, self.bits)
        # The product with a power of two is exact, so it does not matter whether this is fused.
        torch.add(_ROUND, values, alpha=2.0**-unit, out=out[0])
        out.sub_(_ROUND)
        return Scale(unit, 1)

    def quantise_images(self, values: Tensor, out: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """See `Contraction`."""
        images = _round_images(values, self.bits)
        torch.sub(images.rounded.view(values.shape), _ROUND, out=out[0])
        return images.units, images.is_valid, [1] * len(values)

    def restore(self, quantised: Tensor, scale: Scale, out: Tensor) -> None:
        """See `Contraction`."""
        torch.mul(quantised[0], 2.0**scale.exponent, out=out)

    def choose_sum_dtype(self, products: int) -> torch.dtype:
        """See `Contraction`."""
        return torch.float32 if products <= self._block else torch.float64

    def multiply(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """See `Contraction`."""
        left, right = left[0], right[0]
        products = left.shape[1]
        if not self._block or products <= self._block:
            if out is None or out.dtype == self.dtype:
                return torch.mm(left, right, out=out)
            return out.copy_(torch.mm(left, right))
        size = -(-products // -(-products // self._block))
        total = torch.mm(left[:, :size], right[:size]).double()
        for start in range(size, products, size):
            total += torch.mm(left[:, start : start + size], right[start : start + size])
        return total if out is None else out.copy_(total)


class DigitContraction:
    """Integers as digits to the base 256, from -128 to 127, multiplied by int8 instructions.

    Products of digits are summed in int32, and sums of equal weight joined in float64: all exact.
    One digit holds 8 bits, two hold 16 unless an integer is 32,640 or more, which takes a third.
    """

    stored = dtype = torch.int8

    def __init__(self, bits: int) -> None:
        assert 2 <= bits <= _MAX_DIGIT_BITS  # noqa: PLR2004 - a sign and a digit
        self.bits = bits
        # Of 8 bits none is -128. Two products of digits that may be have the same weight.
        largest, self.digits, equal = (127, 1, 1) if bits <= _DIGIT_BITS else (128, _MAX_DIGITS, 2)
        self.max_products = (2 ** (_INT32_BITS - 1) - 1) // (equal * largest**2)

    def quantise(self, values: Tensor, magnitude: float, out: Tensor) -> Scale:
        """See `Contraction`."""
        if magnitude < ZERO_LIMIT:
            out[:1].zero_()
            return Scale(0, 1)
        unit = _find_unit(magnitude, self.bits)
        digits = _count_digits(round(magnitude * 2.0**-unit))
        at_once = max(1, _PART_VALUES * len(values) // values.numel())
        for part, target in zip(
            torch.split(values, at_once), torch.split(out[:digits], at_once, 1), strict=True
        ):
            rounded = torch.add(_ROUND, part, alpha=2.0**-unit)
            _write_digits(rounded, target)
        return Scale(unit, digits)

    def quantise_images(self, values: Tensor, out: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """See `Contraction`."""
        images = _round_images(values, self.bits)
        digits = [_count_digits(top) for top in images.tops]
        _write_digits(images.rounded.view(values.shape), out[: max(digits)])
        return images.units, images.is_valid, digits

    def restore(self, quantised: Tensor, scale: Scale, out: Tensor) -> None:
        """See `Contraction`."""
        out.copy_(quantised[scale.digits - 1])
        for digit in reversed(range(scale.digits - 1)):
            out.mul_(2.0**_DIGIT_BITS).add_(quantised[digit])
        out.mul_(2.0**scale.exponent)

    def choose_sum_dtype(self, products: int) -> torch.dtype:
        """See `Contraction`."""
        if self.digits > 1:
            return torch.float64
        return torch.int32 if products >= _MIN_DIGITS_OF_SUM else torch.float32

    def multiply(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """See `Contraction`."""
        if self.digits == 1 and left.shape[2] < _MIN_DIGITS_OF_SUM:
            product = torch.mm(left[0].float(), right[0].float())
            return product if out is None else out.copy_(product)
        if self.digits == 1:
            return torch._int_mm(left[0], right[0], out=out)  # noqa: SLF001 - torch has no other name for it
        by_weight: list[Tensor] = []
        for j, digits in enumerate(right):
            for i, product in enumerate(_multiply_each(left, digits)):
                if i + j < len(by_weight):
                    by_weight[i + j].add_(product)
                else:
                    by_weight.append(product)
        # Whole numbers below 2^53: whether product and sum are fused does not matter.
        total = by_weight[0].double()
        for weight, products in enumerate(by_weight[1:], start=1):
            total.add_(products, alpha=2.0 ** (_DIGIT_BITS * weight))
        return total if out is None else out.copy_(total)


def _multiply_each(left: Tensor, right: Tensor) -> list[Tensor]:
    """int32 [R, O] for each digit of `left` [D, R, K]: in one product where they lie in a row."""
    if left.is_contiguous():
        product = torch._int_mm(left.flatten(0, 1), right)  # noqa: SLF001 - as above
        return list(product.view(len(left), -1, right.shape[1]))
    return [torch._int_mm(digit, right) for digit in left]  # noqa: SLF001 - as above


def _count_digits(top: float) -> int:
    """Digits that integers up to `top` in magnitude need."""
    digits, limit = 1, 127
    while top > limit:
        digits, limit = digits + 1, limit * 256 + 127
    return digits


def _write_digits(rounded: Tensor, out: Tensor) -> None:
    """Write balanced digits of `rounded` - _ROUND to `out` [D, …]; destroys `rounded`."""
    integers = rounded.view(torch.int32)
    if len(out) == _MAX_DIGITS:  # the third byte of the constant is not zero
        integers.sub_(_ROUND_BITS)
    for digit in out[:-1]:
        digit.copy_(integers)  # the lowest byte
        integers.add_(2 ** (_DIGIT_BITS - 1)).bitwise_right_shift_(_DIGIT_BITS)
    out[-1].copy_(integers)
