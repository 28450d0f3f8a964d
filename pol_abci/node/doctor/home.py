"""Checks of a home: its files, its ports, the node that runs in it, its store."""

from __future__ import annotations

import shlex
import stat
from contextlib import closing
from typing import TYPE_CHECKING

from pol_abci.client.keys import KeyFile, load_consensus_seed
from pol_abci.node.binary import get_release
from pol_abci.node.doctor.finding import Finding, Patient, fault, ok, warning
from pol_abci.node.layout import (
    compute_node_id,
    get_account_file,
    get_consensus_key_file,
    get_node_key_file,
    get_signing_state_file,
)
from pol_abci.node.occupancy import HomeInUse, PortInUse
from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.store.environment import DATA_FILE
from pol_abci.store.errors import StoreLocked
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pol_abci.node.home import Home

_OPEN_TO_OTHERS = 0o077


def describe_home(home: Home) -> Iterator[Finding]:
    """A home that could be read: settings, genesis and CometBFT's configuration agree."""
    yield ok("home", f"{home.path} is of {home.settings.chain_id}; settings and genesis agree")


def check_keys(patient: Patient) -> Iterator[Finding]:
    """Keys that can be read, by their owner alone."""
    assert patient.path is not None, "checks of files run where there is a home"
    for file, read in (
        (get_account_file(patient.path), KeyFile.read),
        (get_consensus_key_file(patient.path), load_consensus_seed),
    ):
        try:
            read(file)
        except PolError as error:
            yield fault("keys", str(error))
        else:
            yield ok("keys", f"{file.name} is whole, and its owner's alone")
    yield _look_at_mode(
        get_signing_state_file(patient.path),
        "It holds what the validator has signed. An older copy lets it sign a height twice, which "
        "bars it for ever: restore a copy only if nothing was signed after it was made. Else make "
        "another home of this chain, with `pol-abci init --genesis FILE --peers ...`: an account "
        "keeps its validator key for ever, so a new key needs the new account that comes with it.",
    )
    yield _look_at_mode(
        get_node_key_file(patient.path),
        "Restore it from a copy: other nodes know this one by it.",
    )


def _look_at_mode(file: Path, advice: str) -> Finding:
    if not file.is_file():
        return fault("keys", f"{file} is missing", advice)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & _OPEN_TO_OTHERS:
        return fault(
            "keys",
            f"others can read {file} (mode {mode:04o})",
            f"Run: chmod 600 {shlex.quote(str(file))}",
        )
    return ok("keys", f"{file.name} is its owner's alone")


def check_ports(patient: Patient) -> Iterator[Finding]:
    """Whether the node could start, or holds its ports itself."""
    home = _get_home(patient)
    url = home.settings.rpc_url
    is_own = patient.node is not None and patient.node_id == compute_node_id(home.path)
    try:
        home.check_free()
    except HomeInUse:
        if is_own:
            yield ok("ports", f"held by this home's own node, which `up` runs ({url})")
        else:
            yield warning(
                "ports",
                f"`up` runs on this home, but its node does not answer at {url}",
                f"Wait until it has started; then look into {home.path}/logs.",
            )
    except PortInUse as taken:
        if is_own:
            yield ok("ports", f"held by this home's own node ({url})")
        else:
            yield fault("ports", str(taken))
    else:
        yield ok("ports", f"free; this home's node does not run ({url})")


def check_node(patient: Patient) -> Iterator[Finding]:
    """The node that answers: its CometBFT, its chain, and whether it moves."""
    home, node, chain = _get_home(patient), patient.node, patient.chain
    if node is None:
        yield ok("node", "does not run, or does not answer")
        return
    if node.chain_id != home.settings.chain_id:
        yield fault(
            "node",
            f"a node of {node.chain_id} answers at {home.settings.rpc_url}",
            "Stop it, or give one of the two another port.",
        )
        return
    if node.version != get_release().reported:
        yield fault(
            "node",
            f"runs a CometBFT that reports {node.version}",
            f"Run it with {get_release().tag}; `pol-abci version` says where one is.",
        )
    if chain is None:
        yield fault(
            "node",
            f"CometBFT answers at height {node.latest_height}, and the app behind it does not",
            "`pol-abci status` says more; look into the app's log.",
        )
    elif not chain.verifier.alive:
        yield warning(
            "node",
            "its verifier is not running, or not ready yet",
            f"Wait until it has started; then look into {home.path}/logs.",
        )
    elif chain.standstill is not None:
        yield warning("node", f"stands still: {chain.standstill}", "See `pol-abci status`.")
    elif node.catching_up:
        yield ok("node", f"catches up with its chain, at height {node.latest_height}")
    else:
        yield ok("node", f"runs, generation {chain.generation} at height {chain.height}")


def check_store(patient: Patient) -> Iterator[Finding]:
    """The store of a stopped node: structure, weights and trees; all entries when it goes deep."""
    home = _get_home(patient)
    if not (home.store_folder / DATA_FILE).exists():
        yield ok("store", "none yet: the first start makes it, from blocks where there are any")
        return
    try:
        store = Store.open(
            home.store_folder,
            chain_id=home.settings.chain_id,
            genesis_digest=compute_genesis_digest(home.genesis),
        )
    except StoreLocked:
        if patient.is_deep:
            yield warning(
                "store", "in use by the running node: not looked at", "Stop the node and run again."
            )
        else:
            yield ok("store", "in use by the running node, which checked it when it started")
        return
    with closing(store):
        found = f"height {store.height}: file, weights and their root, tree above the buckets"
        if not patient.is_deep:
            yield ok("store", f"{found}; `--deep` adds every entry")
            return
        store.verify()
        yield ok("store", f"{found}, and every entry under it")


def _get_home(patient: Patient) -> Home:
    assert patient.home is not None, "checks of a home run where there is one"
    return patient.home
