"""Mines over a node's RPC: follows the chain, searches for a proof, sends it when it is good."""
