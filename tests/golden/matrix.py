"""The golden walk and networks under two versions of torch and several settings of each: one table.

    python -m tests.golden.matrix

The second torch goes to the user's cache, once: a wheel of 510 MB, and the one library of CUDA that
it wants beside those of the first. All else is this environment's, so that torch alone differs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pol_abci.cache_folder import get_cache_folder
from pol_abci.learning.golden import read_golden_walk
from tests.golden.networks import read_networks

ROOT = Path(__file__).parents[2]
OTHER_TORCH = "2.11.0"  # the oldest whose CUDA is that of the newest: import torch loads all of it
PACKAGES = (f"torch=={OTHER_TORCH}", "nvidia-curand==10.4.5.25")
SETTINGS: tuple[dict[str, str], ...] = (
    {"OMP_NUM_THREADS": "1"},
    {"OMP_NUM_THREADS": "2"},
    {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default"},
    {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"},
    {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"},  # its int8 products saturate
    {"OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE"},
    {"OMP_NUM_THREADS": "2", "MKL_CBWR": "AVX2", "PYTHONHASHSEED": "1"},
)
WALK = """
import json, torch
from pol_abci.learning.golden import compute_golden_walk
from pol_abci.learning.exact.machine import CPU, multiplies_digits
from tests.golden.networks import compute_networks
print(json.dumps({
    "torch": torch.__version__.partition("+")[0],
    "kernels": torch.backends.cpu.get_cpu_capability(),
    "threads": torch.get_num_threads(),
    "products": "digits" if multiplies_digits(CPU) else "floats",
    "made": compute_golden_walk(),
    "networks": compute_networks(),
}))
"""


def main() -> int:
    """Print the table; 1 when a walk came out otherwise."""
    expected = (read_golden_walk()["made"], read_networks())
    columns = (
        "settings",
        "torch",
        "kernels",
        "threads",
        "products",
        "last weights of the walk, of resnet18",
    )
    table = Table(*columns, "")
    are_same = []
    for folder in (None, install_other_torch()):
        for settings in SETTINGS:
            walk = run_walk(folder, settings)
            assert folder is None or walk["torch"] == OTHER_TORCH, "the other torch was passed over"
            are_same.append((walk["made"], walk["networks"]) == expected)
            table.add_row(
                " ".join(f"{name}={value}" for name, value in settings.items()),
                *(str(walk[name]) for name in ("torch", "kernels", "threads", "products")),
                f"{walk['made']['last_root'][:16]} "
                f"{walk['networks']['resnet18 16/8']['weights'][:16]}",
                "same" if are_same[-1] else "DIFFERS",
            )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print(f"{sum(are_same)} of {len(are_same)} are the golden walk and networks, bit for bit.")  # noqa: T201
    return 0 if all(are_same) else 1


def install_other_torch() -> Path:
    """The folder that has the other torch, made where it is not there."""
    folder = get_cache_folder() / f"torch-{OTHER_TORCH}-{sys.implementation.cache_tag}"
    if folder.is_dir():
        return folder
    print(f"Installing torch {OTHER_TORCH} into {folder}, once (1.3 GB on disk).", flush=True)  # noqa: T201
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="torch-", dir=folder.parent))
    try:
        uv = str(Path(sys.executable).with_name("uv"))
        options = ("--quiet", "--no-deps", "--python", sys.executable, "--target", str(made))
        subprocess.run([uv, "pip", "install", *options, *PACKAGES], check=True)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made)
        raise
    return folder


def run_walk(folder: Path | None, settings: dict[str, str]) -> dict[str, Any]:
    """Walk in a process of its own, with the torch of `folder`."""
    environment = {k: v for k, v in os.environ.items() if k != "MKL_NUM_THREADS"}
    path = [str(ROOT)] if folder is None else [str(folder), str(ROOT)]
    environment |= {"PYTHONPATH": os.pathsep.join(path), **settings}
    run = subprocess.run(
        [sys.executable, "-c", WALK], env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    walk: dict[str, Any] = json.loads(run.stdout)
    return walk


if __name__ == "__main__":
    sys.exit(main())
