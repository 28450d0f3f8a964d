"""What the rules read and write: a state of keys and payloads, and throw-away forks of it.

A payload is the encoded record itself; how it is stored and hashed is `rules.merkle`'s concern.
Every path of the application runs the same rules on an `Overlay`: a commit keeps its changes,
everything else drops it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pol_abci.rules.merkle import bucket_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REMEMBERED_KEYS = 16_384
"""A few MB; strangers choose which keys are read."""


class StateReader(Protocol):
    """A state as of some moment."""

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""

    def bucket(self, index: int) -> Iterable[tuple[bytes, bytes]]:
        """Keys and payloads of one of the 65,536 buckets, sorted by key."""


class DictState:
    """A state held in a plain dictionary: before genesis, and in tests."""

    def __init__(self, entries: Mapping[bytes, bytes] | None = None) -> None:
        self._entries = dict(entries or {})

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""
        return self._entries.get(key)

    def bucket(self, index: int) -> list[tuple[bytes, bytes]]:
        """Entries of one bucket, sorted by key; looks at every entry of the state."""
        return [item for item in sorted(self._entries.items()) if bucket_of(item[0]) == index]


class RememberedState:
    """A state that stays as it is, read from a slow place once for each key."""

    def __init__(self, base: StateReader) -> None:
        self._base = base
        self._known: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""
        if key in self._known:
            return self._known[key]
        payload = self._base.get(key)
        if len(self._known) >= REMEMBERED_KEYS:
            self._known.clear()
        self._known[key] = payload
        return payload

    def bucket(self, index: int) -> Iterable[tuple[bytes, bytes]]:
        """Entries of one bucket, sorted by key."""
        return self._base.bucket(index)


class Overlay:
    """Changes on top of a state that stays as it is.

    `changes` maps each key written since to its payload, or to None where it was deleted.
    """

    def __init__(self, base: StateReader) -> None:
        self._base = base
        self.changes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""
        if key in self.changes:
            return self.changes[key]
        return self._base.get(key)

    def bucket(self, index: int) -> list[tuple[bytes, bytes]]:
        """Entries of one bucket with the changes made here, sorted by key; looks at all changes."""
        entries: dict[bytes, bytes | None] = dict(self._base.bucket(index))
        entries.update(item for item in self.changes.items() if bucket_of(item[0]) == index)
        return [(key, payload) for key, payload in sorted(entries.items()) if payload is not None]

    def set(self, key: bytes, payload: bytes) -> None:
        """Put `payload` under `key`."""
        self.changes[key] = payload

    def delete(self, key: bytes) -> None:
        """Take `key` out of the state; nothing happens where it is not there."""
        self.changes[key] = None

    def merge_into_base(self) -> None:
        """Move all changes to the overlay beneath and start again with none.

        Raises
        ------
        TypeError
            When what lies beneath is not an overlay and so cannot be written.
        """
        if not isinstance(self._base, Overlay):
            raise TypeError("only an overlay takes the changes of the overlay above it")
        self._base.changes.update(self.changes)
        self.changes = {}
