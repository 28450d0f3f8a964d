"""Transfers committed a second beside CometBFT's own Go kvstore, and the app's CPU for each.

The chains run at once, one validator each, with the digits preset's configuration of consensus
and mempool; they are loaded in turn, over HTTP and over WebSocket. The app verifies a signature
for each transfer, the kvstore none. A third chain's app only says yes, in Python and over the same
socket (`yes_app.py`): what no application could be quicker than. Nobody mines.
"""

from __future__ import annotations

import json
import operator
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import uvloop

from benchmarks.figures import Figure, main
from benchmarks.load import HttpLine, Line, WebSocketLine, measure_rate
from pol_abci.client.keys import AccountKey
from pol_abci.client.transactions import build_transfer
from pol_abci.node.binary import find_cometbft
from pol_abci.node.home import Home, load_home
from pol_abci.node.init import create_home
from pol_abci.node.settings import write_settings
from pol_abci.rules.genesis import GenesisAccount, compute_genesis_digest, genesis_to_json
from pol_abci.rules.params import Amount
from pol_abci.rules.signing import authenticate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHAIN_ID = "pol-bench"
APP_PORTS, KVSTORE_PORTS, YES_PORTS = (29757, 29756), (29767, 29766), (29777, 29776)
"""RPC and peers. Not CometBFT's own choice: a node of the user's may run there."""
LINES = 16
"""Connections that send."""
SENDERS = 1_024
"""Accounts, so that few transfers of a block are of the same one."""
TRANSFERS = 8_192
"""In each round."""
ROUNDS = 2
"""Of each chain over each transport, alternating."""
KINDS: dict[str, type[Line]] = {"HTTP": HttpLine, "WebSocket": WebSocketLine}
BALANCE, FEE, AMOUNT = Amount(10**9), Amount(1_000), Amount(1)
YES_APP = Path(__file__).with_name("yes_app.py")
PATIENCE_S = 300.0
"""For a node to come up."""


@dataclass(slots=True)
class Measured:
    """One transport's rounds."""

    app_rates: list[float] = field(default_factory=list)
    kvstore_rates: list[float] = field(default_factory=list)
    yes_rates: list[float] = field(default_factory=list)
    app_cpu_us: list[float] = field(default_factory=list)
    yes_cpu_us: list[float] = field(default_factory=list)


def make_home(
    path: Path,
    ports: tuple[int, int],
    keys: Sequence[AccountKey],
    *,
    difficulty_bits: float | None = 16,
) -> Home:
    """A home of the digits preset whose genesis funds these keys."""
    home = create_home(
        path,
        cometbft=find_cometbft(note),
        preset="digits",
        chain_id=CHAIN_ID,
        report=note,
        rpc_port=ports[0],
        p2p_port=ports[1],
        difficulty_bits=difficulty_bits,
    )
    funded = tuple(
        GenesisAccount(address=key.address, balance=BALANCE, consensus_key=None) for key in keys
    )
    genesis = replace(home.genesis, accounts=home.genesis.accounts + funded)
    document = json.loads(home.genesis_file.read_text())
    document["app_state"] = genesis_to_json(genesis)
    home.genesis_file.write_text(json.dumps(document))
    write_settings(path, replace(home.settings, genesis_digest=compute_genesis_digest(genesis)))
    return load_home(path)


def note(text: str) -> None:
    """What is said on the way is not part of the figures."""
    print(text, file=sys.stderr)


def start(stack: ExitStack, home: Home, log: str, *command: str) -> psutil.Process:
    """Run a program in a home until the stack ends."""
    output = stack.enter_context((home.path / log).open("wb"))
    process = subprocess.Popen(command, cwd=home.path, stdout=output, stderr=output)  # noqa: S603
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return psutil.Process(process.pid)


def start_cometbft(stack: ExitStack, home: Home, *arguments: str) -> None:
    """Run a home's CometBFT and wait until it has made the blocks that start the chain."""
    binary = str(find_cometbft(note))
    start(stack, home, "cometbft.log", binary, "node", "--home", "cometbft", *arguments)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        time.sleep(0.2)
        try:
            status = httpx.get(f"{home.settings.rpc_url}/status", trust_env=False).json()
            if int(status["result"]["sync_info"]["latest_block_height"]) >= 2:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            logs = sorted(home.path.glob("*.log"))
            tail = "\n".join(log.read_text()[-1_000:] for log in logs)
            raise SystemExit(f"no blocks at {home.settings.rpc_url}:\n" + tail)


class Transfers:
    """Signs transfers of many accounts, each in the order of its sequence numbers."""

    def __init__(self, keys: Sequence[AccountKey]) -> None:
        self._keys = keys
        self._sequence = 0

    def sign_round(self) -> list[list[bytes]]:
        """The next transfers of each connection, which has senders of its own."""
        txs_of_lines: list[list[bytes]] = [[] for _ in range(LINES)]
        for _ in range(TRANSFERS // SENDERS):
            self._sequence += 1
            for index, key in enumerate(self._keys):
                recipient = self._keys[(7 * index + self._sequence) % SENDERS].address
                txs_of_lines[index % LINES].append(
                    build_transfer(
                        key,
                        CHAIN_ID,
                        sequence=self._sequence,
                        fee=FEE,
                        recipient=recipient,
                        amount=AMOUNT,
                    )
                )
        return txs_of_lines


def make_pairs(txs_of_lines: Sequence[Sequence[bytes]]) -> list[list[bytes]]:
    """Transactions for the kvstore, as many and as long: key=value in hexadecimal digits."""
    return [
        [
            tx.hex()[: len(tx) // 2].encode() + b"=" + tx.hex()[len(tx) // 2 + 1 : len(tx)].encode()
            for tx in txs
        ]
        for txs in txs_of_lines
    ]


def compute_cpu_s(process: psutil.Process) -> float:
    """User and system time that a process has had; its children's are not in it."""
    times = process.cpu_times()
    return times.user + times.system


def measure_authenticate_us(txs: Sequence[bytes]) -> float:
    """CPU of reading a transfer and verifying its signature, and nothing else."""
    start_s = time.process_time()
    for tx in txs:
        authenticate(CHAIN_ID, tx)
    return (time.process_time() - start_s) * 1e6 / len(txs)


def measure() -> Iterator[Figure]:
    """Load both chains in turn, and compare medians."""
    keys = [AccountKey(number.to_bytes(32, "big")) for number in range(1, SENDERS + 1)]
    transfers = Transfers(keys)
    measured = {name: Measured() for name in KINDS}
    authenticate_us = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = make_home(folder / "app", APP_PORTS, keys)
        kvstore = make_home(folder / "kvstore", KVSTORE_PORTS, ())
        yes = make_home(folder / "yes", YES_PORTS, ())
        cli = (sys.executable, "-m", "pol_abci.cli", "start", "--home", ".")
        app = start(stack, ours, "app.log", *cli, "--log-level", "warning")
        yes_app = start(stack, yes, "app.log", sys.executable, str(YES_APP), yes.settings.listen)
        start_cometbft(stack, ours)
        start_cometbft(stack, yes)
        start_cometbft(stack, kvstore, "--proxy_app=kvstore")
        for _ in range(ROUNDS):
            for name, kind in KINDS.items():
                signed = transfers.sign_round()
                authenticate_us.append(measure_authenticate_us(signed[0]))
                rounds = measured[name]
                pairs = make_pairs(signed)
                for process, home, txs, rates, cpus_us in (
                    (app, ours, signed, rounds.app_rates, rounds.app_cpu_us),
                    (yes_app, yes, pairs, rounds.yes_rates, rounds.yes_cpu_us),
                ):
                    before_s = compute_cpu_s(process)
                    rates.append(run_load(kind, home, txs))
                    cpus_us.append((compute_cpu_s(process) - before_s) * 1e6 / TRANSFERS)
                rounds.kvstore_rates.append(run_load(kind, kvstore, pairs))
    verify_us = statistics.median(authenticate_us)
    for name, rounds in measured.items():
        kvstore_rates = rounds.kvstore_rates
        for what, rates, said, goal in (
            ("committed transfers", rounds.app_rates, "with signatures verified", "at least 0.5"),
            ("committed by an app that only says yes", rounds.yes_rates, "unverified", ""),
        ):
            yield Figure(
                name=f"{what} over {name}, {LINES} connections",
                value=f"{statistics.median(rates):,.0f} /s {said}",
                beside=f"{statistics.median(kvstore_rates):,.0f} /s CometBFT's kvstore in Go",
                ratio=statistics.median(map(operator.truediv, rates, kvstore_rates)),
                goal=goal,
            )
    for name, rounds in measured.items():
        cpu_us = statistics.median(rounds.app_cpu_us)
        yield Figure(
            name=f"app's CPU a transfer over {name}, CheckTx to Commit",
            value=f"{cpu_us:.0f} us",
            beside=f"{verify_us:.0f} us reading it and verifying its signature alone",
            ratio=cpu_us / verify_us,
            goal="at most 150 us",
        )
        yield Figure(
            name=f"CPU a transaction over {name} of an app that only says yes",
            value=f"{statistics.median(rounds.yes_cpu_us):.0f} us",
        )


def run_load(kind: type[Line], home: Home, txs_of_lines: Sequence[Sequence[bytes]]) -> float:
    """Transactions a second of one round."""
    return uvloop.run(measure_rate(kind, home.settings.rpc_url, txs_of_lines))


if __name__ == "__main__":
    main(measure)
