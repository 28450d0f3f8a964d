"""Each attack of docs/security.md, short: the direction of what it says, not the figure."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pol_abci.learning.weights import compute_root
from pol_abci.rules.seed import hash_fields
from studies.attacks.chosen_batches import REQUIREMENTS, climb, learn_paper
from studies.attacks.claims import STEPS, judge, make_claim
from studies.attacks.dead_taps import count_values
from studies.attacks.early_abandon import leave_at, leave_if_bad
from studies.attacks.gains import Efforts, estimate_gain
from studies.attacks.head_start import run
from studies.attacks.interval_stability import SETTLED, SHOCKS, Shock, run_chain
from studies.attacks.label_filter import BITS, walk_all
from studies.attacks.nonce_preselection import measure_walk
from studies.attacks.paper_rules import (
    BATCH_SIZE,
    IMAGES,
    PaperChain,
    count_met,
    draw_requirements,
)
from studies.attacks.race import Miner, Race
from studies.attacks.replay import replay_everywhere
from studies.attacks.report import Row, write_rows
from studies.attacks.ring_capture import (
    accumulate,
    bound_year,
    check_against_rules,
    compute_tail,
    get_needs,
    slide,
)
from studies.attacks.scene import MINER, OTHER, learn_head, load_digits
from studies.attacks.spoofed_weights import improve, spoil
from studies.attacks.steered_weights import prepare

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def test_a_gain_is_tickets_a_step_and_its_interval_holds_the_truth() -> None:
    chooser = np.random.default_rng(3)
    honest, attack = (
        Efforts(np.full(400, 1.0), chooser.binomial(1, odds, 400).astype(np.float64))
        for odds in (0.25, 0.5)
    )
    gain = estimate_gain(honest, attack)
    assert gain.low < 2.0 < gain.high
    assert gain.high - gain.low < 1.0
    assert estimate_gain(4.0, honest).low < 1.0 < estimate_gain(4.0, honest).high


def test_a_script_replaces_its_own_rows_and_no_others(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    head = "<!-- walk -->\n| a | script |\n|---|---|\n"
    document.write_text(f"before\n{head}<!-- end -->\nafter\n", encoding="utf-8")
    write_rows("theft", [Row("walk", ("old",))], document)
    write_rows("replay", [Row("walk", ("other",))], document)
    write_rows("theft", [Row("walk", ("new",))], document)
    assert document.read_text(encoding="utf-8") == (
        f"before\n{head}| other | `studies/attacks/replay.py` |\n"
        "| new | `studies/attacks/theft.py` |\n<!-- end -->\nafter\n"
    )


def test_anothers_walk_is_false_after_one_step() -> None:
    task, head = load_digits(), learn_head()
    claim = make_claim(task, head)
    assert judge(task, head, claim) == ("true", STEPS)
    verdict, steps = judge(task, head, replace(claim, address=OTHER))
    assert verdict.startswith("refused")
    assert steps == 1


def test_weights_from_elsewhere_are_false() -> None:
    task, head = load_digits(), learn_head()
    claim = replace(make_claim(task, head), weights_root=compute_root(task.initial_weights))
    assert judge(task, head, claim)[0].startswith("refused")


def test_a_proof_counts_once() -> None:
    assert [line.split("`")[1] for line in replay_everywhere()] == [
        "SecondProof",
        "StaleProof",
        "InvalidSignature",
    ]


def test_cached_gradients_gain_nothing_at_few_bits_and_something_at_many() -> None:
    right, gains = measure_walk(load_digits(), learn_head(), walks=16)
    assert 0.6 < right < 0.95  # better than a coin, or the attack is not tried
    assert gains[2, 6].high < 1.1
    assert gains[2, 32].low > 1.1  # what docs/security.md warns of
    assert gains[3, 32].high < 1.0  # and what ends it


def test_chosen_labels_gain_nothing() -> None:
    task, head = load_digits(), learn_head()
    efforts = walk_all(task, head, range(8), 0.0)
    gain = estimate_gain(8 / 7 * 2.0**BITS, efforts)
    assert 0.7 < gain.middle < 1.4


def test_leaving_a_walk_is_paid_for() -> None:
    missing = np.array([[0, 0, 0, 0], [0, 3, 3, 3]])
    assert leave_at(missing, 4).steps_per_ticket == 8 / 3
    assert leave_at(missing, 2).steps_per_ticket == 4 / 1
    left = leave_if_bad(missing, at=2, most=0, look=0.5)
    assert left.costs.tolist() == [4.5, 2.5]
    assert left.wins.tolist() == [3.0, 0.0]


@pytest.fixture(scope="module")
def paper() -> tuple[PaperChain, torch.Tensor]:
    chain, weights, _ = learn_paper()
    return chain, weights


def test_chosen_batches_break_the_papers_scheme() -> None:
    chain, weights, guide = learn_paper()
    summits = [climb(chain, weights, target, guide) for target in range(3)]
    assert sum(summit.gradients for summit in summits) < 3 * 2**REQUIREMENTS / 20


def test_requirements_of_the_paper_are_fair_coins(paper: tuple[PaperChain, torch.Tensor]) -> None:
    chain, weights = paper
    moves = chain.update(weights, random.Random(1).sample(range(IMAGES), BATCH_SIZE))
    met = [
        count_met(moves, draw_requirements(hash_fields("seed", i), MINER, 3, len(moves))) == 3
        for i in range(400)
    ]
    assert 0.06 < np.mean(met) < 0.22


def test_one_steered_proof_serves_every_generation_of_the_paper() -> None:
    chain = PaperChain()
    prepared = prepare(chain, learn_head().weights, tries=4)
    for generation in range(3):
        required = draw_requirements(
            hash_fields("seed", generation), MINER, 64, chain.task.model.weight_count
        )
        assert chain.verify(prepared.weights, prepared.batch, required)


def test_a_spoilt_model_is_improved_by_more_steps(paper: tuple[PaperChain, torch.Tensor]) -> None:
    chain, weights = paper
    ordinary, spoilt = (improve(chain, each, 40) for each in (weights, spoil(chain, weights)))
    assert spoilt.wins.sum() > ordinary.wins.sum()


def test_most_of_resnet18_never_moves_on_small_images() -> None:
    assert count_values() == (11_181_642, 4_234_826)


def test_proofs_follow_hash_power() -> None:
    miners = [Miner(600.0), Miner(200.0)]
    list(Race(miners, seed=1, follow_steps=0).run(600))
    assert sum(miner.wins for miner in miners) == 600
    assert 0.65 < miners[0].wins / 600 < 0.85


def test_leaving_early_for_the_own_head_is_no_way_to_more_proofs() -> None:
    attack = run(0.25, 0.9, 200, is_held=False, seed=3)
    assert 1 / attack.steps_per_ticket < 1.5 * 0.25


@pytest.mark.parametrize("shock", SHOCKS, ids=lambda shock: shock.name)
def test_a_chain_outlives_a_shock_of_hash_power(shock: Shock) -> None:
    intervals = np.array(run_chain(shock, seed=1)) / 4_000
    after = intervals[SETTLED:]
    assert shock.pause <= after[0] < shock.pause + 5
    assert after[1:].max() < 5
    assert 0.8 < after[-60:].mean() < 1.2


def test_a_ring_that_slides_over_proofs_is_what_the_rules_make_of_them() -> None:
    wins = np.random.default_rng(5).random(400) < 0.3
    check_against_rules(wins, 60)


def test_luck_takes_a_third_of_a_small_ring_from_a_quarter_of_the_hash_power() -> None:
    share, slots = Fraction(1, 4), 100
    assert get_needs(slots) == {"a third": 34, "two thirds": 67}
    held = slide(accumulate(np.random.default_rng(7).random(400_000) < float(share)), slots)
    assert np.mean(held >= 34) == pytest.approx(float(compute_tail(slots, 34, share)), rel=0.3)
    assert compute_tail(1_000, get_needs(1_000)["a third"], share) < 1e-8
    assert bound_year(1_000, get_needs(1_000)["two thirds"], share) < Fraction(1, 10**100)
