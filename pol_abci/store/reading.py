"""Reading the state of one version, without holding anything between two reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pol_abci.rules.merkle import bucket_of
from pol_abci.rules.state import StateReader
from pol_abci.store import buckets, layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pol_abci.store.environment import Environment
    from pol_abci.store.versions import Undone


class StateOfVersion(StateReader):
    """The state of one version; each read is a transaction of its own.

    `get_undone` gives what the newest state must be overlaid with to be this version's, and
    raises RuntimeError where that is not known any more.
    """

    def __init__(
        self, environment: Environment, directory: Path, get_undone: Callable[[], Undone]
    ) -> None:
        self._environment = environment
        self._directory = directory
        self._get_undone = get_undone

    def get(self, key: bytes) -> bytes | None:
        """Payload under `key`, or None.

        Raises
        ------
        DamagedStore
            When what is there is not what was committed.
        """
        entry = self._get_entry(key)
        return None if entry is None else buckets.read_payload(self._directory, key, entry)

    def bucket(self, index: int) -> list[tuple[bytes, bytes]]:
        """Keys and payloads of a bucket, sorted by key.

        Raises
        ------
        DamagedStore
            When one is not what was committed.
        """
        changed = self._get_undone().get(index, {})
        with self._environment.read() as transaction:
            entries = buckets.change(buckets.read(transaction, index), changed)
        return [(key, buckets.read_payload(self._directory, key, entry)) for key, entry in entries]

    def _get_entry(self, key: bytes) -> bytes | None:
        undone = self._get_undone()
        if undone:
            changed = undone.get(bucket_of(key), {})
            if key in changed:
                return changed[key]
        if not 0 < len(key) <= layout.MAX_STATE_KEY_BYTES:
            return None
        with self._environment.read() as transaction:
            return transaction.get(layout.STATE, layout.encode_state_key(key))
