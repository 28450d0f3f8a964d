"""What can be wrong with a store, in words that say what to do.

The classes are for programs that react to one of them; the messages are for people.

    PolError
     + StoreError
        + StoreLocked            another process has it open
        + StoreNotWritable       its folder cannot be written
        + ForeignStore           not a file that this program made
        + UnknownStoreFormat     made by another version of this program
        + OtherChain             holds another chain, or the same name from another genesis
        + DamagedStore           what is on disk is not what was committed
        + StoreFull              no room to write, or the disk fails
        + HeightUnavailable      neither the newest version nor the one before it
        + NoPreviousVersion      nothing left to roll back to
        + WrongSnapshot          a snapshot of a peer that is not what it was offered as
"""

from __future__ import annotations

from pol_abci.rules.errors import PolError


class StoreError(PolError):
    """Any fault of the store that is not a bug of its caller."""


class StoreLocked(StoreError):
    """Another process has the store open; two of them would write over each other."""


class StoreNotWritable(StoreError):
    """The folder, or a file in it, cannot be made or written."""


class ForeignStore(StoreError):
    """The data file is no store of this program, or no LMDB file at all."""


class UnknownStoreFormat(StoreError):
    """The data file has a format that this version of the program does not know."""


class OtherChain(StoreError):
    """The store belongs to another chain id or another genesis."""


class DamagedStore(StoreError):
    """What is on disk is not what was committed."""


class StoreFull(StoreError):
    """A write did not reach the disk: no room, a limit, or a failing device."""


class HeightUnavailable(StoreError):
    """Only the newest version and the one before it can be queried."""


class NoPreviousVersion(StoreError):
    """The version before the newest one is not there any more, or never was."""


class WrongSnapshot(StoreError):
    """A snapshot's metadata or content is malformed, or not that of the app hash."""
