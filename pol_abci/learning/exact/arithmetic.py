"""The exact operations of protocol section 3 that layers are made of.

Everything here gives the same bits on every processor, thread count, instruction set and torch
version, from the definition alone: contractions are exact sums rounded once, sums are fixed
halving trees, and the rest is one IEEE operation at a time. Nothing fused, no library
convolution, softmax or norm; no autograd.

Legend of shapes: N images, R rows (image, y, x), K products to a sum, O outputs, C channels or
classes. Tensors are float32 unless said otherwise.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGNITUDE_LIMIT = 2.0**60
"""An input of Q, a weight or a statistic of at least this size makes its step invalid."""
ZERO_LIMIT = 2.0**-40
"""Tensors below this are quantised to zeros, which keeps every product a normal number."""
_FLOAT32_BITS = 24
_FLOAT32_MAX_EXPONENT = 127

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.6931471803691238
_LN2_LOW = 1.9082149292705877e-10
_EXP_COEFFICIENTS = tuple(1.0 / math.factorial(i) for i in range(13, -1, -1))
_MIN_EXP_ARGUMENT = -700.0


class InvalidStep(PolError):
    """A step whose values are not finite or reach 2^60: the walk that made it ends there."""


def round_to_float32(value: Fraction) -> float:
    """The float32 nearest to an exact value, ties to even, as a Python float.

    Raises
    ------
    OverflowError
        For a value that no finite float32 is nearest to.
    """
    if value == 0:
        return 0.0
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - (_FLOAT32_BITS - 1), -149)
    rounded = float(round(magnitude / unit) * unit)  # Fraction rounds half to even
    if rounded >= 2.0 ** (_FLOAT32_MAX_EXPONENT + 1):
        raise OverflowError(f"{float(value)} is beyond float32")
    return rounded if value > 0 else -rounded


def compute_magnitude(values: Tensor) -> float:
    """max|values|, m of the protocol's Q.

    Raises
    ------
    InvalidStep
        When it is not a number or at least 2^60.
    """
    lowest, highest = torch.aminmax(values)
    magnitude = max(-lowest.item(), highest.item())
    # aminmax gives NaN for both when any value is one; the comparison is false then.
    if not magnitude < MAGNITUDE_LIMIT:
        raise InvalidStep("a value of the step is not finite or has reached 2^60")
    return magnitude


def power_of_two(exponents: Tensor) -> Tensor:
    """2^exponents as float64 for -1022 <= exponents <= 1023, made of bits: `pow` may round."""
    return exponents.to(torch.int64).add_(1023).bitwise_left_shift_(52).view(torch.float64)


def compute_inverse_root(values: Tensor, one: Tensor) -> Tensor:
    """RN32(1 / RN32(sqrt(values))) of float32 values; `one` is a tensor of 1.0.

    torch's float32 sqrt comes from a vector library on some processors, which is wrong in the last
    bit for one value in six. A float64 root rounds to the right float32 even when it is some ulps
    off: roots of float32 numbers keep 2^-50 of their exponent away from where rounding turns.
    """
    return torch.div(one, values.double().sqrt_().float())


def pass_above(gradient: Tensor, values: Tensor, threshold: float, out: Tensor) -> Tensor:
    """Write `gradient` where `values` are above the threshold, else 0, to `out`, which may be it.

    Chosen, not multiplied: infinity times 0 is no number. `where` takes five times as long.
    """
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(
        gradient, values, threshold, grad_input=out
    )
    return result


class TreeSum:
    """The fixed halving tree over the rows of a buffer [rows, …] that the caller fills.

    With h the largest power of two below the number of rows, rows h… are added onto rows 0…,
    then halves until one is left. `sum` leaves its argument as it is.
    """

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer
        self._halvings: list[tuple[Tensor, Tensor]] = []
        rows = buffer.shape[0]
        while rows > 1:
            half = 1 << ((rows - 1).bit_length() - 1)
            self._halvings.append((self.buffer[: rows - half], self.buffer[half:rows]))
            rows = half
        self._sum = self.buffer[0]

    def reduce(self) -> Tensor:
        """Sum the buffer's rows, destroying it; the result is its first row."""
        return self._reduce(self._halvings)

    def sum(self, rows: Tensor) -> Tensor:
        """Sum other rows than the buffer's, of its shape; the result is the buffer's first row."""
        if not self._halvings:
            return self._sum.copy_(rows[0])
        low, high = self._halvings[0]
        added, half = len(low), len(rows) - len(high)
        torch.add(rows[:added], rows[half:], out=low)
        if added < half:
            self.buffer[added:half].copy_(rows[added:half])
        return self._reduce(self._halvings[1:])

    def _reduce(self, halvings: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        for low, high in halvings:
            low.add_(high)
        return self._sum


def compute_exp(x: Tensor) -> Tensor:
    """The protocol's exp of float64 -700 <= x <= 0: a fixed sequence, not correctly rounded."""
    k = torch.mul(x, _LOG2_E).round_()
    r = torch.sub(x, torch.mul(k, _LN2_HIGH)).sub_(torch.mul(k, _LN2_LOW))
    polynomial = torch.full_like(r, _EXP_COEFFICIENTS[0])
    for coefficient in _EXP_COEFFICIENTS[1:]:
        polynomial.mul_(r).add_(coefficient)
    return polynomial.mul_(power_of_two(k))


class SoftmaxGradient:
    """Gradient of the mean cross-entropy with respect to logits [N, C], computed in float64."""

    def __init__(self, batch_size: int, classes: int, device: torch.device) -> None:
        self._sum = TreeSum(torch.empty(classes, batch_size, dtype=torch.float64, device=device))
        self._one_hot = torch.eye(classes, dtype=torch.float64, device=device)
        self._batch_size = torch.tensor([float(batch_size)], dtype=torch.float64, device=device)

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        """RN32((softmax(logits) - one-hot(labels)) / N); labels int64 [N]."""
        x = logits.double()
        x.sub_(x.amax(1, keepdim=True)).clamp_min_(_MIN_EXP_ARGUMENT)
        powers = compute_exp(x)
        powers.div_(self._sum.sum(powers.t())[:, None])
        return powers.sub_(self._one_hot[labels]).div_(self._batch_size).float()
