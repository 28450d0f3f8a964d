"""Proof of Learning as an ABCI 2.0 application beside a stock CometBFT node."""

__version__ = "0.1.0"
