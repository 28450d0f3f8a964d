"""Where this package keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def get_cache_folder() -> Path:
    """Return this package's folder in the user's cache; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification wants relative paths ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "pol_abci"
