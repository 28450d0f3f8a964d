"""What the doctor finds: a sound home, and each fault with what to do about it."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pytest
from click.testing import CliRunner, Result

from pol_abci.cli import main
from pol_abci.client.answers import NodeStatus
from pol_abci.learning import golden
from pol_abci.node import doctor
from pol_abci.node.binary import ENVIRONMENT_VARIABLE, find_cometbft, get_release
from pol_abci.node.doctor import Finding, examine
from pol_abci.node.doctor import machine as of_machine
from pol_abci.node.doctor.finding import Patient
from pol_abci.node.doctor.home import check_node, check_ports
from pol_abci.node.home import Home, load_home
from pol_abci.node.init import create_home
from pol_abci.node.layout import compute_node_id
from pol_abci.rules.genesis import compute_genesis_digest
from pol_abci.store import layout
from pol_abci.store.environment import DATA_FILE
from pol_abci.store.store import Store
from tests.e2e.quick_home import get_free_port

Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("doctor") / "home"
    create_home(
        path,
        cometbft=find_cometbft(lambda _: None),
        preset="digits",
        chain_id="trial-1",
        report=lambda _: None,
        difficulty_bits=9,
        rpc_port=get_free_port(),
        p2p_port=get_free_port(),
    )
    return path


@pytest.fixture
def home(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "home"))


@pytest.fixture(autouse=True)
def _kept_clock_and_idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that tests run on is not under test."""
    monkeypatch.setattr(of_machine, "is_clock_kept", lambda: True)
    monkeypatch.setattr(of_machine, "count_cores", lambda: 2.0)
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 0.5, 0.5))
    monkeypatch.setattr(of_machine, "count_free_memory", lambda: 8 * 10**9)
    monkeypatch.setattr(of_machine, "measure_sync", lambda _folder: 0.004)


def get_bad(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict != "ok"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["doctor", *(str(argument) for argument in arguments)])


def test_a_machine_without_a_home_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--json")
    assert result.exit_code == 0, result.stdout
    seen = json.loads(result.stdout)
    assert {entry["check"] for entry in seen} == {
        *("cometbft", "cores", "memory", "disk", "clock", "dataset", "bits")
    }
    (walk,) = [entry for entry in seen if "golden walk" in entry["finding"] and "cpu" in str(entry)]
    assert (walk["verdict"], walk["advice"]) == ("ok", "")


def test_a_sound_home_has_no_fault_and_is_told_line_by_line(home: Path) -> None:
    result = run("--home", home, "--deep")
    assert result.exit_code == 0, result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ok", "home", str(home), *lines[0].split()[3:]]
    assert "trial-1" in lines[0]
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert lines[-1].startswith("Nothing is wrong; ")


def open_to_all(path: str) -> Edit:
    return lambda home: (home / path).chmod(0o644)


def damage(path: str) -> Edit:
    return lambda home: (home / path).write_text("{}")


@pytest.mark.parametrize(
    ("edit", "check", "words"),
    [
        (open_to_all("account.json"), "keys", "chmod 600 "),
        (open_to_all("cometbft/config/priv_validator_key.json"), "keys", "chmod 600 "),
        (open_to_all("cometbft/config/node_key.json"), "keys", "chmod 600 "),
        (open_to_all("cometbft/data/priv_validator_state.json"), "keys", "chmod 600 "),
        (
            lambda home: (home / "cometbft/data/priv_validator_state.json").unlink(),
            "keys",
            "restore a copy only if nothing was signed after it",
        ),
        (damage("account.json"), "keys", "not an account key"),
        (damage("cometbft/config/genesis.json"), "home", "is no genesis"),
        (lambda home: (home / "pol.toml").unlink(), "home", "pol-abci init --home"),
    ],
)
def test_each_fault_of_a_home_is_found_alone_and_says_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, check: str, words: str
) -> None:
    monkeypatch.setattr(doctor, "MACHINE_CHECKS", {})
    edit(home)
    (bad,) = get_bad(examine(home, is_deep=False))
    assert (bad.check, bad.verdict) == (check, "fault")
    assert words in f"{bad.finding} {bad.advice}"


def test_several_faults_hide_none_of_each_other(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage("cometbft/config/genesis.json")(home)
    damage("account.json")(home)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/bin/true")
    result = run("--home", home)
    assert result.exit_code == 1
    faults = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("fault ")]
    assert faults == ["home", "keys", "cometbft"]
    assert "3 faults; " in result.stdout
    assert " the golden walk of " in result.stdout


def test_a_port_that_another_program_holds_is_a_fault(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MACHINE_CHECKS", {})
    with socket.create_server(("127.0.0.1", get_port(load_home(home)))):
        (bad,) = get_bad(examine(home, is_deep=False))
    assert (bad.check, bad.verdict) == ("ports", "fault")
    assert "--rpc-port" in bad.finding


def get_port(home: Home) -> int:
    return int(home.settings.rpc_url.rpartition(":")[2])


def make_node(**changes: Any) -> NodeStatus:
    status = NodeStatus(
        chain_id="trial-1",
        version=get_release().reported,
        latest_height=9,
        latest_time_ms=0,
        catching_up=False,
    )
    return replace(status, **changes)


def test_the_homes_own_node_holds_its_ports_and_nobody_elses_does(home: Path) -> None:
    here = load_home(home)
    with socket.create_server(("127.0.0.1", get_port(here))):
        own = Patient(
            home, here, is_deep=False, node=make_node(), node_id=compute_node_id(here.path)
        )
        other = replace(own, node_id="ab" * 20)
        assert [finding.verdict for finding in check_ports(own)] == ["ok"]
        assert [finding.verdict for finding in check_ports(other)] == ["fault"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (make_node(chain_id="other"), "a node of other answers"),
        (make_node(version="0.37.5"), f"Run it with {get_release().tag}"),
        (make_node(), "the app behind it does not"),
    ],
)
def test_a_node_that_is_not_as_it_should_be_is_a_fault(
    home: Path, node: NodeStatus, words: str
) -> None:
    bad = get_bad(check_node(Patient(home, load_home(home), is_deep=False, node=node)))
    assert bad[0].verdict == "fault"
    assert words in f"{bad[0].finding} {bad[0].advice}"


@pytest.mark.parametrize(
    ("check", "name", "value", "verdict", "words"),
    [
        (of_machine.check_disk, "measure_sync", lambda _: 0.05, "warning", "0.5 s"),
        (of_machine.check_clock, "is_clock_kept", lambda: False, "warning", "Install chrony"),
        (of_machine.check_memory, "count_free_memory", lambda: 10**9, "warning", "--no-mine"),
        (of_machine.check_cores, "count_cores", lambda: 0.5, "fault", "threads under [verifier]"),
    ],
)
def test_a_machine_that_is_short_of_something_is_told(
    *,
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[[Patient], Iterator[Finding]],
    name: str,
    value: object,
    verdict: str,
    words: str,
) -> None:
    patient = Patient(None, None, is_deep=False)
    assert get_bad(check(patient)) == []
    monkeypatch.setattr(of_machine, name, value)
    (bad,) = get_bad(check(patient))
    assert bad.verdict == verdict
    assert words in f"{bad.finding} {bad.advice}"


@pytest.mark.parametrize(("free", "verdict"), [(10**8, "fault"), (5 * 10**9, "warning")])
def test_a_disk_that_is_nearly_full_is_told(
    monkeypatch: pytest.MonkeyPatch, free: int, verdict: str
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=free))
    (bad,) = get_bad(of_machine.check_disk(Patient(None, None, is_deep=False)))
    assert bad.verdict == verdict


def test_a_clock_behind_the_chains_is_a_fault(home: Path) -> None:
    node = make_node(latest_time_ms=4 * 10**12)
    patient = Patient(home, load_home(home), is_deep=False, node=node)
    (bad,) = get_bad(of_machine.check_clock(patient))
    assert "in this clock's future" in bad.finding


def test_a_device_that_walks_otherwise_or_is_not_there_is_a_fault(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_home(home)
    here = replace(here, settings=replace(here.settings, device="foo"))
    (missing,) = get_bad(of_machine.check_bits(Patient(home, here, is_deep=False)))
    assert "no device 'foo' here: use cpu" in missing.finding
    made = golden.read_golden_walk()["made"]
    other = {**made, "probes": [made["probes"][0], *made["probes"][:-1]]}
    monkeypatch.setattr(golden, "compute_golden_walk", lambda _: other)
    bad = get_bad(of_machine.check_bits(Patient(None, None, is_deep=False)))
    assert bad
    assert all("differs from step 2 on" in finding.finding for finding in bad)


def test_another_edition_of_the_dataset_is_a_fault(home: Path) -> None:
    here = load_home(home)
    params = here.genesis.params
    other = replace(params, task=replace(params.task, test_digest=bytes(32)))
    patient = Patient(
        home, replace(here, genesis=replace(here.genesis, params=other)), is_deep=False
    )
    (bad,) = get_bad(of_machine.check_datasets(patient))
    assert bad.verdict == "fault"
    assert bad.finding.startswith("the test set of digits")


def test_deep_finds_an_entry_that_was_changed_and_a_store_in_use_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MACHINE_CHECKS", {})
    here = load_home(home)
    store = Store.open(
        here.store_folder,
        chain_id="trial-1",
        genesis_digest=compute_genesis_digest(here.genesis),
    )
    with closing(store):
        store.commit(store.prepare({b"account/x": b"payload"}, b"weights"), 1, None)
        (running,) = get_bad(examine(home, is_deep=True))
    assert (running.check, running.verdict) == ("store", "warning")
    assert get_bad(examine(home, is_deep=True)) == []
    with lmdb.open(
        str(here.store_folder / DATA_FILE), subdir=False, max_dbs=20, lib_version=0
    ) as environment:
        state = environment.open_db(layout.STATE, create=False)
        with environment.begin(write=True) as transaction, transaction.cursor(state) as cursor:
            assert cursor.first()
            cursor.put(cursor.key(), cursor.value()[:-1] + b"?")
    assert get_bad(examine(home, is_deep=False)) == []
    (bad,) = get_bad(examine(home, is_deep=True))
    assert (bad.check, bad.verdict) == ("store", "fault")
    assert "Restore the folder from a backup" in bad.finding


def test_wrong_usage_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--deep")
    assert result.exit_code == 2
    assert "name it with --home" in result.stderr
