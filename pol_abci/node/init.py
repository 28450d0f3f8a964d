"""Make a home folder: for a new chain from a preset, or for joining a chain by its genesis.

A home is made in a temporary folder beside its place and renamed when it is whole, so a failed
`init` leaves nothing, and an existing home can't be overwritten.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pol_abci.client.keys import AccountKey
from pol_abci.learning.datasets import compute_digest, load_dataset
from pol_abci.learning.task import load_task
from pol_abci.learning.weights import compute_root
from pol_abci.node.building import build_home
from pol_abci.node.cometbft_setup import LISTEN, change_config, init_cometbft
from pol_abci.node.home import P2P_PORT, RPC_PORT, TRANSPORTS, Home, check_chain_id, load_home
from pol_abci.node.layout import HomeError, compute_node_id, get_account_file, get_genesis_file
from pol_abci.node.new_genesis import compose_genesis, fit_to_machine
from pol_abci.node.presets import find_preset, load_preset
from pol_abci.node.settings import Settings, write_settings
from pol_abci.rules.genesis import Genesis, GenesisAccount, compute_genesis_digest
from pol_abci.rules.params import Amount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pol_abci.node.genesis_document import GenesisDocument
    from pol_abci.node.joining import StateSync

INITIAL_BALANCE = Amount(1_000 * 10**6)
"""Of the first validator: what pays the smallest fee a million times at 1,000 units, so that
transfers and new validators need not wait for the first rewards to mature. 20 rewards' worth."""
VERIFIER_THREADS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A place for a validator of a new chain: its home's folder, its ports, its host's name."""

    folder: Path = field(kw_only=False)
    rpc_port: int = RPC_PORT
    p2p_port: int = P2P_PORT
    host: str = "127.0.0.1"


def create_home(
    path: Path,
    *,
    cometbft: Path,
    preset: str,
    chain_id: str,
    report: Callable[[str], None],
    device: str = "cpu",
    data_dir: Path | None = None,
    rpc_port: int = RPC_PORT,
    p2p_port: int = P2P_PORT,
    transport: str = TRANSPORTS[0],
    difficulty_bits: float | None = None,
    target_interval_ms: int | None = None,
) -> Home:
    """Make the home of a new chain's only validator, which owns the share ring whole.

    `cometbft` is the binary; `report` gets a sentence for people now and then. Without
    `difficulty_bits` the first difficulty follows from this machine's measured step rate, without
    `target_interval_ms` the preset's holds.
    `data_dir` is where the dataset's files lie, if not where Debian's packages put them.

    Raises
    ------
    HomeError
        When the folder exists, or a value given is not usable.
    UnknownPreset, DatasetMissing, DatasetMismatch, DeviceMissing
        As their names say.
    """
    with build_home(path) as folder:
        found_chain(
            (Seat(folder, rpc_port=rpc_port, p2p_port=p2p_port),),
            cometbft=cometbft,
            preset=preset,
            chain_id=chain_id,
            report=report,
            device=device,
            data_dir=data_dir,
            transport=transport,
            difficulty_bits=difficulty_bits,
            target_interval_ms=target_interval_ms,
        )
    return load_home(path)


def found_chain(
    seats: Sequence[Seat],
    *,
    cometbft: Path,
    preset: str,
    chain_id: str,
    report: Callable[[str], None],
    device: str = "cpu",
    data_dir: Path | None = None,
    transport: str = TRANSPORTS[0],
    difficulty_bits: float | None = None,
    target_interval_ms: int | None = None,
) -> None:
    """Make a new chain's first validators, each into its seat's folder.

    They have one genesis and equal parts of the share ring; what cannot be shared out equally stays
    empty, and the first proofs take it. Each knows all others as peers.

    Raises
    ------
    HomeError, UnknownPreset, DatasetMissing, DatasetMismatch, DeviceMissing
        As `create_home`; also when there are more seats than the chain has room for.
    """
    chosen = load_preset(preset)
    if target_interval_ms is not None:
        chosen = chosen.with_target_interval(target_interval_ms)
    if chosen.is_of_any_edition:
        train, test = load_dataset(chosen.params.task.dataset, data_dir)
        chosen = chosen.with_edition(compute_digest(train), compute_digest(test))
        report(f"The chain will learn {chosen.params.task.dataset} as it is in {train.source}.")
    check_chain_id(chain_id)
    shares = chosen.params.shares
    room = min(shares.max_validators, shares.slots)
    if len(seats) > room:
        raise HomeError(f"a chain of preset {preset} has room for {room} validators, not more")
    accounts = []
    for seat in seats:
        init_cometbft(
            seat.folder,
            cometbft,
            chosen,
            rpc_port=seat.rpc_port,
            p2p_port=seat.p2p_port,
            transport=transport,
        )
        accounts.append(_make_account(seat.folder))
    if len(seats) > 1:
        _introduce(seats)
    task = load_task(chosen.params, None, chain_id, data_dir, device)
    slots = shares.slots // len(seats)
    genesis = Genesis(
        params=fit_to_machine(task, difficulty_bits, report),
        accounts=tuple(accounts),
        ring=tuple((account.address, slots) for account in accounts),
        weights_root=compute_root(task.initial_weights),
    )
    document = compose_genesis(_read_json(get_genesis_file(seats[0].folder)), chain_id, genesis)
    for seat in seats:
        _write_json(get_genesis_file(seat.folder), document)
        _finish(
            seat.folder,
            chain_id,
            genesis,
            device=device,
            data_dir=data_dir,
            rpc_port=seat.rpc_port,
        )


def join_chain(
    path: Path,
    *,
    cometbft: Path,
    document: GenesisDocument,
    report: Callable[[str], None],
    device: str = "cpu",
    data_dir: Path | None = None,
    peers: str = "",
    state_sync: StateSync | None = None,
    rpc_port: int = RPC_PORT,
    p2p_port: int = P2P_PORT,
    transport: str = TRANSPORTS[0],
) -> Home:
    """Make the home of a node that follows the chain of a genesis, with keys of its own.

    `peers` are CometBFT's persistent_peers, `id@host:port` and commas. With `state_sync` the node
    begins with a peer's snapshot, without it with the first block. It validates nothing until its
    account registers its consensus key and earns shares.

    Raises
    ------
    HomeError, UnknownPreset, DatasetMissing, DatasetMismatch, DeviceMissing
        As `create_home`.
    GenesisError
        When the genesis is not one that this version can run, or its first weights differ here.
    """
    genesis = document.genesis
    chosen = find_preset(genesis.params)
    load_task(genesis.params, genesis.weights_root, document.chain_id, data_dir, device)
    with build_home(path) as folder:
        init_cometbft(
            folder,
            cometbft,
            chosen,
            rpc_port=rpc_port,
            p2p_port=p2p_port,
            transport=transport,
            peers=peers,
            state_sync=state_sync,
        )
        AccountKey.generate().save(get_account_file(folder))
        _write_json(get_genesis_file(folder), document.document)
        _finish(
            folder, document.chain_id, genesis, device=device, data_dir=data_dir, rpc_port=rpc_port
        )
    report(f"Checked data and first weights of {document.chain_id} against its genesis.")
    return load_home(path)


def _make_account(folder: Path) -> GenesisAccount:
    """Make the account of a home's validator, whose consensus key CometBFT has just made."""
    key = AccountKey.generate()
    key.save(get_account_file(folder))
    validator = _read_json(get_genesis_file(folder))["validators"][0]
    return GenesisAccount(
        address=key.address,
        balance=INITIAL_BALANCE,
        consensus_key=base64.b64decode(validator["pub_key"]["value"]),
    )


def _introduce(seats: Sequence[Seat]) -> None:
    """Tell each seat's CometBFT of all others."""
    peers = [f"{compute_node_id(seat.folder)}@{seat.host}:{seat.p2p_port}" for seat in seats]
    for seat, own in zip(seats, peers, strict=True):
        others = ",".join(peer for peer in peers if peer != own)
        change_config(seat.folder, {"p2p": {"persistent_peers": others}})


def _finish(
    folder: Path,
    chain_id: str,
    genesis: Genesis,
    *,
    device: str,
    data_dir: Path | None,
    rpc_port: int,
) -> None:
    """Write pol.toml, which makes the folder a home."""
    settings = Settings(
        chain_id=chain_id,
        genesis_digest=compute_genesis_digest(genesis),
        listen=LISTEN,
        rpc_url=f"http://127.0.0.1:{rpc_port}",
        threads=VERIFIER_THREADS,
        device=device,
        data_dir=None if data_dir is None else data_dir.absolute(),
    )
    write_settings(folder, settings)


def _read_json(file: Path) -> Any:
    """Read a JSON file that CometBFT has just written."""
    return json.loads(file.read_text(encoding="utf-8"))


def _write_json(file: Path, value: Any) -> None:
    """Write JSON for people and programs."""
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
