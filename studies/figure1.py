"""Figure 1 of the paper: a real chain grows, and plain SGD does as many steps beside it.

    python studies/figure1.py PRESET [--generations N] [--target-interval S] [--data-dir FOLDER]

The chain is kept in `--folder`, study-runs: one that was stopped goes on. Its data, the figure and
a row of the table are written into docs/figures. The miner runs beside `pol-abci up`, so that its
own count of steps can be read.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import torch

from benchmarks.table import describe_machine
from pol_abci.cli.figure import draw_figure
from pol_abci.cli.history import EmptyChain, History, StoreMissing, encode_history
from pol_abci.cli.pace import compute_pace
from pol_abci.cli.plot import load_history
from pol_abci.learning.task import load_task
from pol_abci.node.home import load_home
from pol_abci.rules.params import PaperParams
from studies.plain_sgd import train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pol_abci.node.home import Home
    from pol_abci.rules.params import Params

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
DOCUMENT = FIGURES / "README.md"
METRICS = "127.0.0.1:29680"
RPC_PORT, P2P_PORT = 29677, 29676
"""Not CometBFT's own choice: a node of the user's may run there."""
STEPS = re.compile(r"^pol_miner_steps_total (\S+)$", re.MULTILINE)
CLI = (sys.executable, "-m", "pol_abci.cli")
COUNTS = 20
"""Times that plain SGD is held against E on its way."""


def make_home(
    path: Path, preset: str, target_interval_s: float | None, data_dir: Path | None
) -> Home:
    """The chain's home, made where it is not there yet."""
    if not path.exists():
        data = [] if data_dir is None else ["--data-dir", str(data_dir)]
        pace = [] if target_interval_s is None else ["--target-interval", str(target_interval_s)]
        ports = ["--rpc-port", str(RPC_PORT), "--p2p-port", str(P2P_PORT)]
        names = ["--preset", preset, "--chain-id", path.name]
        command = [*CLI, "init", "--home", str(path), *names, *pace, *data, *ports]
        subprocess.run(command, check=True)  # noqa: S603 - this package's own command
    return load_home(path)


def count_generations(home: Home) -> int:
    """How many the chain has."""
    try:
        return len(load_history(home).records)
    except (StoreMissing, EmptyChain):
        return 0


def grow(home: Home, generations: int, data_dir: Path | None) -> int:
    """Let the chain grow by so many generations; the steps that its miner did."""
    up = subprocess.Popen(  # noqa: S603 - this package's own command
        [*CLI, "up", "--no-mine", "--home", str(home.path), "--generations", str(generations)]
    )
    mine = subprocess.Popen(  # noqa: S603 - this package's own command
        [
            *(*CLI, "mine", "--node", home.settings.rpc_url, "--key", str(home.account_file)),
            *("--metrics", METRICS, "--json"),
            *([] if data_dir is None else ["--data-dir", str(data_dir)]),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    steps = 0
    try:
        while up.poll() is None:
            time.sleep(1.0)
            try:
                text = httpx.get(f"http://{METRICS}/metrics", trust_env=False).text
            except httpx.TransportError:
                continue
            if (found := STEPS.search(text)) is not None:
                steps = int(float(found[1]))
    finally:
        for process in (mine, up):
            process.terminate()
            process.wait()
    return steps


def count_steps_done(path: Path, more: int) -> int:
    """Steps of all runs of a chain, `more` of them just now."""
    file = path.with_suffix(".steps.json")
    steps = more + (json.loads(file.read_text()) if file.exists() else 0)
    file.write_text(json.dumps(steps))
    return int(steps)


def count_steps_reached(params: Params, history: History, steps_done: int) -> NDArray[np.int64]:
    """Steps that lie in the head of each generation, from 0 on.

    A record of the paper's scheme does not say how many. At most all that its only miner did, which
    are spread evenly here: what it walks between a ticket and its block is lost.
    """
    if isinstance(params.scheme, PaperParams):
        return np.linspace(0, steps_done, len(history.records) + 1).astype(np.int64)
    return np.cumsum([0, *(record.steps for record in history.records)])


def learn_plainly(
    params: Params, history: History, reached: NDArray[np.int64], data_dir: Path | None
) -> list[tuple[float, float]]:
    """Generations, and what part of E plain SGD gets right after as many steps as reached them."""
    task = load_task(params, None, history.chain_id, data_dir)
    generations = np.arange(len(reached))
    total = int(reached[-1])
    return [
        (float(np.interp(steps, reached, generations)), counts[0] / len(task.test))
        for steps, counts in train(task, (task.test,), total, max(1, total // COUNTS))
    ]


def compose_row(
    history: History,
    sgd: Sequence[tuple[float, float]],
    *,
    steps_reached: int,
    is_bound: bool,
    steps_done: int,
    command: str,
) -> str:
    """The chain's row of the table. The last 30 generations tell its pace.

    `is_bound` says that no more than `steps_reached` are in the head.
    """
    records = history.records
    pace = compute_pace([each.interval_ms for each in records], history.target_interval_ms)
    assert pace is not None
    deviation = pace.coefficient_of_variation
    measured = [each for each in records if each.has_accuracy][-1]
    cells = (
        f"[{history.chain_id}]({history.chain_id}.png)",
        f"[{len(records)}]({history.chain_id}.json)",
        f"{pace.mean_ms / 1_000:.1f} s of {history.target_interval_ms / 1_000:g} s",
        "-" if deviation is None else f"{deviation:.2f}",
        f"{'at most ' if is_bound else ''}{steps_reached:,}",
        f"{steps_done:,}",
        f"{measured.correct_all / measured.size_all:.1%}",
        f"{sgd[-1][1]:.1%}",
        f"`{command}`",
        describe_machine(),
    )
    return f"| {' | '.join(cells)} |"


def write_row(chain_id: str, row: str) -> None:
    """Put a chain's row in the place of its old one, or at the end of the table."""
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(f"| [{chain_id}](")]
    lines.insert(lines.index("<!-- table ends -->"), row)
    DOCUMENT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Grow the chain to its length, then draw it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("--generations", type=int, default=300)
    parser.add_argument("--target-interval", type=float, metavar="S")
    parser.add_argument("--data-dir", type=Path, help="the dataset, where no package brings it")
    parser.add_argument("--folder", type=Path, default=Path("study-runs"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.folder.absolute() / arguments.preset
    path.parent.mkdir(parents=True, exist_ok=True)
    home = make_home(path, arguments.preset, arguments.target_interval, arguments.data_dir)
    steps_done = count_steps_done(path, 0)
    while (missing := arguments.generations - count_generations(home)) > 0:
        steps_done = count_steps_done(path, grow(home, missing, arguments.data_dir))
    whole = load_history(home)
    reached = count_steps_reached(home.genesis.params, whole, steps_done)
    sgd = learn_plainly(home.genesis.params, whole, reached, arguments.data_dir)
    draw_figure(whole, FIGURES / f"{whole.chain_id}.png", sgd)
    (FIGURES / f"{whole.chain_id}.json").write_text(encode_history(whole), encoding="utf-8")
    command = " ".join(["python studies/figure1.py", *sys.argv[1:]])
    row = compose_row(
        whole,
        sgd,
        steps_reached=int(reached[-1]),
        is_bound=isinstance(home.genesis.params.scheme, PaperParams),
        steps_done=steps_done,
        command=command,
    )
    write_row(whole.chain_id, row)


if __name__ == "__main__":
    main()
