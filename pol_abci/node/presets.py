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


class UnknownPreset(PolError):
    """A preset that this version does not have."""


@dataclass(frozen=True, slots=True)
class Preset:
    """`config` holds keys of CometBFT's config.toml by section, those of the top level as such."""

    name: str
    params: Params
    config: dict[str, Any]

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
    params = parse_params(json.loads((folder / "genesis.json").read_text(encoding="utf-8")))
    config = tomlkit.parse((folder / "config.toml").read_text(encoding="utf-8")).unwrap()
    return Preset(name, params, config)


def find_preset(params: Params) -> Preset:
    """Return the preset that a chain's parameters come from.

    First difficulty and target interval are the chain's own.

    Raises
    ------
    UnknownPreset
        When there is none: how CometBFT is to be configured is then not known.
    """
    for name in get_preset_names():
        preset = load_preset(name)
        if params.difficulty.target_interval_ms != preset.params.difficulty.target_interval_ms:
            preset = preset.with_target_interval(params.difficulty.target_interval_ms)
        difficulty = replace(preset.params.difficulty, first=params.difficulty.first)
        if replace(preset.params, difficulty=difficulty) == params:
            return preset
    raise UnknownPreset(
        f"this genesis has the parameters of no preset ({', '.join(get_preset_names())}); "
        f"join with the version of pol-abci that the chain's other nodes run"
    )
