"""For all tests: torch on one thread, since two cores are shared with the processes under test.

Tests marked `gpu` are skipped, and say so, where there is no GPU; with --require-gpu they fail.
"""

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

NODES, NETWORKS = "tests/e2e/", "tests/network/"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-gpu", action="store_true", help="fail, not skip, without a GPU")


class OneWorkerHasAllNodes(LoadScopeScheduling):  # type: ignore[misc]  # xdist is untyped
    """Of several workers one has all single nodes, and one all networks; other files stay whole.

    xdist's own `--dist loadgroup` writes groups where this pytest does not look for them.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return next((folder for folder in (NODES, NETWORKS) if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneWorkerHasAllNodes:
    return OneWorkerHasAllNodes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Single nodes first, which take longest; networks last, when the other worker is free."""

    def rank(item: pytest.Item) -> int:
        if item.nodeid.startswith(NETWORKS):
            return 2
        return 0 if item.nodeid.startswith(NODES) else 1

    items.sort(key=rank)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    import torch  # noqa: PLC0415 (most tests do without)

    if torch.cuda.device_count() == 0:
        missing = "torch finds no GPU on this machine: what this test shows is not shown here"
        if item.config.getoption("--require-gpu"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
