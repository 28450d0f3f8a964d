"""Random blocks: the rules and a chain of plain dictionaries agree on all of it, every time."""

from __future__ import annotations

from hypothesis import settings

from tests.unit.rules.random_blocks import RandomBlocks

TestRandomBlocks = RandomBlocks.TestCase
TestRandomBlocks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
