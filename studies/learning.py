"""What a chain learns by its preset's constants: each varied alone, beside plain SGD.

    python studies/learning.py [--preset digits] [--tables] [FOLDER]

Chains run in virtual time (`virtual_chain.py`). What each run gave is kept in FOLDER, one file a
run, so that a study that was stopped goes on, on another machine too; at the end the tables of
docs/study.md are written anew from all of it, and the figure when each preset has a run. A run
whose parameters are others by now is done again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pol_abci.node.presets import load_preset
from pol_abci.rules.genesis import params_to_json
from studies.plain_sgd import train
from studies.report import RUNS, read_run, write_figure, write_run, write_tables
from studies.virtual_chain import VirtualChain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pol_abci.rules.params import Params


@dataclass(frozen=True, slots=True)
class Study:
    """A preset's runs: how long, how fast its virtual miner is, and what is varied.

    `changes` has sections of the parameters as keys, then names, then values to try. The longest
    run is of the preset as it is, with the first of `seeds`.
    """

    preset: str
    interval_steps: int
    seeds: tuple[int, ...]
    generations: int
    longest: int
    count_every: int
    changes: dict[str, dict[str, tuple[Any, ...]]] = field(default_factory=dict)


STUDIES = (
    Study(
        "digits",
        interval_steps=2_000,
        seeds=(1, 2),
        generations=30,
        longest=200,
        count_every=5,
        changes={
            "task": {"learning_rate": ("0.03125", "0.125"), "batch_size": (8, 32)},
            "scheme": {
                "max_steps": (16, 64),
                "min_steps": (16,),
                "evaluation_samples": (32, 180),
            },
            "arithmetic": {"forward_bits": (8,), "backward_bits": (16,)},
        },
    ),
    Study(
        "fashion-mnist",
        interval_steps=1_800,
        seeds=(1,),
        generations=30,
        longest=300,
        count_every=10,
        changes={
            "task": {"learning_rate": ("0.03125", "0.125"), "batch_size": (64,)},
            "scheme": {"min_steps": (2,), "evaluation_samples": (128, 1_024)},
            "arithmetic": {"forward_bits": (8,), "backward_bits": (8,)},
        },
    ),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One chain of a study. `change` is (section, name, value), or empty for the preset."""

    study: Study
    change: tuple[str, str, Any] | tuple[()]
    seed: int
    generations: int

    @property
    def name(self) -> str:
        """Name of the file that keeps it, which is the chain's name too."""
        change = "-".join(str(part) for part in self.change[1:]) or "preset"
        return f"{self.study.preset}-{change}-{self.seed}".replace("_", "-")

    @property
    def setting(self) -> dict[str, Any]:
        """All that what it gives depends on, beside the code."""
        study = self.study
        return {
            "params": params_to_json(self.make_params()),
            "interval_steps": study.interval_steps,
            "length": self.generations,
            "count_every": study.count_every,
        }

    def make_params(self) -> Params:
        """The preset's parameters, changed."""
        params = load_preset(self.study.preset).params
        if not self.change:
            return params
        section, name, value = self.change
        return replace(params, **{section: replace(getattr(params, section), **{name: value})})


def list_runs(study: Study) -> Iterator[Run]:
    """The preset first, since its figure is wanted most, then each change."""
    for seed in study.seeds:
        longest = study.longest if seed == study.seeds[0] else study.generations
        yield Run(study, (), seed, longest)
    for section, names in study.changes.items():
        for name, values in names.items():
            for value in values:
                for seed in study.seeds:
                    yield Run(study, (section, name, value), seed, study.generations)


def run(run: Run) -> dict[str, Any]:
    """Let a chain learn, and plain SGD with as many steps."""
    start = time.perf_counter()
    chain = VirtualChain(run.make_params(), run.name, run.study.interval_steps)
    generations = list(chain.run(run.generations, run.study.count_every))
    parts = (chain.task.test, chain.held.test)
    steps = sum(generation.steps for generation in generations)
    count_every = max(1, steps // (run.generations // run.study.count_every))
    sgd = list(train(chain.task, parts, steps, count_every))
    return {
        "preset": run.study.preset,
        "change": run.change[1:],
        "seed": run.seed,
        "setting": run.setting,
        "sizes": [len(part) for part in parts],
        "generations": [asdict(generation) for generation in generations],
        "sgd": sgd,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    """Do what has not been done, then write tables and figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=RUNS)
    parser.add_argument("--preset", choices=[study.preset for study in STUDIES], help="run this")
    parser.add_argument("--tables", action="store_true", help="of the runs there are; run nothing")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = []
    for each in (run for study in STUDIES for run in list_runs(study)):
        file = folder / f"{each.name}.json"
        result = read_run(file)
        if result is not None and result["setting"] != each.setting:
            result = None
        is_wanted = not arguments.tables and arguments.preset in (None, each.study.preset)
        if is_wanted and result is None:
            result = run(each)
            write_run(file, result)
            print(f"{each.name}: {result['seconds']} s", flush=True)
        if result is not None:
            results.append(result)
    write_tables(results)
    if {result["preset"] for result in results} == {study.preset for study in STUDIES}:
        write_figure(results)


if __name__ == "__main__":
    main()
