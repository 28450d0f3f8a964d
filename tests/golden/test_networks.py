"""Residual networks come out the same on every device, instruction set and number of threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from pol_abci.learning.exact.converter import convert
from pol_abci.learning.exact.machine import list_devices
from pol_abci.learning.models import build_model
from tests.golden.networks import CLASSES, ResNet18, compute_networks, read_networks

GPUS = list_devices()[1:] or ["cuda"]  # the one that is not there makes a test that says so


@pytest.mark.parametrize(
    "device", ["cpu", *(pytest.param(gpu, marks=pytest.mark.gpu) for gpu in GPUS)]
)
def test_the_golden_networks_in_this_process(device: str) -> None:
    assert compute_networks(device) == read_networks()


def test_the_golden_networks_elsewhere() -> None:
    settings = {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.golden.networks"],
        check=True,
        capture_output=True,
        env={**os.environ, **settings},
    )
    assert json.loads(result.stdout) == read_networks()


def test_the_golden_resnet18_is_torchvisions() -> None:
    with torch.device("meta"):
        module = ResNet18(CLASSES)
    ours, theirs = convert(module, (32, 32, 3)), build_model("resnet18", (), (32, 32, 3), CLASSES)
    assert ours.describe() == theirs.describe()
    assert ours.tensors == theirs.tensors
