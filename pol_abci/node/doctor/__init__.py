"""What an operator would look at before trusting a node: the machine, a home, the node in it.

Each check is a function of its own in `machine` or `home` and stands alone: what one meets hides
nothing of the others. `examine` runs them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.node.doctor import home as of_home
from pol_abci.node.doctor import machine as of_machine
from pol_abci.node.doctor.finding import Finding, Patient, fault
from pol_abci.node.home import load_home
from pol_abci.node.layout import SETTINGS_FILE
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Finding", "examine"]

MACHINE_CHECKS = {
    "cometbft": of_machine.check_cometbft,
    "cores": of_machine.check_cores,
    "memory": of_machine.check_memory,
    "disk": of_machine.check_disk,
    "clock": of_machine.check_clock,
    "dataset": of_machine.check_datasets,
    "bits": of_machine.check_bits,
}
FILE_CHECKS = {"keys": of_home.check_keys}
"""Of a home whose settings or genesis may be beyond reading."""
HOME_CHECKS = {
    "ports": of_home.check_ports,
    "node": of_home.check_node,
    "store": of_home.check_store,
}


def examine(path: Path | None, *, is_deep: bool) -> Iterator[Finding]:
    """Look at this machine and, where `path` is a home, at that; findings come one by one.

    `is_deep` also computes the state's tree anew from every entry.
    """
    patient = Patient(path, None, is_deep)
    if path is not None:
        try:
            home = load_home(path)
        except PolError as error:
            yield fault("home", str(error))
        else:
            patient = Patient(path, home, is_deep)
            yield from of_home.describe_home(home)
            patient.ask_node()
    checks = dict(MACHINE_CHECKS)
    if patient.home is not None:
        checks = HOME_CHECKS | checks
    if path is not None and (path / SETTINGS_FILE).exists():
        checks = FILE_CHECKS | checks
    for name, check in checks.items():
        try:
            yield from check(patient)
        except (PolError, OSError) as error:
            yield fault(name, str(error))
