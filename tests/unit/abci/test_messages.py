"""What a wrong number in a schema would break first, and what the server must know of it."""

from __future__ import annotations

import pytest

from pol_abci.abci.generated.abci import types_pb2 as pb
from pol_abci.abci.server import get_calls
from tests.abci.counting_app import CountingApp, Disk

# CometBFT v0.38, spec/abci: numbers in Request and in Response
NUMBERS = {
    "echo": (1, 2),
    "flush": (2, 3),
    "info": (3, 4),
    "init_chain": (5, 6),
    "query": (6, 7),
    "check_tx": (8, 9),
    "commit": (11, 12),
    "list_snapshots": (12, 13),
    "offer_snapshot": (13, 14),
    "load_snapshot_chunk": (14, 15),
    "apply_snapshot_chunk": (15, 16),
    "prepare_proposal": (16, 17),
    "process_proposal": (17, 18),
    "extend_vote": (18, 19),
    "verify_vote_extension": (19, 20),
    "finalize_block": (20, 21),
}


def test_requests_and_replies_have_the_specifications_numbers() -> None:
    requests = {field.name: field.number for field in pb.Request.DESCRIPTOR.fields}
    replies = {field.name: field.number for field in pb.Response.DESCRIPTOR.fields}
    assert replies.pop("exception") == 1
    assert requests == {name: numbers[0] for name, numbers in NUMBERS.items()}
    assert replies == {name: numbers[1] for name, numbers in NUMBERS.items()}


def test_every_request_is_answered_by_the_server_or_the_application() -> None:
    assert {"echo", "flush", *get_calls(CountingApp(Disk()))} == NUMBERS.keys()


async def test_an_application_without_snapshots_says_so() -> None:
    app = CountingApp(Disk())
    assert not (await app.list_snapshots(pb.RequestListSnapshots())).snapshots
    offered = await app.offer_snapshot(pb.RequestOfferSnapshot())
    assert offered.result == pb.ResponseOfferSnapshot.ABORT
    applied = await app.apply_snapshot_chunk(pb.RequestApplySnapshotChunk())
    assert applied.result == pb.ResponseApplySnapshotChunk.ABORT
    assert not (await app.load_snapshot_chunk(pb.RequestLoadSnapshotChunk())).chunk


@pytest.mark.parametrize(
    ("extension", "status"),
    [(b"", pb.ResponseVerifyVoteExtension.ACCEPT), (b"x", pb.ResponseVerifyVoteExtension.REJECT)],
)
async def test_votes_are_not_extended(
    extension: bytes, status: pb.ResponseVerifyVoteExtension.VerifyStatus.ValueType
) -> None:
    app = CountingApp(Disk())
    assert not (await app.extend_vote(pb.RequestExtendVote())).vote_extension
    request = pb.RequestVerifyVoteExtension(vote_extension=extension)
    assert (await app.verify_vote_extension(request)).status == status
