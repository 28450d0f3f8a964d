"""The auditor: recomputes a chain from its genesis and its blocks; any generation's model."""
