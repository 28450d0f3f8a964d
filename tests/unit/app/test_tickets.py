"""Which true tickets a node keeps, submits and proposes."""

from __future__ import annotations

from pol_abci.app.tickets import Ticket, Tickets
from pol_abci.rules.params import Address
from pol_abci.rules.proof import TrueWalk, WalkClaim


def make_ticket(owner: int, score: int, good_time_ms: int, raw: bytes = b"") -> Ticket:
    claim = WalkClaim(
        generation=1,
        address=Address(bytes([owner]) * 20),
        nonce=score,
        steps=2,
        step_digests=bytes(16),
        weights_root=bytes(32),
    )
    return Ticket(raw or b"%d/%d" % (owner, score), claim, TrueWalk(score, 0, 0), good_time_ms)


def test_of_one_address_the_sooner_good_then_the_higher_score_is_kept() -> None:
    tickets = Tickets(256)
    assert tickets.keep(make_ticket(1, 10, 500))
    assert not tickets.keep(make_ticket(1, 99, 600))  # scores more, but its progress holds later
    assert tickets.keep(make_ticket(1, 11, 500))
    assert not tickets.keep(make_ticket(1, 11, 500))
    assert len(tickets) == 1


def test_the_last_to_become_good_gives_way_when_there_is_no_room() -> None:
    tickets = Tickets(limit=2)
    tickets.keep(make_ticket(1, 10, 500))
    tickets.keep(make_ticket(2, 10, 900))
    assert not tickets.keep(make_ticket(3, 10, 901))
    assert tickets.keep(make_ticket(4, 10, 100))
    assert tickets.get_best(10_000) is not None
    soonest = tickets.get_soonest()
    assert soonest is not None
    assert soonest.claim.address[0] == 4
    assert len(tickets) == 2


def test_the_highest_good_score_is_submitted_first() -> None:
    tickets = Tickets(256)
    low, high = make_ticket(1, 10, 100), make_ticket(2, 20, 300)
    tickets.keep(low)
    tickets.keep(high)
    assert tickets.get_best(99) is None
    assert tickets.get_best(100) is low
    assert tickets.get_best(300) is high


def test_only_what_checktx_accepted_in_time_is_proposed() -> None:
    tickets = Tickets(256)
    early, late = make_ticket(1, 10, 0), make_ticket(2, 20, 0)
    tickets.keep(early)
    tickets.keep(late)
    assert tickets.get_best_accepted(50, 100) is None
    tickets.mark_accepted(early.claim.address, early.raw, 60)
    tickets.mark_accepted(late.claim.address, late.raw, 140)
    assert tickets.get_best_accepted(50, 100) is early
    assert tickets.get_best_accepted(50, 140) is late


def test_a_recheck_keeps_the_first_acceptance_and_a_refusal_drops_it() -> None:
    tickets = Tickets(256)
    ticket = make_ticket(1, 10, 0)
    tickets.keep(ticket)
    tickets.mark_accepted(ticket.claim.address, ticket.raw, 60)
    tickets.mark_accepted(ticket.claim.address, ticket.raw, 90)
    assert ticket.accepted_time_ms == 60
    tickets.mark_accepted(ticket.claim.address, b"other bytes of the same address", 10)
    assert ticket.accepted_time_ms == 60
    tickets.mark_refused(ticket.claim.address, ticket.raw)
    assert tickets.get_best_accepted(50, 10_000) is None


def test_equal_scores_go_by_the_lower_transaction_hash() -> None:
    tickets = Tickets(256)
    one, two = make_ticket(1, 10, 0, b"a"), make_ticket(2, 10, 0, b"b")
    tickets.keep(one)
    tickets.keep(two)
    # SHA-256 of "b" begins with 3e, of "a" with ca
    assert tickets.get_best(0) is two
