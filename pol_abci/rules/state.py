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


class Overlay:
    """Changes on top of a state that stays as it is.

    `changes` maps each key written since to its payload, or to None where it was deleted.
    """

    def __init__(self, base: StateReader) -> None:
        self._base = base
        self._keys_of_bucket: dict[int, list[bytes]] = {}
        self.changes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None."""
        if key in self.changes:
            return self.changes[key]
        return self._base.get(key)

    def bucket(self, index: int) -> list[tuple[bytes, bytes]]:
        """Entries of one bucket with the changes made here, sorted by key."""
        entries: dict[bytes, bytes | None] = dict(self._base.bucket(index))
        entries.update((key, self.changes[key]) for key in self._keys_of_bucket.get(index, ()))
        return [(key, payload) for key, payload in sorted(entries.items()) if payload is not None]

    def set(self, key: bytes, payload: bytes) -> None:
        """Put `payload` under `key`."""
        self._write(key, payload)

    def delete(self, key: bytes) -> None:
        """Take `key` out of the state; nothing happens where it is not there."""
        self._write(key, None)

    def merge_into_base(self) -> None:
        """Move all changes to the overlay beneath and start again with none.

        Raises
        ------
        TypeError
            When what lies beneath is not an overlay and so cannot be written.
        """
        if not isinstance(self._base, Overlay):
            raise TypeError("only an overlay takes the changes of the overlay above it")
        for key, payload in self.changes.items():
            self._base._write(key, payload)  # noqa: SLF001  # same class
        self.changes = {}
        self._keys_of_bucket = {}

    def _write(self, key: bytes, payload: bytes | None) -> None:
        if key not in self.changes:
            self._keys_of_bucket.setdefault(bucket_of(key), []).append(key)
        self.changes[key] = payload
