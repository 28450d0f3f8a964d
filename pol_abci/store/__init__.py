"""The node's state on disk: one LMDB environment, one transaction a block."""
