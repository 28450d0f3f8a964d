"""For all tests: torch on one thread, since two cores are shared with the processes under test.

Tests marked `gpu` are skipped, and say so, where there is no GPU; with --require-gpu they fail.
"""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-gpu", action="store_true", help="fail, not skip, without a GPU")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several workers one has all real nodes, one test after the other; files stay whole."""
    for item in items:
        group = "nodes" if item.get_closest_marker("e2e") else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    import torch  # noqa: PLC0415 (most tests do without)

    if torch.cuda.device_count() == 0:
        missing = "torch finds no GPU on this machine: what this test shows is not shown here"
        if item.config.getoption("--require-gpu"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
