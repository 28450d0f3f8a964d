"""`status`: what the chain does, and why it stands still, in words or as JSON."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from pol_abci.cli.commands import EXIT_CODES, home_option, json_option, print_json
from pol_abci.cli.describe import (
    describe_accuracy,
    describe_difficulty,
    describe_interval,
    describe_tickets,
    describe_verifier,
)
from pol_abci.cli.node_choice import choose_node, node_option
from pol_abci.cli.pace import PACE_WINDOW
from pol_abci.cli.standstill import NOT_BEGUN, explain_round, explain_standstill, is_frozen
from pol_abci.cli.words import format_seconds
from pol_abci.client.chain import ChainNotBegun, get_chain_status, get_history
from pol_abci.client.rpc import RpcClient
from pol_abci.client.rpc_errors import NodeUnreachable, RpcError, UnexpectedAnswer
from pol_abci.rules.errors import PolError

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.client.answers import NodeStatus
    from pol_abci.client.chain import ChainStatus
    from pol_abci.rules.codec import GenerationRecord


class ApplicationAway(PolError):
    """CometBFT answers, and the application behind it does not."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """What CometBFT and the application say; no `chain` before the first block."""

    comet: NodeStatus
    chain: ChainStatus | None
    records: tuple[GenerationRecord, ...]
    standstill: str | None


@click.command(epilog=EXIT_CODES)
@node_option
@home_option
@json_option
def status(*, node: str | None, home: Path, as_json: bool) -> None:
    """Say what a chain does, and why it stands still.

    A chain that stands still is no fault: the exit code is 0 whenever the node answers.
    """
    choice = choose_node(node, home)
    answers = asyncio.run(_ask(choice.url))
    choice.check(answers.comet.chain_id)
    if as_json:
        print_json(_compose_document(choice.url, answers))
        return
    for name, sentence in _describe(choice.url, answers):
        click.echo(f"{name:12} {sentence}")


async def _ask(url: str) -> _Answers:
    async with RpcClient(url) as rpc:
        comet = await rpc.status()
        try:
            chain = await get_chain_status(rpc)
        except ChainNotBegun:
            words = f"{NOT_BEGUN}: {explain_round(await rpc.round_state())}"
            return _Answers(comet, None, (), words)
        except UnexpectedAnswer:
            raise
        except (NodeUnreachable, RpcError) as error:
            raise ApplicationAway(
                f"CometBFT answers at {url}, height {comet.latest_height}, and its application "
                f"does not: {error}. Look into the application's log, and start both again"
            ) from error
        records = await get_history(rpc, max(1, chain.generation - PACE_WINDOW + 1))
        consensus = await rpc.round_state() if is_frozen(chain) else None
        return _Answers(comet, chain, records, explain_standstill(comet, chain, consensus))


def _compose_document(url: str, answers: _Answers) -> dict[str, Any]:
    """Put the app's answer as it is beside what CometBFT says."""
    comet = answers.comet
    said = asdict(answers.chain) if answers.chain else {"chain_id": comet.chain_id, "height": 0}
    document = {
        name: value.hex() if isinstance(value, bytes) else value for name, value in said.items()
    }
    document["standstill"] = answers.standstill
    node = {"url": url, "cometbft": comet.version, "catching_up": comet.catching_up}
    return {**document, "node": node}


def _describe(url: str, answers: _Answers) -> list[tuple[str, str]]:
    """Return the lines for people, each with its name."""
    comet = answers.comet
    catching_up = ", catching up with the other nodes" if comet.catching_up else ""
    lines = [("chain", f"{comet.chain_id} at {url}, CometBFT {comet.version}{catching_up}")]
    if answers.chain is not None:
        lines += _describe_chain(answers.chain, answers.records)
    if answers.standstill is not None:
        lines.append(("stands still", answers.standstill))
    return lines


def _describe_chain(
    chain: ChainStatus, records: tuple[GenerationRecord, ...]
) -> list[tuple[str, str]]:
    since_ms = max(0, chain.time_ms - chain.head_time_ms)
    lines = [
        ("height", str(chain.height)),
        ("generation", f"{chain.generation}, {format_seconds(since_ms)} old at the last block"),
        ("interval", describe_interval(records, chain.target_interval_ms)),
        ("difficulty", describe_difficulty(chain.difficulty_now, chain.head_difficulty)),
        ("verifier", describe_verifier(chain.verifier)),
        ("proofs", describe_tickets(chain.tickets)),
    ]
    if chain.accuracy is not None:
        lines.insert(2, ("accuracy", describe_accuracy(chain.accuracy)))
    return lines
