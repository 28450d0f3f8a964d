"""The processes of one node on one machine, as `up` starts them: app, CometBFT, miner."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TYPE_CHECKING

from pol_abci.abci.listener import is_listening, parse_address
from pol_abci.client.sealing import PASSPHRASE_VARIABLE
from pol_abci.node.layout import get_account_file, get_cometbft_folder
from pol_abci.node.supervisor import ChildCommand

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pol_abci.node.home import Home

MINER_NICENESS = 10
"""Blocks and verification go before the search for proofs."""
LAST_WORDS = re.compile(
    rb"""^(?:E\[[^\]]*\]\ |\{"_msg":")CONSENSUS\ FAILURE!!!(?:\ |")""", re.VERBOSE
)
"""CometBFT's message, where a line of its log has it with log_format plain and json. Both quote
what follows, newlines too: there the text may be a peer's, in the name of its network say."""


def compose_children(
    home: Home,
    cometbft: Path,
    *,
    on_miner_line: Callable[[str], None] | None,
    log_options: tuple[str, ...] = (),
    passphrase: str | None = None,
) -> tuple[ChildCommand, ...]:
    """Return the children of a home in the order in which they start; they stop in reverse.

    CometBFT starts when the app listens: when it finds none, it waits for seconds. `on_miner_line`
    gets the miner's JSON lines; None is for a node without a miner. `log_options` go to app and
    miner, `passphrase`, if the account's key has one, to the miner. Paths are relative to the home,
    which is the children's working directory, since a unix socket's path has room for 100 bytes
    only.
    """
    program = (sys.executable, "-m", "pol_abci.cli")
    learning = ["--device", home.settings.device]
    if home.settings.data_dir is not None:
        learning += ["--data-dir", str(home.settings.data_dir)]
    children = [
        ChildCommand(
            name="app", arguments=(*program, "start", "--home", ".", *learning, *log_options)
        ),
        ChildCommand(
            name="cometbft",
            arguments=(
                str(cometbft),
                "node",
                "--home",
                str(get_cometbft_folder(home.path).relative_to(home.path)),
            ),
            # It signals itself when its app is gone, and at times hangs in stopping, RPC and all.
            ends_with="app",
            is_due=partial(is_listening, parse_address(home.settings.listen), home.path),
            # Thereafter it answers RPC and makes no block: on a full disk, or a wrong app hash.
            last_words=LAST_WORDS,
        ),
    ]
    if on_miner_line is not None:
        key = get_account_file(home.path).relative_to(home.path)
        children.append(
            ChildCommand(
                name="miner",
                arguments=(
                    *program,
                    "mine",
                    "--node",
                    home.settings.rpc_url,
                    "--key",
                    str(key),
                    *learning,
                    "--json",
                    *log_options,
                ),
                on_line=on_miner_line,
                environment={} if passphrase is None else {PASSPHRASE_VARIABLE: passphrase},
                niceness=MINER_NICENESS,
            )
        )
    return tuple(children)
