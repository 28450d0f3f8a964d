"""What a user or a miner needs of a node that it does not run: RPC, proofs, keys, transactions."""
