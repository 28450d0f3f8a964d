"""Each code is told with its name, the node's words, and what to do."""

from __future__ import annotations

import pytest

from pol_abci.client.refusals import explain_refusal
from pol_abci.rules import errors


@pytest.mark.parametrize("kind", errors.InvalidTx.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_way_to_be_refused_comes_with_advice(kind: type[errors.InvalidTx]) -> None:
    text = explain_refusal(kind.code, "the node's words")
    name, _, advice = text.partition("; ")
    assert name.startswith(f"{kind.__name__} (code {kind.code}): the node's words")
    assert advice


def test_amounts_of_the_application_are_told_with_their_unit() -> None:
    text = explain_refusal(errors.InsufficientFunds.code, "2000 needed, 1000 there")
    assert "1000 there, in millionths of a coin; see what can be spent" in text
