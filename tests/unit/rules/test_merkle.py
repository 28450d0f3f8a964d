"""Trees against the naive reading, and what would fork a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pol_abci.rules.merkle import (
    BUCKETS,
    BucketTree,
    bucket_of,
    compute_app_hash,
    compute_aunts,
    compute_bucket_root,
    compute_levels,
    compute_root,
    compute_weights_root,
    decode_value,
    encode_value,
    hash_inner,
    hash_leaf,
    replace_leaf,
)
from tests.unit.rules import reference

if TYPE_CHECKING:
    import random

roots = st.dictionaries(st.integers(0, BUCKETS - 1), st.binary(min_size=32, max_size=32))


def compute_naive_tree_root(changed: dict[int, bytes]) -> bytes:
    empty = reference.tree_root([])
    return reference.tree_root(
        [reference.pair(b"", changed.get(index, empty)) for index in range(BUCKETS)]
    )


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_root_equals_recursive_definition(leaves: list[bytes]) -> None:
    assert compute_root(leaves) == reference.tree_root(leaves)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70), st.data())
def test_aunts_equal_recursive_definition(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    hashes = [hash_leaf(leaf) for leaf in leaves]
    assert compute_aunts(hashes, index) == reference.path_up(leaves, index)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70), st.data())
def test_a_replaced_leaf_gives_the_levels_of_the_new_tree(
    leaves: list[bytes], data: st.DataObject
) -> None:
    levels = compute_levels([hash_leaf(leaf) for leaf in leaves])
    for _ in range(3):
        index = data.draw(st.integers(0, len(leaves) - 1))
        leaves[index] = data.draw(st.binary(max_size=4))
        replace_leaf(levels, index, hash_leaf(leaves[index]))
        assert levels[-1] == [reference.tree_root(leaves)]
    assert levels == compute_levels([hash_leaf(leaf) for leaf in leaves])


def test_inner_node_is_no_leaf() -> None:
    left, right = hash_leaf(b"l"), hash_leaf(b"r")
    assert compute_root([left + right]) != hash_inner(left, right)


@given(st.binary(max_size=70) | st.binary(min_size=30, max_size=33))
def test_stored_value_is_never_as_long_as_a_root_and_decodes(payload: bytes) -> None:
    stored = encode_value(payload)
    assert len(stored) != 32
    assert decode_value(stored) == payload


@pytest.mark.parametrize(
    "stored",
    [b"", b"\x00", b"\x03abc", b"\x01" + bytes(31), b"\x02\x00", b"\x02\x00" + bytes(30), b"\x02"],
)
def test_decode_refuses_what_encode_never_makes(stored: bytes) -> None:
    with pytest.raises(ValueError, match="not a stored value"):
        decode_value(stored)


@pytest.mark.parametrize(
    "entries",
    [[(b"b", b""), (b"a", b"")], [(b"a", b""), (b"a", b"")], [(b"", b"")]],
)
def test_bucket_refuses_unsorted_repeated_and_empty_keys(
    entries: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(ValueError, match="sorted by key"):
        compute_bucket_root(entries)


@settings(max_examples=8, deadline=None)
@given(roots)
def test_bucket_tree_equals_naive_root(changed: dict[int, bytes]) -> None:
    assert BucketTree.from_roots(changed).root == compute_naive_tree_root(changed)


@settings(deadline=None, max_examples=40)
@given(roots, roots)
def test_changes_made_one_after_the_other_equal_a_new_tree(
    first: dict[int, bytes], second: dict[int, bytes]
) -> None:
    tree = BucketTree.from_roots(first)
    change = tree.compute(second)
    assert tree.root == BucketTree.from_roots(first).root  # computing changes nothing
    undo = tree.apply(change)
    both = BucketTree.from_roots({**first, **second})
    assert tree.root == change.root == both.root
    assert tree._nodes == both._nodes
    tree.apply(undo)
    assert tree._nodes == BucketTree.from_roots(first)._nodes


@settings(deadline=None, max_examples=20)
@given(roots, roots, st.integers(0, BUCKETS - 1))
def test_aunts_with_a_change_are_those_of_the_other_version(
    first: dict[int, bytes], second: dict[int, bytes], index: int
) -> None:
    tree = BucketTree.from_roots(first)
    before = tree.prove(index)
    change = tree.compute(second)
    ahead = tree.prove(index, change)
    undo = tree.apply(change)
    assert tree.prove(index) == ahead
    assert tree.prove(index, undo) == before


def test_a_changed_bucket_costs_one_path_of_hashes() -> None:
    assert len(BucketTree().compute({77: bytes(32)}).nodes) == 17


def test_change_of_another_tree_is_refused() -> None:
    tree = BucketTree()
    late = tree.compute({1: bytes(32)})
    tree.apply(tree.compute({2: bytes(32)}))
    with pytest.raises(ValueError, match="another tree"):
        tree.apply(late)
    with pytest.raises(ValueError, match="another tree"):
        tree.prove(1, late)


@pytest.mark.parametrize("changed", [{-1: bytes(32)}, {BUCKETS: bytes(32)}, {0: bytes(31)}])
def test_bucket_or_root_that_cannot_be_is_refused(changed: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="below 65,536"):
        BucketTree().compute(changed)


@settings(max_examples=5, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=8), st.binary(max_size=40)), st.randoms())
def test_app_hash_does_not_depend_on_order_of_writing(
    entries: dict[bytes, bytes], order: random.Random
) -> None:
    weights_root = compute_weights_root(b"weights")
    tree = BucketTree()
    written: dict[int, list[tuple[bytes, bytes]]] = {}
    for key, payload in order.sample(sorted(entries.items()), len(entries)):
        bucket = written.setdefault(bucket_of(key), [])
        bucket.append((key, payload))
        tree.apply(tree.compute({bucket_of(key): compute_bucket_root(sorted(bucket))}))
    assert compute_app_hash(tree.root, weights_root) == reference.app_hash(entries, b"weights")
