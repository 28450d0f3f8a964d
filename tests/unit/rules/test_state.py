"""Overlays behave as a copy of the state would, however deep, and leave what is beneath alone."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pol_abci.rules.codec import Ring, Supply
from pol_abci.rules.merkle import bucket_of
from pol_abci.rules.state import DictState, Overlay, RememberedState


def find_keys_of_one_bucket() -> list[bytes]:
    found: dict[int, list[bytes]] = {}
    for number in range(10**6):
        same = found.setdefault(bucket_of(b"%d" % number), [])
        same.append(b"%d" % number)
        if len(same) == 4:
            return same
    raise AssertionError("no four keys share a bucket")


SAME_BUCKET = find_keys_of_one_bucket()
KEYS = [*SAME_BUCKET, b"one elsewhere", b"two elsewhere"]
BUCKET_OF = {key: bucket_of(key) for key in KEYS}
PAYLOADS = st.binary(max_size=3)
RECORDS = st.builds(Ring, counter=st.integers(0, 300))


class OverlayMachine(RuleBasedStateMachine):
    """A stack of overlays against a stack of plain dictionaries."""

    @initialize(entries=st.dictionaries(st.sampled_from(KEYS), PAYLOADS))
    def start(self, entries: dict[bytes, bytes]) -> None:
        self.base = DictState(entries)
        self.entries = dict(entries)
        self.overlays = [Overlay(self.base)]
        self.models = [dict(entries)]

    @rule(key=st.sampled_from(KEYS), payload=PAYLOADS)
    def set(self, key: bytes, payload: bytes) -> None:
        self.overlays[-1].set(key, payload)
        self.models[-1][key] = payload

    @rule(key=st.sampled_from(KEYS), record=RECORDS)
    def set_record(self, key: bytes, record: Ring) -> None:
        self.overlays[-1].set(key, record)
        self.models[-1][key] = record.encode()
        assert self.overlays[-1].get_record(key, Ring) == record

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: bytes) -> None:
        self.overlays[-1].delete(key)
        self.models[-1].pop(key, None)

    @rule()
    def fork(self) -> None:
        self.overlays.append(Overlay(self.overlays[-1]))
        self.models.append(dict(self.models[-1]))

    @rule()
    def drop(self) -> None:
        if len(self.overlays) > 1:
            self.overlays.pop()
            self.models.pop()

    @rule()
    def merge(self) -> None:
        if len(self.overlays) > 1:
            top = self.overlays.pop()
            top.merge_into_base()
            assert top.changes == {}
            self.models[-2:] = [self.models[-1]]

    @invariant()
    def reads_agree(self) -> None:
        for overlay, model in zip(self.overlays, self.models, strict=True):
            for key in KEYS:
                assert overlay.get(key) == model.get(key)
            for index in sorted(set(BUCKET_OF.values())):
                bucket = [item for item in sorted(model.items()) if BUCKET_OF[item[0]] == index]
                assert list(overlay.bucket(index)) == bucket

    @invariant()
    def base_is_untouched(self) -> None:
        assert {key: self.base.get(key) for key in KEYS} == {
            key: self.entries.get(key) for key in KEYS
        }

    @invariant()
    def changes_lead_from_base_to_state(self) -> None:
        state = dict(self.entries)
        for key, payload in self.overlays[0].changes.items():
            if payload is None:
                state.pop(key, None)
            else:
                state[key] = payload
        assert state == self.models[0]


TestOverlay = OverlayMachine.TestCase
TestOverlay.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_bucket_merges_changes_in_order_of_keys() -> None:
    first, second, third, fourth = sorted(SAME_BUCKET)
    overlay = Overlay(DictState({fourth: b"4", second: b"2", first: b"1"}))
    overlay.set(third, b"3")
    overlay.delete(second)
    overlay.set(first, b"new")
    assert list(overlay.bucket(bucket_of(first))) == [
        (first, b"new"),
        (third, b"3"),
        (fourth, b"4"),
    ]


def test_deleting_what_is_not_there_is_recorded_and_harmless() -> None:
    overlay = Overlay(DictState())
    overlay.delete(b"key")
    assert overlay.get(b"key") is None
    assert overlay.changes == {b"key": None}


def test_merge_refuses_a_base_that_cannot_be_written() -> None:
    overlay = Overlay(DictState())
    overlay.set(b"key", b"payload")
    with pytest.raises(TypeError, match="only an overlay"):
        overlay.merge_into_base()


class CountingState(DictState):
    """Counts what is read."""

    reads = 0

    def get(self, key: bytes) -> bytes | None:
        self.reads += 1
        return super().get(key)


def test_a_remembered_state_reads_each_key_once_and_also_that_it_is_absent() -> None:
    counting = CountingState({b"there": b"1"})
    state = RememberedState(counting)
    for _ in range(3):
        assert (state.get(b"there"), state.get(b"absent")) == (b"1", None)
    assert counting.reads == 2


def test_strangers_cannot_fill_the_memory_of_a_remembered_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pol_abci.rules.state.REMEMBERED_KEYS", 8)
    state = RememberedState(DictState({b"3": b"three"}))
    for number in range(100):
        assert state.get(b"%d" % number) == (b"three" if number == 3 else None)
        assert len(state._known) <= 8


def test_strangers_cannot_fill_it_with_records_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pol_abci.rules.state.REMEMBERED_KEYS", 8)
    rings = {b"%d" % number: Ring(counter=number) for number in range(100)}
    state = RememberedState(DictState({key: ring.encode() for key, ring in rings.items()}))
    for key, ring in rings.items():
        assert state.get_record(key, Ring) == ring
        assert len(state._known) <= 8


@pytest.mark.parametrize("kind", [DictState, RememberedState, Overlay])
def test_a_record_is_of_the_kind_that_was_asked_for(kind: type) -> None:
    base = DictState({b"key": Ring(counter=7).encode()})
    state = base if kind is DictState else kind(base)
    for _ in range(2):
        assert state.get_record(b"key", Ring) == Ring(counter=7)
        assert state.get_record(b"key", Supply) == Supply(issued=7)
        assert state.get_record(b"absent", Ring) is None


def test_a_written_record_is_of_the_kind_that_was_asked_for() -> None:
    overlay = Overlay(DictState({b"key": Supply(issued=1).encode()}))
    overlay.set(b"key", Ring(counter=7))
    fork = Overlay(overlay)
    assert fork.get_record(b"key", Ring) == Ring(counter=7)
    assert fork.get_record(b"key", Supply) == Supply(issued=7)
    fork.delete(b"key")
    assert fork.get_record(b"key", Ring) is None
    assert overlay.changes == {b"key": Ring(counter=7).encode()}


def test_what_is_known_of_a_state_is_known_of_the_next_one() -> None:
    before = {b"kept": b"1", b"changed": b"2", b"deleted": b"3"}
    state = RememberedState(DictState(before))
    assert [state.get(key) for key in (*before, b"made")] == [b"1", b"2", b"3", None]
    written = Overlay(state)
    written.set(b"changed", Ring(counter=2))
    written.set(b"made", b"4")
    written.delete(b"deleted")
    after = CountingState({b"kept": b"1", b"changed": Ring(counter=2).encode(), b"made": b"4"})
    advanced = state.advance(after, written)
    assert {key: advanced.get(key) for key in (*before, b"made")} == {
        b"kept": b"1",
        b"changed": Ring(counter=2).encode(),
        b"deleted": None,
        b"made": b"4",
    }
    assert after.reads == 0
    assert [state.get(key) for key in (*before, b"made")] == [b"1", b"2", b"3", None]


def test_a_state_that_knows_too_much_goes_on_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pol_abci.rules.state.REMEMBERED_KEYS", 8)
    state = RememberedState(DictState())
    for number in range(8):
        state.get(b"%d" % number)
    written = Overlay(state)
    written.set(b"key", b"payload")
    advanced = state.advance(DictState({b"key": b"payload", b"3": b"three"}), written)
    assert (advanced.get(b"key"), len(advanced._known)) == (b"payload", 1)
