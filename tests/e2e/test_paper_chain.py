"""The paper's algorithms to the letter on a real CometBFT: mined, followed, replayed, exported."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pol_abci.client.keys import AccountKey
from pol_abci.client.rpc import RpcClient
from pol_abci.client.transactions import build_proof
from pol_abci.rules import errors
from pol_abci.rules.proof import PaperClaim, WalkClaim
from tests.e2e.quick_home import (
    make_quick_home,
    read_chain,
    run_program,
    stop_program,
    wait_for_generation,
    wait_for_status,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.client.chain import ChainStatus
    from pol_abci.rules.proof import Claim

pytestmark = pytest.mark.e2e

GENERATIONS = 4


def make_bad_claims(key: AccountKey, generation: int) -> dict[int, Claim]:
    """Proofs that a node refuses at once, by its code."""
    frame = b"no frame"
    good_form = PaperClaim(
        generation=generation,
        address=key.address,
        ordinals=(1, 2, 3, 4),
        weights=frame,
        weights_digest=hashlib.sha256(frame).digest(),
        weights_root=bytes(32),
    )
    walk = WalkClaim(
        generation=generation,
        address=key.address,
        nonce=1,
        steps=2,
        step_digests=bytes(16),
        weights_root=bytes(32),
    )
    return {
        errors.OtherScheme.code: walk,
        errors.InvalidBatch.code: replace(good_form, ordinals=(1, 2, 3, 1)),
        errors.PendingProof.code: good_form,
    }


async def send_bad_proof(rpc: RpcClient, key: AccountKey, chain_id: str, code: int) -> int:
    """What the node answers; anew where the head has moved on the way."""
    while True:
        status = await wait_for_status(rpc, lambda _: True)
        claim = make_bad_claims(key, status.generation)[code]
        raw = build_proof(key, chain_id, claim, seed=b"", stamp_bits=0)
        answer = await rpc.broadcast_tx_sync(raw)
        if answer.code not in (errors.StaleProof.code, errors.FutureProof.code):
            return answer.code


@pytest.mark.timeout(900)
async def test_a_chain_of_the_paper_s_scheme_learns_and_is_recomputed(tmp_path: Path) -> None:
    home = make_quick_home(tmp_path / "home", name="paper-digits", difficulty_bits=3.0)
    stranger = AccountKey.generate()
    async with (
        run_program("up", "--home", home.path) as up,
        RpcClient(home.settings.rpc_url, timeout_s=5.0) as rpc,
    ):
        await wait_for_generation(rpc, 1)
        for code in (
            errors.OtherScheme.code,
            errors.InvalidBatch.code,
            errors.PendingProof.code,  # what is wrong with it the verifier has to find
        ):
            assert await send_bad_proof(rpc, stranger, home.settings.chain_id, code) == code
        await wait_for_status(rpc, has_found_it_false)
        await wait_for_generation(rpc, GENERATIONS)
        await stop_program(up)
    app_hash, records = read_chain(home)
    assert all(record.correct_ticket > record.correct_head for record in records)
    assert all(len(record.batch) == 16 for record in records)
    assert {record.miner for record in records} == {AccountKey.load(home.account_file).address}

    async with run_program("replay", "--home", home.path) as replay:
        assert await replay.wait() == 0, "\n".join(replay.lines)
    assert replay.lines[-1] == "the same, bit for bit"
    assert app_hash.hex() in replay.lines[-2]

    record = records[GENERATIONS // 2]
    files = []
    for source in (("--home", home.path), ("--audit", home.path / "audit")):
        files.append(tmp_path / source[0])
        wanted = ("--generation", str(record.generation), "--out", files[-1])
        async with run_program("export", *source, *wanted) as export:
            assert await export.wait() == 0, "\n".join(export.lines)
    assert files[0].read_bytes() == files[1].read_bytes()
    provenance = json.loads(files[0].with_name("--home.json").read_text())
    assert provenance["weights_root"] == record.weights_root.hex()


def has_found_it_false(status: ChainStatus) -> bool:
    return status.verifier.false > 0
