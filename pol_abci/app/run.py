"""One application process: store, verifier, ABCI server, and the hand-over of good tickets."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from pol_abci.abci.server import serve
from pol_abci.app.application import PolApplication
from pol_abci.app.metrics import make_registry
from pol_abci.app.replica import Replica
from pol_abci.app.resubmit import resubmit_tickets
from pol_abci.app.retention import Retention
from pol_abci.app.standstill import find_fault
from pol_abci.app.tasks import run_until_first_ends
from pol_abci.app.verifier import Verifier
from pol_abci.app.verifier_messages import Configure
from pol_abci.client.rpc import RpcClient
from pol_abci.monitor import run_monitor
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.rules.scheme import get_scheme
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.rules.genesis import Genesis

log = structlog.get_logger(__name__)

RPC_TIMEOUT_S = 2.0
"""Of this node's own RPC, on the same machine."""
RPC_BYTES_PER_S = 2**21
"""What it takes at least of a transaction: it is read from JSON and base64, hashed and checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """What an application process needs to know.

    `listen` is "unix://path" or "tcp://host:port", where CometBFT connects; `rpc_url` is that
    CometBFT's own RPC; `threads`, `device` and `data_dir` are the verifier's; `transport` is
    "socket" or "grpc"; `metrics` is "host:port" to serve metrics and health at, or None;
    `snapshot_interval` is the heights from snapshot to snapshot, 0 for none; `retention` says which
    blocks that CometBFT is told to keep.
    """

    chain_id: str
    genesis: Genesis
    initial_height: int
    store_path: Path
    listen: str
    rpc_url: str
    threads: int
    device: str = "cpu"
    data_dir: Path | None = None
    transport: str = "socket"
    metrics: str | None = None
    snapshot_interval: int = 0
    retention: Retention = field(default_factory=Retention)


async def run_app(settings: AppSettings) -> None:
    """Serve one CometBFT until cancelled.

    Raises
    ------
    PolError
        The store, the data, the genesis or the address cannot be used: the message says what to
        do. Anything else is a bug, and has committed nothing.
    """
    genesis = settings.genesis
    configure = Configure(
        settings.chain_id,
        genesis.params,
        genesis.weights_root,
        settings.threads,
        settings.device,
        settings.data_dir,
    )
    async with AsyncExitStack() as stack:
        store = Store.open(
            settings.store_path,
            chain_id=settings.chain_id,
            genesis_digest=compute_genesis_digest(genesis),
        )
        stack.callback(store.close)
        timeout_s = RPC_TIMEOUT_S + get_scheme(genesis.params).max_tx_bytes / RPC_BYTES_PER_S
        rpc = await stack.enter_async_context(RpcClient(settings.rpc_url, timeout_s=timeout_s))
        verifier = Verifier(configure)
        replica = Replica(
            chain_id=settings.chain_id,
            genesis=genesis,
            initial_height=settings.initial_height,
            store=store,
            verifier=verifier,
            retention=settings.retention,
        )
        application = PolApplication(replica, settings.snapshot_interval)
        await stack.enter_async_context(
            run_monitor(
                settings.metrics,
                make_registry(replica, application.measures, settings.store_path),
                lambda: find_fault(replica, settings.store_path),
            )
        )
        log.info("the verifier loads its data", height=store.height)
        await run_until_first_ends(
            verifier.run(),
            _serve(application, settings),
            resubmit_tickets(replica, rpc),
            application.snapshot_taker.run(),
        )


async def _serve(application: PolApplication, settings: AppSettings) -> None:
    """Answer CometBFT from the start on: only calls about walks wait until the verifier is there.

    It would try again after seconds, over gRPC after minutes, where nobody listens.
    """
    if settings.transport == "grpc":
        # Else gRPC writes a line of its own to the log whenever the verifier is started.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        from pol_abci.abci.grpc_server import serve_grpc  # noqa: PLC0415 (takes 11 MB)

        await serve_grpc(application, settings.listen)
    else:
        await serve(application, settings.listen)
