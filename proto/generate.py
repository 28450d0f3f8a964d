# noqa: INP001 (a script beside the schemas that it compiles, never imported)
"""Compile the protobuf schemas of this folder into the packages that use them.

One command, `python proto/generate.py [ROOT]`. ROOT is the checkout by default; a test gives a
temporary folder and compares. `proto/<source>/x/y.proto` becomes `<target>/x/y_pb2.py` with a
typed stub beside it. The compiler writes imports as if `proto/` were on the path; they are
rewritten to where the modules lie, so that nothing needs a path of its own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
TARGETS = {
    "pol/v1": "pol_abci/rules/generated",
    "tendermint": "pol_abci/abci/generated",
}
PACKAGE_DOCSTRING = '"""Made from proto/{source} by proto/generate.py; not edited by hand."""\n'


def compile_schemas(out: Path) -> None:
    """Compile every schema of TARGETS into `out`, laid out as below `proto/`."""
    schemas = sorted(
        path.relative_to(PROTO).as_posix()
        for source in TARGETS
        for path in (PROTO / source).rglob("*.proto")
    )
    stubs = Path(sys.executable).parent / "protoc-gen-mypy"
    arguments = [
        "protoc",
        f"--proto_path={PROTO}",
        f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",
        f"--plugin=protoc-gen-mypy={stubs}",
        f"--python_out={out}",
        f"--mypy_out=quiet:{out}",
        *schemas,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed; its message is above")


def move_modules(compiled: Path, root: Path) -> None:
    """Put the compiled modules into their packages below `root`, imports rewritten."""
    for source, target in TARGETS.items():
        if not (compiled / source).is_dir():
            continue
        destination = root / target
        shutil.rmtree(destination, ignore_errors=True)
        for path in sorted((compiled / source).rglob("*_pb2.py*")):
            moved = destination / path.relative_to(compiled / source)
            moved.parent.mkdir(parents=True, exist_ok=True)
            moved.write_text(rewrite_imports(path.read_text()))
        docstring = PACKAGE_DOCSTRING.format(source=source)
        for folder in {path.parent for path in destination.rglob("*_pb2.py")} | {destination}:
            (folder / "__init__.py").write_text(docstring)


def rewrite_imports(module: str) -> str:
    """Name modules by the packages that they are moved to."""
    for source, target in TARGETS.items():
        compiled, moved = re.escape(source.replace("/", ".")), target.replace("/", ".")
        module = re.sub(rf"(?m)^from {compiled}(?=[. ])", f"from {moved}", module)
        module = re.sub(rf"(?<=DESCRIPTOR, '){compiled}(?=\.)", moved, module)
    return module


def main() -> None:
    """Parse the command line and generate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=PROTO.parent)
    root = parser.parse_args().root
    with tempfile.TemporaryDirectory() as compiled:
        compile_schemas(Path(compiled))
        move_modules(Path(compiled), root)


if __name__ == "__main__":
    main()
