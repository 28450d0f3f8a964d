"""Homes of several validators as `testnet` makes them, and how they are read again."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import time
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from pol_abci.client.keys import KeyFile
from pol_abci.node.binary import find_cometbft
from pol_abci.node.genesis_document import read_genesis_document
from pol_abci.node.home import load_home
from pol_abci.node.layout import HomeError, compute_node_id
from pol_abci.node.occupancy import PortInUse
from pol_abci.node.supervisor import MAX_FAILURES, ChildCommand, ChildFailed, Supervisor
from pol_abci.node.testnet import check_hosts, choose_ports, create_testnet, load_testnet
from pol_abci.node.together import supervise_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pol_abci.node.home import Home


def say_nothing(sentence: str) -> None:
    del sentence


def find_first_port() -> int:
    """One from which the ports of three nodes are free, below those that the kernel gives away."""
    for first in range(20_000, 30_000, 100):
        try:
            choose_ports(3, first)
        except PortInUse:
            continue
        return first
    raise AssertionError("no ports are free")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Home, ...]]:
    def make(**changes: Any) -> tuple[Home, ...]:
        values: dict[str, Any] = {"preset": "digits", "chain_id": "trial-1", "validators": 3}
        values |= {"difficulty_bits": 9.5, "first_port": find_first_port()}
        folders = create_testnet(
            tmp_path / "testnet",
            cometbft=find_cometbft(say_nothing),
            report=say_nothing,
            **{**values, **changes},
        )
        return tuple(map(load_home, folders))

    return make


def read_config(home: Home) -> dict[str, Any]:
    return tomllib.loads(home.config_file.read_text())


def test_validators_of_a_testnet_have_one_genesis_and_equal_parts_of_the_ring(
    make: Callable[..., tuple[Home, ...]], tmp_path: Path
) -> None:
    homes = make()
    assert [home.path for home in homes] == [tmp_path / "testnet" / f"node{n}" for n in range(3)]
    assert len({home.genesis_file.read_bytes() for home in homes}) == 1
    genesis = homes[0].genesis
    assert [slots for _, slots in genesis.ring] == [33, 33, 33]
    assert [owner for owner, _ in genesis.ring] == [
        KeyFile.read(home.account_file).address for home in homes
    ]
    document = read_genesis_document(homes[0].genesis_file).document
    assert [each["power"] for each in document["validators"]] == ["33", "33", "33"]
    assert len({account.consensus_key for account in genesis.accounts}) == 3
    assert load_testnet(tmp_path / "testnet") == homes


def test_nodes_of_one_machine_find_each_other_on_ports_of_their_own(
    make: Callable[..., tuple[Home, ...]],
) -> None:
    homes = make()
    configs = [read_config(home) for home in homes]
    addresses = [config[part]["laddr"] for config in configs for part in ("rpc", "p2p")]
    assert len({address.rpartition(":")[2] for address in addresses}) == 6
    for config in configs:
        assert config["p2p"]["allow_duplicate_ip"]
        assert not config["p2p"]["addr_book_strict"]
    for number, config in enumerate(configs):
        assert config["p2p"]["persistent_peers"].split(",") == [
            f"{compute_node_id(home.path)}@127.0.0.1:"
            + configs[other]["p2p"]["laddr"].rpartition(":")[2]
            for other, home in enumerate(homes)
            if other != number
        ]


def test_nodes_of_several_hosts_have_the_usual_ports_and_names_for_peers(
    make: Callable[..., tuple[Home, ...]], tmp_path: Path
) -> None:
    homes = make(hosts=["alpha", "beta.example.org", "192.0.2.7"])
    assert [home.path.name for home in homes] == ["alpha", "beta.example.org", "192.0.2.7"]
    peers = read_config(homes[0])["p2p"]["persistent_peers"].split(",")
    assert [peer.partition("@")[2] for peer in peers] == [
        "beta.example.org:26656",
        "192.0.2.7:26656",
    ]
    assert {home.settings.rpc_url for home in homes} == {"http://127.0.0.1:26657"}
    with pytest.raises(HomeError, match="for several machines"):
        load_testnet(tmp_path / "testnet")


def test_a_testnet_that_cannot_be_made_leaves_nothing(
    make: Callable[..., tuple[Home, ...]], tmp_path: Path
) -> None:
    with pytest.raises(HomeError, match="room for 50 validators"):
        make(validators=51, hosts=[f"host{number}" for number in range(51)])
    port = find_first_port()
    with socket.create_server(("127.0.0.1", port + 11)), pytest.raises(PortInUse) as told:
        make(first_port=port)
    assert "--first-port" in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(make: Callable[..., tuple[Home, ...]], tmp_path: Path) -> None:
    (tmp_path / "testnet").mkdir()
    (tmp_path / "testnet" / "mine").touch()
    with pytest.raises(HomeError, match="pol-abci testnet up --home"):
        make()


def test_a_folder_that_is_no_testnet_is_said_to_be_none(
    make: Callable[..., tuple[Home, ...]], tmp_path: Path
) -> None:
    with pytest.raises(HomeError, match="is no testnet"):
        load_testnet(tmp_path)
    make(validators=1)
    shutil.move(tmp_path / "testnet", tmp_path / "first")
    make(validators=1)
    shutil.move(tmp_path / "first" / "node0", tmp_path / "testnet" / "node1")
    with pytest.raises(HomeError, match="are of 2 chains"):
        load_testnet(tmp_path / "testnet")


@pytest.mark.parametrize("host", ["", "a b", "-a", "a@b", "a:1", "ä"])
def test_what_is_no_host_name_is_refused(host: str) -> None:
    with pytest.raises(HomeError, match="no host name"):
        check_hosts(["good", host])


def test_ports_beyond_the_last_one_are_refused() -> None:
    with pytest.raises(HomeError, match="need ports 65000 to 65591"):
        choose_ports(60, 65_000)


def make_supervisors(tmp_path: Path, programs: list[str]) -> list[Supervisor]:
    supervisors = []
    for number, program in enumerate(programs):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = ChildCommand(name="app", arguments=(sys.executable, "-c", program))
        supervisors.append(Supervisor(folder, [command]))
    return supervisors


async def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.02)


async def test_nodes_start_a_few_at_a_time_and_stop_together(tmp_path: Path) -> None:
    supervisors = make_supervisors(tmp_path, ["import time; time.sleep(600)"] * 3)
    ready = asyncio.Event()

    async def wait_ready() -> None:
        await ready.wait()

    running = asyncio.create_task(
        supervise_all([(each, wait_ready) for each in supervisors], at_once=2)
    )

    def count() -> int:
        return sum(each.children["app"].state == "running" for each in supervisors)

    await wait_until(lambda: count() == 2)
    assert supervisors[2].children["app"].state == "starting"
    ready.set()
    await wait_until(lambda: count() == 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [each.children["app"].state for each in supervisors] == ["stopped"] * 3


async def test_one_node_that_keeps_failing_ends_all(tmp_path: Path) -> None:
    supervisors = make_supervisors(
        tmp_path, ["import time; time.sleep(600)", "raise SystemExit(3)"]
    )

    async def wait_ready() -> None:
        await asyncio.sleep(0)

    with pytest.raises(ChildFailed, match=f"ended {MAX_FAILURES} times"):
        await supervise_all([(each, wait_ready) for each in supervisors], at_once=2)
    assert supervisors[0].children["app"].state == "stopped"
