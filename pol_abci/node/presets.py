"""Presets: a chain's parameters and what they change in CometBFT's configuration.

One folder each in `cometbft-config/`: of the checkout, or copied into the wheel beside this file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import parse_params

if TYPE_CHECKING:
    from pol_abci.rules.params import Params

FOLDER = "cometbft-config"
_NO_DIGEST = bytes(32)


class UnknownPreset(PolError):
    """A preset that this version does not have."""


@dataclass(frozen=True, slots=True)
class Preset:
    """`config` holds keys of CometBFT's config.toml by section, those of the top level as such.

    A dataset that comes in several editions `is_of_any_edition`: a new chain takes the digests of
    the one that is on its first machine, those in `params` mean nothing.
    """

    name: str
    params: Params
    config: dict[str, Any]
    is_of_any_edition: bool = False

    def with_target_interval(self, target_interval_ms: int) -> Preset:
        """The preset at another pace, with CometBFT's times that follow from it.

        A block is waited for a twentieth of the interval, an empty one a quarter. The time for a
        proposal stays: it depends on what a verification takes.
        """
        difficulty = replace(self.params.difficulty, target_interval_ms=target_interval_ms)
        consensus = self.config["consensus"] | {
            "timeout_commit": f"{target_interval_ms // 20}ms",
            "create_empty_blocks_interval": f"{target_interval_ms // 4}ms",
        }
        return replace(
            self,
            params=replace(self.params, difficulty=difficulty),
            config=self.config | {"consensus": consensus},
        )

    def with_edition(self, train_digest: bytes, test_digest: bytes) -> Preset:
        """The preset for the edition of its dataset that has these digests."""
        task = replace(self.params.task, train_digest=train_digest, test_digest=test_digest)
        return replace(self, params=replace(self.params, task=task))


def get_presets_folder() -> Path:
    """Return the folder that holds one folder for each preset."""
    here = Path(__file__).resolve().parent
    in_wheel = here / FOLDER
    return in_wheel if in_wheel.is_dir() else here.parents[1] / FOLDER


def get_preset_names() -> list[str]:
    """Return the presets of this version, in alphabetical order."""
    return sorted(path.parent.name for path in get_presets_folder().glob("*/genesis.json"))


def load_preset(name: str) -> Preset:
    """Read a preset.

    Raises
    ------
    UnknownPreset
        When there is none of that name.
    """
    if name not in get_preset_names():
        raise UnknownPreset(f"no preset {name!r}; there is: {', '.join(get_preset_names())}")
    folder = get_presets_folder() / name
    document = json.loads((folder / "genesis.json").read_text(encoding="utf-8"))
    task = document["task"]
    is_of_any_edition = task["train_digest"] is None and task["test_digest"] is None
    if is_of_any_edition:
        task["train_digest"] = task["test_digest"] = _NO_DIGEST.hex()
    config = tomlkit.parse((folder / "config.toml").read_text(encoding="utf-8")).unwrap()
    return Preset(name, parse_params(document), config, is_of_any_edition)


def find_preset(params: Params) -> Preset:
    """Return the preset that a chain's parameters come from.

    First difficulty, target interval and edition of the dataset are the chain's own.

    Raises
    ------
    UnknownPreset
        When there is none: how CometBFT is to be configured is then not known.
    """
    for name in get_preset_names():
        preset = load_preset(name)
        if params.difficulty.target_interval_ms != preset.params.difficulty.target_interval_ms:
            preset = preset.with_target_interval(params.difficulty.target_interval_ms)
        if preset.is_of_any_edition:
            digests = (params.task.train_digest, params.task.test_digest)
            preset = preset.with_edition(*digests)
        difficulty = replace(preset.params.difficulty, first=params.difficulty.first)
        if replace(preset.params, difficulty=difficulty) == params:
            return preset
    raise UnknownPreset(
        f"this genesis has the parameters of no preset ({', '.join(get_preset_names())}); "
        f"join with the version of pol-abci that the chain's other nodes run"
    )
