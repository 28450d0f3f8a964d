"""Homes as `init` makes them and as they are read again, with the real CometBFT's files."""

from __future__ import annotations

import base64
import json
import socket
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomlkit

from pol_abci.client.keys import AccountKey, load_consensus_seed
from pol_abci.learning.datasets import DatasetMismatch, compute_digest, load_dataset
from pol_abci.learning.exact.machine import DeviceMissing
from pol_abci.node.binary import find_cometbft
from pol_abci.node.children import compose_children
from pol_abci.node.genesis_document import read_genesis_document
from pol_abci.node.home import Home, load_home
from pol_abci.node.init import INITIAL_BALANCE, create_home, join_chain
from pol_abci.node.joining import StateSync
from pol_abci.node.layout import HomeError
from pol_abci.node.new_genesis import compose_consensus_params, compute_first_difficulty
from pol_abci.node.occupancy import HomeInUse, PortInUse
from pol_abci.node.presets import UnknownPreset, find_preset, get_preset_names, load_preset
from pol_abci.node.settings import SNAPSHOT_INTERVAL
from pol_abci.node.supervisor import Supervisor
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.genesis import parse_genesis
from pol_abci.rules.params import SCORE_UNIT
from pol_abci.rules.signing import compute_consensus_address
from tests.unit.learning.cifar_files import write_image_folder
from tests.unit.learning.idx_files import write_dataset

if TYPE_CHECKING:
    from collections.abc import Callable


def say_nothing(sentence: str) -> None:
    del sentence


@pytest.fixture(scope="session")
def cometbft() -> Path:
    return find_cometbft(say_nothing)


@pytest.fixture
def make(cometbft: Path) -> Callable[..., Home]:
    def make(path: Path, **changes: Any) -> Home:
        values: dict[str, Any] = {"preset": "digits", "chain_id": "trial-1", "difficulty_bits": 9.5}
        return create_home(path, cometbft=cometbft, report=say_nothing, **{**values, **changes})

    return make


@pytest.fixture
def join(tmp_path: Path, cometbft: Path) -> Callable[..., Home]:
    def join(genesis_file: Path, **changes: Any) -> Home:
        document = read_genesis_document(genesis_file)
        values = {"cometbft": cometbft, "document": document, "report": say_nothing}
        return join_chain(tmp_path / "second", **{**values, **changes})

    return join


@pytest.fixture
def home(tmp_path: Path, make: Callable[..., Home]) -> Home:
    return make(tmp_path / "home")


def change_json(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_a_new_chain_has_one_funded_validator_that_owns_the_ring(home: Home) -> None:
    document = json.loads(home.genesis_file.read_text())
    genesis = parse_genesis(document["app_state"])
    key = AccountKey.load(home.account_file)
    (account,) = genesis.accounts
    assert account.address == key.address
    assert account.balance == INITIAL_BALANCE
    assert genesis.ring == ((key.address, genesis.params.shares.slots),)
    assert genesis.params.difficulty.first == int(9.5 * SCORE_UNIT)

    (validator,) = document["validators"]
    assert account.consensus_key == base64.b64decode(validator["pub_key"]["value"])
    assert compute_consensus_address(account.consensus_key).hex().upper() == validator["address"]
    assert validator["power"] == str(genesis.params.shares.slots)
    assert document["chain_id"] == "trial-1"
    assert document["initial_height"] == "1"
    params = document["consensus_params"]
    assert params["version"]["app"] == "1"
    assert params["evidence"]["max_age_duration"] == str(10 * 4 * 10**9)


def test_secrets_are_the_owners_alone(home: Home) -> None:
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.account_file.stat().st_mode) == 0o600
    load_consensus_seed(home.cometbft_folder / "config" / "priv_validator_key.json")


def test_cometbft_is_configured_and_its_comments_are_kept(
    tmp_path: Path, make: Callable[..., Home]
) -> None:
    home = make(tmp_path / "home", rpc_port=30657, p2p_port=30656)
    text = home.config_file.read_text()
    config = tomlkit.parse(text).unwrap()
    target_s = home.genesis.params.difficulty.target_interval_ms / 1000
    assert config["proxy_app"] == home.settings.listen == "unix://app.sock"
    assert config["consensus"]["timeout_commit"] == f"{target_s / 20 * 1000:.0f}ms"
    assert config["consensus"]["create_empty_blocks"] is False
    assert config["consensus"]["create_empty_blocks_interval"] == f"{target_s / 4:.0f}s"
    assert config["p2p"]["flush_throttle_timeout"] == "10ms"
    assert config["rpc"]["laddr"] == "tcp://127.0.0.1:30657"
    assert config["p2p"]["laddr"] == "tcp://0.0.0.0:30656"
    assert home.settings.rpc_url == "http://127.0.0.1:30657"
    assert "# EmptyBlocks mode and possible interval between empty blocks" in text


def test_a_home_whose_cometbft_calls_over_grpc(tmp_path: Path, make: Callable[..., Home]) -> None:
    assert make(tmp_path / "usual").read_transport() == "socket"
    home = make(tmp_path / "home", transport="grpc")
    assert home.read_transport() == "grpc"
    text = home.config_file.read_text()
    dialled = "passthrough:///unix://app.sock"
    assert f'proxy_app = "{dialled}"' in text
    for wrong, right in {"unix://app.sock": dialled, "tcp://h:1": "h:1"}.items():
        home.config_file.write_text(text.replace(dialled, wrong))
        with pytest.raises(HomeError, match=f'cannot dial proxy_app = "{wrong}"; write "{right}"'):
            home.read_transport()
    home.config_file.write_text(text.replace('abci = "grpc"', 'abci = "pigeon"'))
    with pytest.raises(HomeError, match="abci is 'pigeon', must be one of socket, grpc"):
        home.read_transport()


def test_a_home_is_read_as_it_was_made(home: Home) -> None:
    assert load_home(home.path) == home


def test_a_folder_with_spaces_in_one_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Home]
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = type(tmp_path)("my chains/the first")
    home = make(relative)
    assert home.path == tmp_path / "my chains" / "the first"
    assert [path.name for path in home.path.parent.iterdir()] == ["the first"]


def test_an_empty_folder_may_become_a_home(tmp_path: Path, make: Callable[..., Home]) -> None:
    (tmp_path / "home").mkdir()
    assert make(tmp_path / "home").path == tmp_path / "home"


def test_a_home_is_never_overwritten(home: Home, make: Callable[..., Home]) -> None:
    before = home.account_file.read_bytes()
    with pytest.raises(HomeError, match="exists and is not empty; nothing is ever overwritten"):
        make(home.path)
    assert home.account_file.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chain_id": "has space"}, "chain id 'has space' is not 1 to 50 letters"),
        ({"chain_id": "x" * 51}, "is not 1 to 50 letters"),
        ({"preset": "mnist"}, "no preset 'mnist'; there is: cifar10, digits"),
        ({"rpc_port": 0}, "--rpc-port 0: ports are between 1 and 65535"),
        ({"rpc_port": 26656}, "both 26656; choose two ports"),
        ({"difficulty_bits": 5000.0}, "between 0 and 4096 bits"),
        ({"difficulty_bits": -1.0}, "between 0 and 4096 bits"),
    ],
)
def test_what_cannot_be_made_is_said_and_leaves_nothing(
    tmp_path: Path, make: Callable[..., Home], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises((HomeError, UnknownPreset), match=words):
        make(tmp_path / "new" / "home", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_cometbft_that_fails_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    program = tmp_path / "cometbft"
    program.write_text("#!/bin/sh\necho disk on fire >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(HomeError, match="init` failed: disk on fire"):
        create_home(
            tmp_path / "home",
            cometbft=program,
            preset="digits",
            chain_id="trial-1",
            report=say_nothing,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["cometbft"]


def test_a_home_for_a_device_that_is_not_there_is_not_made(
    make: Callable[..., Home], join: Callable[..., Home], home: Home, tmp_path: Path
) -> None:
    assert home.settings.device == "cpu"
    with pytest.raises(DeviceMissing, match="no device 'foo' here: use cpu"):
        make(tmp_path / "other", device="foo")
    with pytest.raises(DeviceMissing, match="no device 'foo' here: use cpu"):
        join(home.genesis_file, device="foo")
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "second").exists()


def test_app_and_miner_train_on_the_homes_device(home: Home, cometbft: Path) -> None:
    other = replace(home, settings=replace(home.settings, device="cuda:1"))
    app, comet, miner = compose_children(other, cometbft, on_miner_line=lambda _: None)
    for child in (app, miner):
        assert child.arguments[child.arguments.index("--device") + 1] == "cuda:1"
    assert "--device" not in comet.arguments


def test_files_of_a_dataset_are_looked_for_where_told(
    make: Callable[..., Home], tmp_path: Path
) -> None:
    write_dataset(tmp_path / "files")
    with pytest.raises(DatasetMismatch, match=str(tmp_path / "files")):
        make(tmp_path / "other", preset="fashion-mnist", data_dir=tmp_path / "files")
    assert not (tmp_path / "other").exists()


def test_a_chain_learns_the_edition_of_its_first_machine(
    make: Callable[..., Home],
    join: Callable[..., Home],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, count in (("files", 26), ("others", 27)):
        write_image_folder(tmp_path / name, train=2, test=count)
    home = make(tmp_path / "home", preset="cifar10", data_dir=tmp_path / "files")
    parts = load_dataset("cifar10", tmp_path / "files")
    task = home.genesis.params.task
    assert [task.train_digest, task.test_digest] == [compute_digest(part) for part in parts]
    assert find_preset(home.genesis.params).name == "cifar10"
    with pytest.raises(DatasetMismatch, match="get the same edition"):
        join(home.genesis_file, data_dir=tmp_path / "others")


def test_a_homes_data_folder_is_kept_and_goes_to_app_and_miner(
    make: Callable[..., Home], cometbft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make(tmp_path / "made", data_dir=Path("files"))
    assert made.settings.data_dir == tmp_path / "files"
    app, comet, miner = compose_children(made, cometbft, on_miner_line=lambda _: None)
    for child in (app, miner):
        assert child.arguments[child.arguments.index("--data-dir") + 1] == str(tmp_path / "files")
    assert "--data-dir" not in comet.arguments


def test_joining_takes_the_chains_genesis_and_keys_of_its_own(
    home: Home, join: Callable[..., Home]
) -> None:
    peers = "ab@127.0.0.1:26656"
    joined = join(home.genesis_file, peers=peers, rpc_port=30657, p2p_port=30656)
    assert joined.settings.genesis_digest == home.settings.genesis_digest
    assert json.loads(joined.genesis_file.read_text()) == json.loads(home.genesis_file.read_text())
    assert AccountKey.load(joined.account_file) != AccountKey.load(home.account_file)
    keys = [
        load_consensus_seed(each.cometbft_folder / "config" / "priv_validator_key.json")
        for each in (home, joined)
    ]
    assert keys[0] != keys[1]
    config = tomlkit.parse(joined.config_file.read_text()).unwrap()
    assert config["p2p"]["persistent_peers"] == peers
    assert config["consensus"]["timeout_commit"] == "200ms"


def test_a_home_that_joins_by_a_snapshot_tells_cometbft_what_to_trust(
    home: Home, join: Callable[..., Home]
) -> None:
    state_sync = StateSync(servers=("http://a:1",), trust_height=40, trust_hash=b"\xab" * 32)
    joined = join(home.genesis_file, state_sync=state_sync)
    config = tomlkit.parse(joined.config_file.read_text()).unwrap()["statesync"]
    assert config["enable"] is True
    assert config["rpc_servers"] == "http://a:1,http://a:1"
    assert (config["trust_height"], config["trust_hash"]) == (40, "AB" * 32)
    assert tomlkit.parse(home.config_file.read_text()).unwrap()["statesync"]["enable"] is False


def test_homes_take_snapshots_unless_told_otherwise(home: Home) -> None:
    file = home.path / "pol.toml"
    text = file.read_text()
    line = f"snapshot_interval = {SNAPSHOT_INTERVAL}\n"
    assert line in text
    file.write_text(text.replace(line, ""))  # a home of before
    assert load_home(home.path).settings.snapshot_interval == SNAPSHOT_INTERVAL
    file.write_text(text.replace(line, "snapshot_interval = 0\n"))
    assert load_home(home.path).settings.snapshot_interval == 0
    for wrong in ("-1", "1_000_000_001", '"5"', "true"):
        file.write_text(text.replace(line, f"snapshot_interval = {wrong}\n"))
        with pytest.raises(HomeError, match="snapshot_interval must be"):
            load_home(home.path)


def test_joining_by_what_a_nodes_rpc_answers(
    home: Home, tmp_path: Path, join: Callable[..., Home]
) -> None:
    answer = {"jsonrpc": "2.0", "result": {"genesis": json.loads(home.genesis_file.read_text())}}
    file = tmp_path / "genesis.json"
    file.write_text(json.dumps(answer))
    assert join(file).genesis == home.genesis


def set_train_digest(document: Any) -> None:
    document["app_state"]["task"]["train_digest"] = "00" * 32


def set_weights_root(document: Any) -> None:
    document["app_state"]["weights_root"] = "00" * 32


def set_slope(document: Any) -> None:
    document["app_state"]["difficulty"]["slope"] = 5000


def set_version(document: Any) -> None:
    document["consensus_params"]["version"]["app"] = "2"


def remove_app_state(document: Any) -> None:
    del document["app_state"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (set_weights_root, GenesisError, "the genesis file is of another chain or version"),
        (set_slope, UnknownPreset, "has the parameters of no preset"),
        (set_version, GenesisError, "of protocol version 2, this is version 1"),
        (remove_app_state, GenesisError, "it has no app_state"),
    ],
)
def test_a_genesis_that_cannot_be_joined_is_refused(
    home: Home,
    join: Callable[..., Home],
    change: Callable[[Any], None],
    error: type[Exception],
    words: str,
) -> None:
    change_json(home.genesis_file, change)
    with pytest.raises(error, match=words):
        join(home.genesis_file)
    assert list(home.path.parent.iterdir()) == [home.path]


def test_a_genesis_of_other_data_is_refused(
    home: Home, join: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A preset of the same parameters, as a version with other data would have it.
    change_json(home.genesis_file, set_train_digest)
    monkeypatch.setattr("pol_abci.node.init.find_preset", lambda _: load_preset("digits"))
    with pytest.raises(DatasetMismatch):
        join(home.genesis_file)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"app_state": {}}'])
def test_a_file_that_is_no_genesis_is_refused(
    tmp_path: Path, join: Callable[..., Home], content: str
) -> None:
    file = tmp_path / "genesis.json"
    with pytest.raises(GenesisError, match=r"cannot read the genesis .*No such file"):
        join(file)
    file.write_text(content)
    with pytest.raises(GenesisError):
        join(file)


def test_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=r"is no home of a node.*pol-abci init --home"):
        load_home(tmp_path)


def test_a_changed_genesis_is_noticed(home: Home) -> None:
    def give_more(document: Any) -> None:
        document["app_state"]["accounts"][0]["balance"] = "5"

    change_json(home.genesis_file, give_more)
    with pytest.raises(HomeError, match="has been changed since this home was made"):
        load_home(home.path)


def test_another_chains_genesis_is_noticed(home: Home) -> None:
    change_json(home.genesis_file, lambda document: document.update(chain_id="other"))
    with pytest.raises(HomeError, match="is of chain 'other', this home of 'trial-1'"):
        load_home(home.path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("threads = 1", "threads = 0", "verifier.threads must be between 1 and"),
        ("threads = 1", "threads = true", "verifier.threads must be given, as int"),
        ("threads = 1", "thread = 1", "verifier.threads must be given"),
        ("threads = 1", "threads = 1\nspeed = 2", "take out what is no setting: verifier.speed"),
        ("[app]", "[ap]", "app.listen must be given, as str"),
        ('"unix://', '"ipc://', "app.listen must begin with unix://"),
        ('"http://', '"', "app.rpc must begin with http://"),
        ("threads = 1", "threads = ", "pol.toml is not TOML"),
        ("device = ", "devise = ", "verifier.device must be given, as str"),
        ('genesis_digest = "', 'genesis_digest = "x', "must be hexadecimal digits"),
        ("keep_blocks = 0", "keep_blocks = -1", "app.keep_blocks must be 0"),
        ("keep_blocks = 0", "keep_blocks = 39", "evidence may reach 40 blocks back"),
    ],
)
def test_settings_are_read_strictly(home: Home, old: str, new: str, words: str) -> None:
    file = home.path / "pol.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(HomeError, match=words):
        load_home(home.path)


def test_a_missing_file_is_named(home: Home) -> None:
    home.config_file.unlink()
    with pytest.raises(HomeError, match=r"config\.toml is missing"):
        load_home(home.path)


def test_a_cut_configuration_of_cometbft_is_named(home: Home) -> None:
    text = home.config_file.read_text()
    home.config_file.write_text(text[:40])  # a comment, and so valid TOML
    with pytest.raises(HomeError, match=r"config\.toml is cut or damaged.*\[rpc\]"):
        load_home(home.path)
    home.config_file.write_text(text[: text.index("[p2p]")])
    with pytest.raises(HomeError, match=r"no laddr under \[p2p\]"):
        load_home(home.path)


def test_a_port_that_was_moved_in_one_file_only_is_named(home: Home) -> None:
    port = home.settings.rpc_url.rpartition(":")[2]
    text = home.config_file.read_text()
    home.config_file.write_text(text.replace(f"127.0.0.1:{port}", "127.0.0.1:40109"))
    with pytest.raises(HomeError, match=rf"port 40109 .*:{port} .*say the same"):
        load_home(home.path)


def test_a_taken_port_is_named_before_anything_starts(
    tmp_path: Path, make: Callable[..., Home], unused_tcp_port_factory: Callable[[], int]
) -> None:

    rpc_port, p2p_port = unused_tcp_port_factory(), unused_tcp_port_factory()
    home = make(tmp_path / "home", rpc_port=rpc_port, p2p_port=p2p_port)
    home.check_free()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", rpc_port))
        listener.listen()
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{rpc_port} .*--rpc-port"):
            home.check_free()


async def test_a_home_that_runs_says_so_rather_than_that_its_ports_are_taken(home: Home) -> None:
    async with Supervisor(home.path, []):
        with pytest.raises(HomeInUse, match="another `pol-abci up` runs on it"):
            home.check_free()


def test_the_first_difficulty_follows_the_step_rate() -> None:
    params = load_preset("digits").params
    # 256 steps a second for 4 s are 2^10 steps; 2.9 bits above that, protocol section 2.
    assert compute_first_difficulty(256.0, params) == round(12.9 * SCORE_UNIT)
    assert compute_first_difficulty(0.0, params) == round(2.9 * SCORE_UNIT)


@pytest.mark.parametrize("name", get_preset_names())
def test_a_presets_times_follow_its_target_interval(name: str) -> None:
    preset = load_preset(name)
    target_ms = preset.params.difficulty.target_interval_ms
    consensus = preset.config["consensus"]
    assert consensus["timeout_commit"] == f"{target_ms // 20}ms"
    assert consensus["create_empty_blocks_interval"] in {
        f"{target_ms // 4}ms",
        f"{target_ms // 4000}s",
    }
    assert find_preset(preset.params) == preset
    assert int(compose_consensus_params(preset.params)["evidence"]["max_age_duration"]) == (
        preset.params.ledger.maturity_generations * target_ms * 10**6
    )


def test_another_pace_is_known_by_whoever_joins() -> None:
    difficulty = load_preset("digits").params.difficulty
    chosen = load_preset("digits").with_target_interval(1_500)
    assert chosen.params.difficulty == replace(difficulty, target_interval_ms=1_500)
    assert chosen.config["consensus"]["timeout_commit"] == "75ms"
    assert chosen.config["consensus"]["create_empty_blocks_interval"] == "375ms"
    assert find_preset(chosen.params) == chosen
