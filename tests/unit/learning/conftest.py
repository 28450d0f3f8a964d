"""A digits task as the preset has it, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from pol_abci.learning.exact import contraction
from pol_abci.learning.exact.machine import CPU, list_devices, multiplies_digits
from pol_abci.learning.task import Task, load_task
from pol_abci.learning.walk import Head
from pol_abci.rules.seed import compute_first_seed
from tests.unit.learning.digits_task import CHAIN_ID, make_digits_params

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pol_abci.rules.params import Params

GPUS = list_devices()[1:] or ["cuda"]  # the one that is not there makes a test that says so


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small steps on more threads mostly wait; the golden walk runs on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["cpu", *(pytest.param(gpu, marks=pytest.mark.gpu) for gpu in GPUS)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device of this machine."""
    name: str = request.param
    return name


@pytest.fixture(params=["floats", "digits"])
def _each_contraction(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of every size by floats, then by digits where this processor can."""
    if request.param == "floats":
        monkeypatch.setattr(contraction, "multiplies_digits", lambda _device: False)
    elif multiplies_digits(CPU):
        monkeypatch.setattr(contraction, "_MIN_PRODUCTS_OF_DIGITS", 0)
        monkeypatch.setattr(contraction, "_MIN_SUM_OF_DIGITS", {1: 0, 3: 0})
    else:
        pytest.skip("this processor has no instructions for int8 products")


@pytest.fixture(scope="session")
def digits_params() -> Params:
    return make_digits_params()


@pytest.fixture(scope="session")
def digits_task(digits_params: Params) -> Task:
    return load_task(digits_params, None, CHAIN_ID)


@pytest.fixture
def first_head(digits_task: Task) -> Head:
    return Head(0, compute_first_seed(CHAIN_ID, bytes(32)), digits_task.initial_weights)
