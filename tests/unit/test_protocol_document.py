"""docs/protocol.md says what the code does: its tables are read and held against it."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import pol_abci
from pol_abci.app.info import Info
from pol_abci.learning.datasets import get_dataset_names
from pol_abci.node.presets import load_preset
from pol_abci.rules import errors, keys
from pol_abci.rules.codec import Record
from pol_abci.rules.generated import state_pb2, tx_pb2
from pol_abci.rules.genesis import genesis_to_json, params_to_json, parse_genesis, parse_params
from pol_abci.rules.state import DictState, Overlay
from pol_abci.rules.transition import process_block
from tests.unit.rules import build_chain as make

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import FieldDescriptor

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs" / "protocol.md").read_text(encoding="utf-8")
PACKAGE = Path(pol_abci.__file__).parent
MESSAGES = {
    name: descriptor
    for file in (state_pb2, tx_pb2)
    for name, descriptor in file.DESCRIPTOR.message_types_by_name.items()
}
TYPES = {3: "int64", 4: "uint64", 6: "fixed64", 8: "bool", 12: "bytes", 13: "uint32"}
PARAMS = params_to_json(load_preset("digits").params)
PAPER = params_to_json(load_preset("paper-digits").params)


def read_tables(title: str) -> Iterator[list[list[str]]]:
    """Tables under a heading, each without its first two rows, cells without backticks."""
    found = re.search(
        rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL
    )
    assert found, f"the document has no heading {title!r}"
    for table in re.findall(r"(?:^\|.*\n)+", found[1], re.MULTILINE):
        lines = table.splitlines()[2:]
        yield [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]


def read_table(title: str) -> list[list[str]]:
    return next(read_tables(title))


def read_sources() -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py")))


def get_codes() -> dict[int, str]:
    return {kind.code: kind.__name__ for kind in errors.InvalidTx.__subclasses__()}


def test_codes_are_the_classes() -> None:
    documented = {int(code): name for code, name, _ in read_table("15. Codes")}
    assert documented == {errors.CODE_OK: "", errors.CODE_FAILED: "", **get_codes()}


def test_keys_are_the_functions() -> None:
    functions = dict(inspect.getmembers(keys, inspect.isfunction))
    rows = read_table("Keys")
    assert {row[1] for row in rows} == set(functions)
    for key, name, *_ in rows:
        function = functions[name]
        values = [
            7 if parameter.annotation == "int" else b"\x07" * 20
            for parameter in inspect.signature(function).parameters.values()
        ]
        prefix, *parts = key.split(" ‖ ")
        sizes = {"u64": 8, "u32": 4}
        length = sum(sizes.get(part.split()[0], 20) for part in parts)
        made = function(*values)
        assert made.startswith(prefix.encode()), key
        assert len(made) == len(prefix) + length, key


def test_values_of_keys_are_records() -> None:
    records = {kind.PROTOBUF.DESCRIPTOR.name for kind in Record.__subclasses__()} | {"ValidatorSet"}
    values = {row[2] for row in read_table("Keys")} - {"20 bytes: the owner's address"}
    # The others are part of a set, or remembered beside the state.
    assert values == records - {"Validator", "GenerationRecord"}


def describe_type(field: FieldDescriptor) -> str:
    name = field.message_type.name if field.message_type else TYPES[field.type]
    return f"repeated {name}" if field.is_repeated else name


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_fields_are_those_of_the_message(name: str) -> None:
    documented = [row[:3] for table in read_tables(name) for row in table]
    fields = sorted(MESSAGES[name].fields, key=lambda field: field.number)
    assert documented == [[str(f.number), f.name, describe_type(f)] for f in fields]


def list_keys(value: Any, path: str = "") -> Iterator[str]:
    """Names of all members: `a.b` in an object, `a[].b` in a list of objects."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from list_keys(member, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from list_keys(value[0], f"{path}[]")
    else:
        yield path


def test_genesis_keys_are_those_of_the_format() -> None:
    documented = {row[0] for row in read_table("2. Genesis")}
    of_paper = {key for key in documented if key.startswith("paper.")}
    assert documented - of_paper == set(list_keys(genesis_to_json(make.genesis())))
    in_params = {key for key in documented if not key.startswith(("accounts", "ring", "weights_"))}
    assert in_params == set(list_keys(PARAMS)) | set(list_keys(PAPER))
    assert of_paper == set(list_keys(PAPER)) - set(list_keys(PARAMS))


def set_member(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a document with one of its members changed."""
    changed = deepcopy(document)
    *sections, last = path.split(".")
    place = changed
    for section in sections:
        place = place[section]
    place[last] = value
    return changed


def list_ranges() -> list[tuple[str, str, int, int]]:
    rows = []
    for path, kind, limits in read_table("2. Genesis"):
        bounds = re.match(r"(\d+) to (\d+)", limits)
        if bounds and kind in ("integer", "amount") and "[]" not in path:
            rows.append((path, kind, int(bounds[1]), int(bounds[2])))
    return rows


@pytest.mark.parametrize(("path", "kind", "low", "high"), list_ranges())
def test_genesis_ranges_are_the_parsers(path: str, kind: str, low: int, high: int) -> None:
    # A walk's limits depend on each other: the widest.
    widest = set_member(set_member(PARAMS, "walk.min_steps", 2), "walk.max_steps", 65_536)
    base = PAPER if path.startswith("paper.") else widest
    for value in (low, high):
        given = str(value) if kind == "amount" else value
        assert params_to_json(parse_params(set_member(base, path, given)))
    for value in (low - 1, high + 1):
        given = str(value) if kind == "amount" else value
        with pytest.raises(errors.GenesisError, match=re.escape(path)):
            parse_params(set_member(base, path, given))


def test_choices_of_genesis_are_taken_and_others_refused() -> None:
    for path, kind, choices in read_table("2. Genesis"):
        if kind == "word":
            for choice in choices.split(", "):
                base = PAPER if choice == "paper" else PARAMS
                parse_params(set_member(base, path, choice))
            with pytest.raises(errors.GenesisError, match=f"one of {choices}$"):
                parse_params(set_member(PARAMS, path, "else"))


def test_datasets_are_those_of_the_registry() -> None:
    keys_of_genesis, orders = read_tables("2. Genesis")
    (listed,) = (row[2] for row in keys_of_genesis if row[0] == "task.dataset")
    assert listed.split(", ") == [row[0] for row in orders] == get_dataset_names()


def test_presets_genesis_is_read_as_documented() -> None:
    document = genesis_to_json(make.genesis())
    assert genesis_to_json(parse_genesis(json.loads(json.dumps(document)))) == document


def test_tags_are_those_of_the_sources() -> None:
    calls = re.findall(r"\b(?:hash_fields|Stream|_encode_fields)\(\s*\"([^\"]+)\"", read_sources())
    assert [row[0] for row in read_table("1. Bytes, hashes, streams")] != []
    assert {row[0] for row in read_table("1. Bytes, hashes, streams")} == set(calls)


def test_event_types_are_those_of_the_sources() -> None:
    types = set(re.findall(r"\bEvent\(\s*\"([^\"]+)\"", read_sources()))
    assert {row[0] for row in read_table("Events")} == types


def test_events_have_the_documented_attributes() -> None:
    documented = {row[0]: row[1].split(", ") for row in read_table("Events")}
    seen = set()
    for name in ("ledger", "shares", "transition"):
        for case in json.loads((REPOSITORY / f"tests/vectors/{name}.json").read_text("ascii")):
            state = Overlay(DictState())
            for key, payload in case["pre"].items():
                state.set(bytes.fromhex(key), bytes.fromhex(payload))
            outcome = process_block(
                state,
                make.chain_context(),
                make.block_context(case["block"]),
                [make.read_tx(bytes.fromhex(tx["raw"])) for tx in case["txs"]],
                make.build_verdicts(case["txs"]),
            )
            for event in (*outcome.events, *(e for tx in outcome.txs for e in tx.events)):
                assert [key for key, _ in event.attributes] == documented[event.type]
                seen.add(event.type)
    assert seen == set(documented)


def test_query_paths_are_those_served() -> None:
    documented = {row[0] for row in read_table("Queries")}
    assert documented == set(Info(cast("Any", None), cast("Any", None))._paths)


@pytest.mark.parametrize("row", read_table("17. Constants"), ids=lambda row: row[0])
def test_constants_have_the_documented_values(row: list[str]) -> None:
    module, _, name = row[0].rpartition(".")
    assert getattr(importlib.import_module(f"pol_abci.{module}"), name) == int(row[1])


def test_files_of_vectors_are_there_and_none_is_left_out() -> None:
    documented = {row[0] for row in read_table("18. Test vectors")}
    folders = ("tests/vectors", "tests/golden", "pol_abci/learning")
    there = {f"{folder}/{p.name}" for folder in folders for p in (REPOSITORY / folder).iterdir()}
    assert documented == {path for path in there if path.endswith(".json")}


def test_links_lead_to_headings() -> None:
    headings = re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    assert set(re.findall(r"\(#([^)]*)\)", DOCUMENT)) <= anchors
