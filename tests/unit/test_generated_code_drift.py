"""The checked-in protobuf modules are what the schemas compile to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("pol_abci/rules/generated", "pol_abci/abci/generated")


def read_modules(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for package in PACKAGES
        for path in (root / package).rglob("*.py*")
        if path.suffix in {".py", ".pyi"}
    }


def test_checked_in_modules_are_generated_from_the_schemas(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CHECKOUT / "proto" / "generate.py", tmp_path], check=True)
    fresh = read_modules(tmp_path)
    assert "pol_abci/rules/generated/tx_pb2.py" in fresh
    assert read_modules(CHECKOUT) == fresh, "run `make proto`"
