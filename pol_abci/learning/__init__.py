"""Exact training: the same bits on every machine, protocol sections 2 to 6. torch lives here."""
