"""What the rules read and write: a state of keys and payloads, and throw-away forks of it.

A payload is the encoded record itself; how it is stored and hashed is `rules.merkle`'s concern.
Every path of the application runs the same rules on an `Overlay`: a commit keeps its changes,
everything else drops it. A record that is written is encoded when its payload is asked for, which
for most of them is never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from pol_abci.rules.codec import Record
from pol_abci.rules.merkle import bucket_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AnyRecord = TypeVar("AnyRecord", bound=Record)

REMEMBERED_KEYS = 16_384
"""Some 8 MB; strangers choose which keys are read."""


class StateReader(Protocol):
    """A state as of some moment."""

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""

    def get_record(self, key: bytes, kind: type[AnyRecord]) -> AnyRecord | None:
        """Record of this kind under `key`, or None; MalformedRecord where there is another."""
        payload = self.get(key)
        return None if payload is None else kind.decode(payload)

    def bucket(self, index: int) -> Iterable[tuple[bytes, bytes]]:
        """Keys and payloads of one of the 65,536 buckets, sorted by key."""


class DictState(StateReader):
    """A state held in a plain dictionary: before genesis, and in tests."""

    def __init__(self, entries: Mapping[bytes, bytes] | None = None) -> None:
        self._entries = dict(entries or {})

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""
        return self._entries.get(key)

    def bucket(self, index: int) -> list[tuple[bytes, bytes]]:
        """Entries of one bucket, sorted by key; looks at every entry of the state."""
        return [item for item in sorted(self._entries.items()) if bucket_of(item[0]) == index]


class RememberedState(StateReader):
    """A state that stays as it is, read from a slow place and decoded once for each key."""

    def __init__(self, base: StateReader) -> None:
        self._base = base
        self._known: dict[bytes, bytes | Record | None] = {}

    def advance(self, base: StateReader, overlay: Overlay) -> RememberedState:
        """The state that `overlay`, made on this one, has become, and that `base` now reads.

        What is known of this state and was not written since is known of that one.
        """
        advanced = RememberedState(base)
        if len(self._known) + len(overlay.written) <= REMEMBERED_KEYS:
            advanced._known = self._known | overlay.written
        return advanced

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""
        if key in self._known:
            return _encode(self._known[key])
        payload = self._base.get(key)
        if len(self._known) >= REMEMBERED_KEYS:
            self._known.clear()
        self._known[key] = payload
        return payload

    def get_record(self, key: bytes, kind: type[AnyRecord]) -> AnyRecord | None:
        """Record of this kind under `key`, or None."""
        known = self._known.get(key)
        if isinstance(known, kind):
            return known
        record = super().get_record(key, kind)
        if record is not None:
            self._known[key] = record
        return record

    def bucket(self, index: int) -> Iterable[tuple[bytes, bytes]]:
        """Entries of one bucket, sorted by key."""
        return self._base.bucket(index)


class Overlay(StateReader):
    """Changes on top of a state that stays as it is.

    `written` maps each key written since to its payload or record, or to None where it was deleted.
    """

    def __init__(self, base: StateReader) -> None:
        self._base = base
        self.written: dict[bytes, bytes | Record | None] = {}

    @property
    def changes(self) -> dict[bytes, bytes | None]:
        """What was written, all of it as payloads; encoded on each call."""
        return {key: _encode(value) for key, value in self.written.items()}

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""
        if key in self.written:
            return _encode(self.written[key])
        return self._base.get(key)

    def get_record(self, key: bytes, kind: type[AnyRecord]) -> AnyRecord | None:
        """Record of this kind under `key`, or None."""
        if key not in self.written:
            return self._base.get_record(key, kind)
        value = self.written[key]
        return value if isinstance(value, kind) else super().get_record(key, kind)

    def bucket(self, index: int) -> list[tuple[bytes, bytes]]:
        """Entries of one bucket with the changes made here, sorted by key; looks at all changes."""
        entries: dict[bytes, bytes | None] = dict(self._base.bucket(index))
        for key, value in self.written.items():
            if bucket_of(key) == index:
                entries[key] = _encode(value)
        return [(key, payload) for key, payload in sorted(entries.items()) if payload is not None]

    def set(self, key: bytes, value: bytes | Record) -> None:
        """Put a payload, or the record that it is of, under `key`."""
        self.written[key] = value

    def delete(self, key: bytes) -> None:
        """Take `key` out of the state; nothing happens where it is not there."""
        self.written[key] = None

    def merge_into_base(self) -> None:
        """Move all changes to the overlay beneath and start again with none.

        Raises
        ------
        TypeError
            When what lies beneath is not an overlay and so cannot be written.
        """
        if not isinstance(self._base, Overlay):
            raise TypeError("only an overlay takes the changes of the overlay above it")
        self._base.written.update(self.written)
        self.written = {}


def _encode(value: bytes | Record | None) -> bytes | None:
    return value.encode() if isinstance(value, Record) else value
