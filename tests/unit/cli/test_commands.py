from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from pol_abci.cli import commands, main
from pol_abci.client.keys import AccountKey
from pol_abci.node.layout import get_cometbft_folder, get_genesis_file
from pol_abci.node.presets import load_preset
from pol_abci.node.settings import Settings, write_settings
from pol_abci.rules.codec import GenerationRecord
from pol_abci.rules.errors import PolError
from pol_abci.rules.genesis import Genesis, GenesisAccount, compute_genesis_digest, genesis_to_json
from pol_abci.rules.params import PROTOCOL_VERSION, Address, Amount
from pol_abci.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

RecordMaker = Callable[[int], tuple[GenerationRecord, ...]]
UNREACHABLE = "http://127.0.0.1:1"
COMMANDS = tuple(commands.MODULES)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_fault(result: Result, *words: str) -> None:
    """A fault in words: one or two lines on stderr, exit code 1, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) <= 2
    for word in words:
        assert word in result.stderr


@pytest.fixture
def genesis() -> Genesis:
    params = load_preset("digits").params
    account = GenesisAccount(
        address=Address(bytes(20)), balance=Amount(10**6), consensus_key=bytes(range(32))
    )
    return Genesis(
        params=params,
        accounts=(account,),
        ring=((account.address, params.shares.slots),),
        weights_root=bytes(32),
    )


@pytest.fixture
def home(tmp_path: Path, genesis: Genesis) -> Path:
    """A home whose node never ran, as `init` leaves it but for CometBFT's keys."""
    path = tmp_path / "home"
    config = get_cometbft_folder(path) / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(
        '[rpc]\nladdr = "tcp://127.0.0.1:1"\n[p2p]\nladdr = "tcp://127.0.0.1:2"\n'
    )
    get_genesis_file(path).write_text(
        json.dumps(
            {
                "chain_id": "digits-1",
                "initial_height": "1",
                "consensus_params": {"version": {"app": str(PROTOCOL_VERSION)}},
                "app_state": genesis_to_json(genesis),
            }
        )
    )
    settings = Settings(
        chain_id="digits-1",
        genesis_digest=compute_genesis_digest(genesis),
        listen="unix://app.sock",
        rpc_url=UNREACHABLE,
        threads=1,
    )
    write_settings(path, settings)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_documents_its_exit_codes(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Exit codes: 0 " in result.stdout


def test_help_lists_every_command_with_a_whole_sentence() -> None:
    text = run("--help").stdout
    for command in COMMANDS:
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {command} ")]
        assert line.endswith(".")
        assert not line.endswith("...")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["status", "--node", UNREACHABLE], ["keys", "show", "/nowhere"]]
)
def test_light_commands_load_no_heavy_library(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from pol_abci.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'sklearn', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [["status"], ["plot"], ["start"]])
def test_missing_home_is_told_with_what_to_do(command: list[str], tmp_path: Path) -> None:
    assert_fault(run(*command, "--home", tmp_path / "none"), "is no home", "pol-abci init")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-flag"],
        ["no-such-command"],
        ["status", "--no-such-flag"],
        ["up", "--generations", "0"],
        ["mine"],
        ["start", "--log-level", "loud"],
        ["init", "--peers", "a@b:1"],
        ["init", "--rpc-port", "70000"],
        ["init", "--target-interval", "0.1"],
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize("option", ["--preset=digits", "--target-interval=2", "--difficulty=0"])
def test_joining_a_chain_takes_none_of_its_parameters(option: str, tmp_path: Path) -> None:
    file = tmp_path / "genesis.json"
    file.touch()
    result = run("init", "--home", tmp_path / "h", "--genesis", file, option)
    assert result.exit_code == 2
    assert "leave out --preset" in result.stderr


@pytest.mark.parametrize("command", ["init", "up"])
def test_unknown_preset_lists_the_known_ones(command: str, tmp_path: Path) -> None:
    result = run(command, "--preset", "digit", "--home", tmp_path / "h")
    assert_fault(result, "no preset 'digit'", "digits")
    assert not (tmp_path / "h").exists()


def test_up_refuses_to_seem_to_change_a_chain_that_exists(home: Path) -> None:
    result = run("up", "--home", home, "--chain-id", "other")
    assert result.exit_code == 2
    assert "--chain-id is for a new home" in result.stderr


def test_peers_that_are_none_are_wrong_usage(tmp_path: Path) -> None:
    genesis = tmp_path / "genesis.json"
    genesis.write_text("{}")
    for peers in ("garbage", "ab@host:1", f"{'a' * 40}@host:26656,", f"{'a' * 40}@host"):
        result = run("init", "--home", tmp_path / "h", "--genesis", genesis, "--peers", peers)
        assert result.exit_code == 2, peers
        assert "ID@HOST:PORT" in result.stderr
    good = f"{'a' * 40}@host:26656,{'B' * 40}@[::1]:1"
    result = run("init", "--home", tmp_path / "h", "--genesis", genesis, "--peers", good)
    assert_fault(result, "is no genesis of a chain")


def test_mine_on_a_device_that_is_not_there_says_so_before_it_waits(tmp_path: Path) -> None:
    AccountKey.generate().save(tmp_path / "key.json")
    for device in ("foo", "meta:x"):
        result = run(
            *("mine", "--node", UNREACHABLE, "--key", tmp_path / "key.json", "--device", device)
        )
        assert_fault(result, f"no device '{device}' here")


def test_up_on_a_device_that_is_not_there_says_so_before_it_starts_anything(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run("up", "--home", home, "--device", "foo")
    assert result.exit_code == 1
    assert capfd.readouterr().err.startswith("error: no device 'foo' here: use cpu")
    assert not (home / "logs").exists()


def test_status_of_a_node_that_is_away_says_so() -> None:
    assert_fault(run("status", "--node", UNREACHABLE), "no node answers at http://127.0.0.1:1")
    assert_fault(run("status", "--node", "nonsense://"), "not the address of a node's RPC")


def test_status_without_node_asks_the_home_for_it(home: Path) -> None:
    assert_fault(run("status", "--home", home), "no node answers at http://127.0.0.1:1")


def test_status_of_a_home_refuses_another_chain_on_its_port(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(_url: str) -> object:
        return SimpleNamespace(comet=SimpleNamespace(chain_id="other-1"))

    monkeypatch.setattr("pol_abci.cli.status._ask", ask)
    assert_fault(run("status", "--home", home), "is a node of other-1", "digits-1")


def test_fault_in_a_real_process_has_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pol_abci.cli", "status", "--node", UNREACHABLE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: no node answers")
    assert "Traceback" not in done.stderr


def test_plot_of_an_empty_chain_says_so_and_leaves_no_store(home: Path) -> None:
    for command in ("plot", "rollback"):
        assert_fault(run(command, "--home", home), "the node has not run yet")
        assert not (home / "app").exists()


def test_plot_of_a_stopped_node_reads_its_store(
    home: Path, genesis: Genesis, make_records: RecordMaker
) -> None:
    store = Store.open(
        home / "app", chain_id="digits-1", genesis_digest=compute_genesis_digest(genesis)
    )
    records = make_records(205)  # more than one page
    for record in records:
        store.put_record(record.generation, record.encode())
    # While the store is held, a running node is asked in its place.
    assert_fault(run("plot", "--home", home), "no node answers at http://127.0.0.1:1")
    store.close()
    result = run("plot", "--home", home)
    assert result.exit_code == 0, result.stderr
    assert "figure1.png: 205 generations, mean interval " in result.stdout
    assert (home / "figure1.png").read_bytes().startswith(b"\x89PNG")

    # What is drawn from its data is the same picture.
    data, again = home / "data.json", home / "again.png"
    assert run("plot", "--home", home, "--data", data).exit_code == 0
    assert run("plot", "--from", data, "--output", again).exit_code == 0
    assert again.read_bytes() == (home / "figure1.png").read_bytes()
    data.write_text("{}")
    assert_fault(run("plot", "--from", data, "--output", again), "not what `plot --data` writes")
    assert run("plot", "--from", data, "--node", "http://127.0.0.1:1").exit_code == 2
    assert_fault(run("plot", "--home", home, "--data", home / "none" / "d.json"), "cannot write")
    assert_fault(
        run("plot", "--home", home, "--output", home / "none" / "f.png"), "cannot write", "f.png"
    )


def test_new_key_is_private_and_shown_without_its_seed(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    made = run("keys", "new", file, "--json")
    assert made.exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = run("keys", "show", file, "--json")
    assert json.loads(shown.stdout) == json.loads(made.stdout)
    assert json.loads(made.stdout)["address"].startswith("pol1")
    assert AccountKey.load(file).seed.hex() not in made.stdout + run("keys", "show", file).stdout


def test_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    run("keys", "new", file)
    before = file.read_bytes()
    assert_fault(run("keys", "new", file), "exists")
    assert file.read_bytes() == before


def test_mine_refuses_a_missing_key_and_a_bad_address_before_torch_loads(tmp_path: Path) -> None:
    assert_fault(run("mine", "--key", tmp_path / "none.json"), "no account key")
    run("keys", "new", tmp_path / "key.json")
    result = run("mine", "--key", tmp_path / "key.json", "--node", "ftp://host:1")
    assert_fault(result, "not the address of a node's RPC")


def test_version_names_what_results_depend_on() -> None:
    versions = json.loads(run("version", "--json").stdout)
    assert versions["protocol"] == PROTOCOL_VERSION
    assert {"pol_abci", "arithmetic", "cometbft", "cometbft_wanted", "torch", "lmdb"} <= set(
        versions
    )
    lines = run("version").stdout.splitlines()
    assert len(lines) == len(versions)


@pytest.mark.parametrize(
    ("raised", "exit_code", "stderr"),
    [
        (PolError("the disk is full; make room"), 1, "error: the disk is full; make room\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_a_command_raises_becomes_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, exit_code: int, stderr: str
) -> None:
    result = run_raising(monkeypatch, raised)
    assert result.exit_code == exit_code
    assert result.stderr == stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = RuntimeError("a bug")
    assert run_raising(monkeypatch, bug).exception is bug


def run_raising(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> Result:
    @click.command()
    def broken() -> None:
        raise raised

    monkeypatch.setitem(commands.MODULES, "broken", "nowhere")
    monkeypatch.setattr(commands, "import_module", lambda _: SimpleNamespace(broken=broken))
    return run("broken")
