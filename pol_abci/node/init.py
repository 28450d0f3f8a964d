"""Make a home folder: for a new chain from a preset, or for joining a chain by its genesis.

A home is made in a temporary folder beside its place and renamed when it is whole, so a failed
`init` leaves nothing, and an existing home can't be overwritten.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import tomlkit

from pol_abci.client.keys import AccountKey
from pol_abci.learning.calibrate import measure_steps_per_second
from pol_abci.learning.datasets import compute_digest, load_dataset
from pol_abci.learning.scheme import get_scheme
from pol_abci.learning.task import load_task
from pol_abci.learning.weights import compute_root
from pol_abci.node.building import build_home, make_cometbft_files
from pol_abci.node.home import (
    P2P_PORT,
    RPC_PORT,
    TRANSPORTS,
    GenesisDocument,
    Home,
    HomeError,
    Settings,
    check_chain_id,
    compute_node_id,
    get_account_file,
    get_cometbft_folder,
    get_genesis_file,
    load_home,
    write_settings,
)
from pol_abci.node.presets import Preset, find_preset, load_preset
from pol_abci.rules.address import compute_consensus_address
from pol_abci.rules.genesis import (
    Genesis,
    GenesisAccount,
    compute_genesis_digest,
    genesis_to_json,
)
from pol_abci.rules.params import (
    MAX_DIFFICULTY,
    PROTOCOL_VERSION,
    SCORE_UNIT,
    Amount,
    Params,
)
from pol_abci.rules.scheme import get_scheme as get_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pol_abci.learning.task import Task
    from pol_abci.node.joining import StateSync

INITIAL_BALANCE = Amount(1_000 * 10**6)
"""Of the first validator: what pays the smallest fee a million times at 1,000 units, so that
transfers and new validators need not wait for the first rewards to mature. 20 rewards' worth."""
MEASURE_S = 3.0
BLOCK_OVERHEAD_BYTES = 2**18
"""Room in a block beside the longest transaction; one full of transfers is executed in seconds."""
MIN_BODY_BYTES = 1_000_000
"""CometBFT's own limit of a request to its RPC."""
MAX_EVIDENCE_BYTES = 65_536
VERIFIER_THREADS = 1
LISTEN = "unix://app.sock"
"""Where the app listens, relative to the home: a longer name may not fit into a socket's."""
PROXY_APPS = {"socket": LISTEN, "grpc": f"passthrough:///{LISTEN}"}
"""What CometBFT dials then: gRPC's own resolver knows no relative path."""

_MAX_PORT = 65_535


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
        _init_cometbft(
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
        params=_fit_to_machine(task, difficulty_bits, report),
        accounts=tuple(accounts),
        ring=tuple((account.address, slots) for account in accounts),
        weights_root=compute_root(task.initial_weights),
    )
    document = _compose_genesis(_read_json(get_genesis_file(seats[0].folder)), chain_id, genesis)
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
        _init_cometbft(
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


def compute_first_difficulty(steps_per_second: float, params: Params) -> int:
    """Return d_0 in 1/65,536 bit for a chain whose miners do so many steps; protocol section 2."""
    steps = max(1.0, steps_per_second * params.difficulty.target_interval_ms / 1_000)
    return max(0, _round_bits(math.log2(steps) + get_scheme(params).EQUILIBRIUM_BITS))


def compute_max_body_bytes(max_tx_bytes: int) -> int:
    """Return the longest request that a node's RPC takes: a transaction in base64, and room."""
    return max(MIN_BODY_BYTES, -(-max_tx_bytes // 3) * 4 + BLOCK_OVERHEAD_BYTES)


def compose_consensus_params(params: Params) -> dict[str, Any]:
    """Return CometBFT's consensus_params for a chain of these parameters."""
    maturity = params.ledger.maturity_generations
    max_block_bytes = get_rules(params).max_tx_bytes + BLOCK_OVERHEAD_BYTES
    age_ns = maturity * params.difficulty.target_interval_ms * 10**6
    return {
        "block": {"max_bytes": str(max_block_bytes), "max_gas": "-1"},
        "evidence": {
            # Evidence is too old when both are exceeded; heartbeats make four blocks an interval.
            "max_age_num_blocks": str(4 * maturity),
            "max_age_duration": str(age_ns),
            "max_bytes": str(MAX_EVIDENCE_BYTES),
        },
        "validator": {"pub_key_types": ["ed25519"]},
        "version": {"app": str(PROTOCOL_VERSION)},
        "abci": {"vote_extensions_enable_height": "0"},
    }


def _init_cometbft(
    folder: Path,
    cometbft: Path,
    preset: Preset,
    *,
    rpc_port: int,
    p2p_port: int,
    transport: str,
    peers: str = "",
    state_sync: StateSync | None = None,
) -> None:
    """Let CometBFT make its keys and files, then set what the preset and the caller change."""
    for flag, port in (("--rpc-port", rpc_port), ("--p2p-port", p2p_port)):
        if not 1 <= port <= _MAX_PORT:
            raise HomeError(f"{flag} {port}: ports are between 1 and {_MAX_PORT}")
    if rpc_port == p2p_port:
        raise HomeError(f"--rpc-port and --p2p-port are both {rpc_port}; choose two ports")
    make_cometbft_files(get_cometbft_folder(folder), cometbft)
    max_tx_bytes = get_rules(preset.params).max_tx_bytes
    _change_config(
        folder,
        preset.config,
        {
            "abci": transport,
            "proxy_app": PROXY_APPS[transport],
            "mempool": {"max_tx_bytes": max_tx_bytes},
            "rpc": {
                "laddr": f"tcp://127.0.0.1:{rpc_port}",
                "max_body_bytes": compute_max_body_bytes(max_tx_bytes),
            },
            "p2p": {"laddr": f"tcp://0.0.0.0:{p2p_port}", "persistent_peers": peers},
        },
        {} if state_sync is None else {"statesync": state_sync.compose_config()},
    )


def _change_config(folder: Path, *changes: dict[str, Any]) -> None:
    """Set values in the configuration of a home's CometBFT, one set after the other."""
    file = get_cometbft_folder(folder) / "config" / "config.toml"
    config = tomlkit.parse(file.read_text(encoding="utf-8"))
    for values in changes:
        _override(config, values, file)
    file.write_text(tomlkit.dumps(config), encoding="utf-8")


def _override(config: Any, values: dict[str, Any], file: Path) -> None:
    """Set values in a TOML document, comments and order kept. Every key must be there already."""
    for key, value in values.items():
        if key not in config:
            raise HomeError(f"this CometBFT wrote a {file.name} without {key}; it is a wrong one")
        if isinstance(value, dict):
            _override(config[key], value, file)
        else:
            config[key] = value


def _fit_to_machine(
    task: Task, difficulty_bits: float | None, report: Callable[[str], None]
) -> Params:
    """Return the task's parameters with the first difficulty."""
    params = task.params
    if difficulty_bits is None:
        rate = measure_steps_per_second(task, MEASURE_S)
        first = compute_first_difficulty(rate, params)
        report(
            f"This machine does {rate:,.0f} steps a second: "
            f"the first difficulty is {first / SCORE_UNIT:.2f} bits."
        )
    else:
        first = _round_bits(difficulty_bits)
    if not 0 <= first <= MAX_DIFFICULTY:
        raise HomeError(
            f"a first difficulty lies between 0 and {MAX_DIFFICULTY // SCORE_UNIT} bits"
        )
    difficulty = replace(params.difficulty, first=first)
    return replace(params, difficulty=difficulty)


def _round_bits(bits: float) -> int:
    """Return bits in 1/65,536."""
    return round(bits * SCORE_UNIT)


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
        _change_config(seat.folder, {"p2p": {"persistent_peers": others}})


def _compose_genesis(document: dict[str, Any], chain_id: str, genesis: Genesis) -> dict[str, Any]:
    """Complete a genesis that CometBFT wrote, with its time, for the chain's validators."""
    document["chain_id"] = chain_id
    document["initial_height"] = "1"
    document["consensus_params"] = compose_consensus_params(genesis.params)
    powers = dict(genesis.ring)
    document["validators"] = [
        _compose_validator(account.consensus_key, powers[account.address])
        for account in genesis.accounts
        if account.consensus_key is not None
    ]
    document["app_state"] = genesis_to_json(genesis)
    return document


def _compose_validator(consensus_key: bytes, power: int) -> dict[str, Any]:
    """Return CometBFT's line of a genesis validator, with the power that InitChain answers."""
    return {
        "address": compute_consensus_address(consensus_key).hex().upper(),
        "pub_key": {
            "type": "tendermint/PubKeyEd25519",
            "value": base64.b64encode(consensus_key).decode(),
        },
        "power": str(power),
        "name": "",
    }


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
