"""Whether this process and a device compute as IEEE 754 says, looked at before anything is trained.

The arithmetic of protocol section 3 asks for little: exact products and sums of small integers,
and single operations that are rounded once. What libraries and processors can be told to do instead
is refused here, in words; `pol_abci.learning.golden` holds a whole walk against what it must be.
"""

from __future__ import annotations

import os
import sys
from functools import cache

import torch

from pol_abci.rules.errors import PolError

CPU = torch.device("cpu")

_BITS_OF_HALVED_NORMAL = 1 << 22
_FULL_PRECISION = ("none", "ieee")
_EMULATION_VARIABLES = ("CUBLAS_EMULATE_DOUBLE_PRECISION", "CUBLAS_EMULATE_SINGLE_PRECISION")
"""cuBLAS 13 makes float64 products of 8-bit integers, float32 ones of bfloat16, when told so."""
_SIDE = 256
"""Rows and columns of a product looked at: enough for the kernels that big layers get."""


class DeviceMissing(PolError):
    """A device that torch cannot compute on here."""


class InexactMachine(PolError):
    """A process that computes otherwise than IEEE 754 says: it would fork from its chain."""


def open_device(name: str) -> torch.device:
    """Torch's device of this name, tried.

    Raises
    ------
    DeviceMissing
        When this machine, or this torch, has none.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # not "meta", which holds no values
    except (RuntimeError, AssertionError) as error:  # what torch raises differs by device
        reason = str(error).partition("\n")[0]
        raise DeviceMissing(f"no device {name!r} here: use cpu ({reason})") from error
    return device


def main() -> None:
    """Open the device that the first argument names; say in words what is wrong with it."""
    try:
        open_device(sys.argv[1])
    except DeviceMissing as missing:
        sys.exit(f"error: {missing}")


def list_devices() -> list[str]:
    """Torch's names of the devices that a chain can be trained on here."""
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


def describe_device(name: str) -> str:
    """The name of a device's hardware beside torch's name of it."""
    if torch.device(name).type != "cuda":
        return name
    return f"{name} ({torch.cuda.get_device_name(name)})"


def check_machine(device: torch.device) -> None:
    """Refuse a process in which torch or the device has been told to be quick and inexact.

    Raises
    ------
    InexactMachine
        With what to change.
    """
    for precision in (
        torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]  # of a module that replaces itself
        torch.backends.cuda.matmul.fp32_precision,
    ):
        if precision not in _FULL_PRECISION:
            raise InexactMachine(
                f"torch multiplies float32 matrices at reduced precision ({precision}) in this "
                'process: call torch.set_float32_matmul_precision("highest"), and unset '
                "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
            )
    if device.type == "cuda":
        _check_cublas_environment()
    # 33 elements reach the vectorised part and the remainder of a kernel alike.
    # Bits are compared, because a processor that flushes also takes subnormals for equal to 0.
    halves = torch.full((33,), 2.0**-126, device=device).mul_(0.5)
    if not bool((halves.view(torch.int32) == _BITS_OF_HALVED_NORMAL).all()):
        raise InexactMachine(
            "subnormal numbers are flushed to zero in this process: remove whatever calls "
            "torch.set_flush_denormal(True) or was compiled with fast math"
        )
    for dtype, operand_bits, products in ((torch.float32, 7, 2**10), (torch.float64, 21, 2**11)):
        _check_products(device, dtype, operand_bits, products)


@cache
def multiplies_digits(device: torch.device) -> bool:
    """Whether int8 matrices are multiplied exactly on a device, by instructions made for it.

    Kernels for processors without them may saturate sums of two products at 16 bits, and would be
    slower than floats. They do so at the extremes, which are looked at.
    """
    if device.type != "cpu" or not torch.cpu._is_vnni_supported():  # noqa: SLF001 - it has no other name
        return False
    for rows, products, columns in ((1, 64, 8), (4, 512, 512), (_SIDE, 147, 64), (64, 1152, 100)):
        for left, right in ((127, 127), (127, -128), (-128, 127), (-128, -128)):
            a = torch.full((rows, products), left, dtype=torch.int8)
            b = torch.full((products, columns), right, dtype=torch.int8)
            for transposed in (a, a.t().contiguous().t()):
                product = torch._int_mm(transposed, b)  # noqa: SLF001 - as above
                if not bool((product == left * right * products).all()):
                    return False
    return True


def _check_cublas_environment() -> None:
    for name in _EMULATION_VARIABLES:
        if os.environ.get(name, "0") != "0":
            raise InexactMachine(
                f"{name}={os.environ[name]} lets cuBLAS multiply matrices by other means than "
                "the processor's own arithmetic: unset it"
            )


def _check_products(
    device: torch.device, dtype: torch.dtype, operand_bits: int, products: int
) -> None:
    """Hold a matrix product that uses each bit of `dtype` against integers.

    Each row of the left matrix repeats one odd number, and so does each column of the right one but
    for 1 less in its first row: the result is known without a second product, and is odd.
    """
    odd = 2**operand_bits - 1 - 2 * (torch.arange(_SIDE) % 2 ** (operand_bits - 1))
    left = odd.to(device, dtype)[:, None].repeat(1, products)
    right = odd.flip(0).to(device, dtype)[None, :].repeat(products, 1)
    right[0] -= 1
    expected = odd[:, None] * (odd.flip(0)[None, :] * products - 1)
    if not torch.equal(torch.mm(left, right).cpu().to(torch.int64), expected):
        raise InexactMachine(
            f"{device} multiplies {dtype} matrices of integers wrongly, where exact results fit: "
            "a library on it takes short cuts; use cpu, and report this with `pol-abci version`"
        )


if __name__ == "__main__":
    main()
