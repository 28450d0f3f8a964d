"""The commands of an account, over a node whose rules are real."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from nacl.signing import SigningKey

from pol_abci.cli import main, node_choice, wallet
from pol_abci.client import sending
from pol_abci.client.keys import format_address
from pol_abci.client.transactions import build_transfer
from pol_abci.node.layout import SETTINGS_FILE, get_account_file, get_consensus_key_file
from pol_abci.rules import keys
from pol_abci.rules.codec import Account, Head, Liveness, Reward
from pol_abci.rules.ledger import get_account
from pol_abci.rules.params import Address, Amount
from tests.unit.client.fake_ledger import URL, FakeLedger, key_of
from tests.unit.rules import build_chain as make

if TYPE_CHECKING:
    from pathlib import Path

ALICE, BOB, CAROL = (key_of(name) for name in ("alice", "bob", "carol"))
BOBS = format_address(BOB.address)
STRANGER = format_address(Address(b"\x07" * 20))


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeLedger:
    ledger = FakeLedger()
    monkeypatch.setattr(node_choice, "RpcClient", lambda _: ledger.client())
    for name in ("RETRY_S", "POLL_S"):
        monkeypatch.setattr(sending, name, 0.0)
    return ledger


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "alice.json"
    ALICE.save(path)
    return path


def run(*arguments: str | Path, typed: str = "") -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, [*words, "--node", URL], input=typed)


def assert_fault(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def read_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_transfer_is_shown_sent_and_found(node: FakeLedger, key: Path) -> None:
    sent = run("transfer", "0.001", BOBS, "--key", key, "--yes")
    assert sent.exit_code == 0, sent.output
    name = node.offered[0].hash.hex().upper()
    assert sent.stdout == f"committed in block 4: {name}\n"
    for line in (f"to          {BOBS}", "amount      0.001", "fee         0.00001"):
        assert line in sent.stderr
    assert "total       0.00101 of 0.005" in sent.stderr
    assert get_account(node.state, BOB.address).balance == 300 + 1_000
    (entry,) = read_json(run("history", BOBS, "--json"))
    assert (entry["what"], entry["amount"], entry["hash"]) == ("received", "1000", name)


def test_coins_for_a_new_account_show_what_is_burned(node: FakeLedger, key: Path) -> None:
    sent = run("transfer", "0.001", STRANGER, "--key", key, "--yes", "--no-wait")
    assert sent.exit_code == 0, sent.output
    assert "burned      up to 0.00004, for a new account" in sent.stderr
    assert "total       up to 0.00105 of 0.005" in sent.stderr
    assert sent.stdout.startswith("sent ")
    assert len(node.mempool) == 1


def test_the_hash_is_shown_before_it_is_sent(node: FakeLedger, key: Path) -> None:
    node.is_losing_answers = True
    lost = run("transfer", "0.001", BOBS, "--key", key, "--yes")
    name = node.offered[0].hash.hex().upper()
    assert_fault(lost, f"Signed {name}", f"transaction {name} may still be committed")
    assert lost.stderr.index("Signed") < lost.stderr.index("error:")


def pay_bob(sequence: int) -> bytes:
    return build_transfer(
        ALICE,
        make.CHAIN_ID,
        sequence=sequence,
        fee=Amount(10),
        recipient=BOB.address,
        amount=Amount(1),
    )


def test_a_named_node_is_sent_one_transaction(node: FakeLedger, key: Path) -> None:
    node.before_check = [pay_bob(sequence=1)]
    lost = run("transfer", "0.001", BOBS, "--key", key, "--yes")
    assert_fault(lost, "came between", "pol-abci history")
    assert lost.stderr.count("Signed") == 1


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the node's chain with Alice's account, as far as these commands look."""
    path = tmp_path / "of-alice"
    path.mkdir()
    (path / SETTINGS_FILE).touch()
    ALICE.save(get_account_file(path))
    settings = SimpleNamespace(chain_id=make.CHAIN_ID, rpc_url=URL)
    monkeypatch.setattr(node_choice, "load_home", lambda _: SimpleNamespace(settings=settings))
    return path


def test_the_homes_own_node_is_sent_the_next_number(node: FakeLedger, home: Path) -> None:
    node.before_check = [pay_bob(sequence=1)]
    words = ["transfer", "0.001", BOBS, "--home", str(home), "--yes"]
    sent = CliRunner().invoke(main, words)
    assert sent.exit_code == 0, sent.output
    assert [tx.sequence for tx in node.offered] == [1, 2]


def test_the_homes_account_signs_for_the_homes_chain_alone(
    node: FakeLedger, home: Path, key: Path
) -> None:
    transfer = ("transfer", "0.001", BOBS, "--home", home, "--yes")
    assert run(*transfer).exit_code == 0
    node.chain_id = "pol-other"
    assert_fault(run(*transfer), f"a node of pol-other, and {home} is of {make.CHAIN_ID}: name")
    assert len(node.offered) == 1
    assert run(*transfer, "--key", key).exit_code == 0


def test_nothing_is_sent_without_a_yes(
    node: FakeLedger, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_fault(run("transfer", "0.001", BOBS, "--key", key), "nothing was sent", "--yes")
    monkeypatch.setattr(wallet, "has_terminal", lambda: True)
    refused = run("transfer", "0.001", BOBS, "--key", key, typed="n\n")
    assert_fault(refused, "nothing was sent")
    assert node.offered == []
    assert run("transfer", "0.001", BOBS, "--key", key, typed="y\n").exit_code == 0
    assert len(node.offered) == 1


@pytest.mark.parametrize(
    ("amount", "recipient", "words"),
    [
        ("0", BOBS, "nothing to send"),
        ("1", BOBS, "1.00001 coins are needed"),
        ("0.0000001", BOBS, "at most 6 decimals"),
        (BOBS, "1", "is not an address: write it"),
        ("1", BOB.address.hex(), "is not an address: write it"),
        ("1", BOBS[:-1], "is not an address: write it"),
    ],
)
def test_a_mistake_is_told_and_nothing_sent(
    node: FakeLedger, key: Path, amount: str, recipient: str, words: str
) -> None:
    assert_fault(run("transfer", amount, recipient, "--key", key, "--yes"), words)
    assert node.offered == []


def test_without_node_or_home_it_says_what_to_name(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["balance", BOBS, "--home", str(tmp_path / "none")])
    assert_fault(result, "is no home of a node", "--node URL", "pol-abci init")


def test_balance_proves_what_was_and_tells_what_comes(node: FakeLedger, key: Path) -> None:
    mature_reward(node)
    run("transfer", "0.001", BOBS, "--key", key, "--yes", "--no-wait")
    shown = run("balance", "--key", key).stdout.splitlines()
    assert shown == [
        f"address     {format_address(ALICE.address)}",
        "balance     0.005 coins, proven at height 2",
        "sequence    0 transactions sent",
        "soon        0.00399 coins, with the newest block and what waits for one",
        "maturing    0.000077 coins, 0.000044 at generation 5, the last at 6; now 4",
        "shares      3 of 5 slots",
    ]
    document = read_json(run("balance", "--key", key, "--json"))
    assert document["maturing"] == [
        {"amount": "44", "generation": 5},
        {"amount": "33", "generation": 6},
    ]
    assert (document["balance"], document["soon"]["balance"]) == ("5000", "3990")


def mature_reward(node: FakeLedger) -> None:
    """Let Alice have won generations 3 and 4, of which neither is paid yet."""
    payload = node.state.get(keys.head())
    assert payload is not None
    head = Head.decode(payload)
    values = {name: getattr(head, name) for name in Head.__dataclass_fields__}
    node.state.set(keys.head(), Head(**values | {"generation": 4}).encode())
    for generation, amount in ((3, 44), (4, 33)):
        reward = Reward(address=ALICE.address, amount=amount)
        node.state.set(keys.reward(generation), reward.encode())


def test_balance_of_nobody_says_so(node: FakeLedger) -> None:
    assert node.height == 3
    assert "no such account yet" in run("balance", STRANGER).stdout


def test_history_is_newest_first_in_pages(node: FakeLedger, key: Path) -> None:
    assert f"nothing of {BOBS} yet" in run("history", BOBS).stdout
    for amount in ("0.0001", "0.0002", "0.0003"):
        assert run("transfer", amount, BOBS, "--key", key, "--yes", "--no-wait").exit_code == 0
    node.make_block()
    own = format_address(ALICE.address)
    assert run("transfer", "0.0004", own, "--key", key, "--yes").exit_code == 0
    lines = run("history", own, "--limit", "3").stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines] == [
        "sent 0.0004 to itself, fee 0.00001",
        f"sent 0.0003 to {BOBS}, fee 0.00001",
        f"sent 0.0002 to {BOBS}, fee 0.00001",
        "Older ones: --skip 3",
    ]
    (oldest,) = read_json(run("history", own, "--skip", "3", "--json"))
    assert (oldest["what"], oldest["amount"], oldest["recipient"]) == ("sent", "100", BOBS)
    assert "beyond those" in run("history", own, "--skip", "4").stdout


def test_history_goes_beyond_the_blocks_that_a_node_keeps(node: FakeLedger, key: Path) -> None:
    for amount in ("0.0001", "0.0002"):
        assert run("transfer", amount, BOBS, "--key", key, "--yes").exit_code == 0
    node.base = node.height
    newest, oldest, note = run("history", BOBS).stdout.splitlines()
    assert newest.startswith("2026-11-23 ")
    assert oldest.startswith("time unknown ")
    assert "received 0.0001" in oldest
    assert "does not have the block any more" in note
    assert [entry["time_ms"] is None for entry in read_json(run("history", BOBS, "--json"))] == [
        False,
        True,
    ]


@pytest.fixture
def consensus_home(tmp_path: Path) -> Path:
    """A home with nothing but CometBFT's validator key, which is new."""
    seed = bytes(range(32))
    raw = seed + bytes(SigningKey(seed).verify_key)
    private = {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(raw).decode()}
    file = get_consensus_key_file(tmp_path / "home")
    file.parent.mkdir(parents=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps({"priv_key": private}))
    return tmp_path / "home"


def test_a_validator_is_registered_once(
    node: FakeLedger, consensus_home: Path, tmp_path: Path
) -> None:
    key = tmp_path / "carol.json"
    CAROL.save(key)
    arguments = ("--key", key, "--home", consensus_home, "--yes")
    assert "pol-abci validator register" in run("validator", "status", "--key", key).stdout
    made = run("validator", "register", *arguments)
    assert made.exit_code == 0, made.output
    assert "for ever" in made.stderr
    bound = get_account(node.state, CAROL.address).consensus_key
    assert bound == bytes(SigningKey(bytes(range(32))).verify_key)
    assert "each proof that wins takes a slot" in run("validator", "status", "--key", key).stdout
    assert_fault(run("validator", "register", *arguments), "already, and keeps it")
    (entry,) = read_json(run("history", "--key", key, "--json"))
    assert entry["what"] == "register"


def change_account(node: FakeLedger, **changes: Any) -> None:
    account = get_account(node.state, ALICE.address)
    values = {name: getattr(account, name) for name in Account.__dataclass_fields__}
    node.state.set(keys.account(ALICE.address), Account(**values | changes).encode())


def test_a_jailed_validator_is_told_and_let_out(node: FakeLedger, key: Path) -> None:
    standing = read_json(run("validator", "status", "--key", key, "--json"))
    assert (standing["power"], standing["voting_power"], standing["total_power"]) == (3, 3, 4)
    assert_fault(run("validator", "unjail", "--key", key, "--yes"), "is not in jail")
    change_account(node, jailed=True)
    node.make_block()
    shown = run("validator", "status", "--key", key).stdout
    assert "votes       power 3 of 4 at height 4, none from height 6 on at the latest" in shown
    assert "pol-abci validator unjail" in shown
    freed = run("validator", "unjail", "--key", key, "--yes")
    assert freed.exit_code == 0, freed.output
    assert not get_account(node.state, ALICE.address).jailed
    node.voting.pop(make.consensus_address("alice"))
    shown = run("validator", "status", "--key", key).stdout
    assert "votes       none yet; power 3 from height 7 on at the latest" in shown


def test_missed_blocks_and_a_bar_are_told(node: FakeLedger, key: Path) -> None:
    liveness = Liveness(observed=4, position=4, missed=b"\x50")
    node.state.set(keys.liveness(make.consensus_address("alice")), liveness.encode())
    shown = run("validator", "status", "--key", key).stdout
    assert "missed      2 of the last 4 blocks with a proof; jail comes above 2" in shown
    change_account(node, barred=True)
    assert "barred for ever" in run("validator", "status", "--key", key).stdout
    assert_fault(run("validator", "unjail", "--key", key, "--yes"), "is barred for ever")


def test_an_address_and_a_key_are_one_too_many(key: Path) -> None:
    assert run("balance", BOBS, "--key", key).exit_code == 2
