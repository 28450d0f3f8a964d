"""What can go wrong in asking a node, each in words that say what to do.

    PolError
     + InvalidNodeUrl      the user's
     + NodeUnreachable     nobody answers there, or not in time; trying again may help
     + RpcError            the node answered, and says no
        + UnexpectedAnswer the answer is not one of CometBFT's
        + TxInCache        the node has seen these very bytes
        + BlockPruned      the node has deleted that block, or never had it

Each kind of `RpcError` is one too.
"""

from __future__ import annotations

from pol_abci.rules.errors import PolError


class InvalidNodeUrl(PolError):
    """Text that is not the address of a node's RPC."""


class NodeUnreachable(PolError):
    """No answer from the node: down, refusing, or too slow."""


class RpcError(PolError):
    """The node answered with an error."""


class UnexpectedAnswer(RpcError):
    """Something answers there, but not as CometBFT does."""


class TxInCache(RpcError):
    """The node has seen these very bytes and would not look at them again now."""


class BlockPruned(RpcError):
    """A block from before the oldest that the node has."""
