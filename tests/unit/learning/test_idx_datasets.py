"""Datasets that come as idx files: Fashion-MNIST, from a few images written here."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pol_abci.learning.datasets import (
    DatasetMismatch,
    DatasetMissing,
    compute_digest,
    load_dataset,
    places,
)
from pol_abci.learning.datasets.idx import InvalidIdx, read_idx
from pol_abci.node.presets import load_preset
from tests.unit.learning.idx_files import LABELS, encode_idx, make_images, write_dataset

if TYPE_CHECKING:
    from pathlib import Path


def test_images_and_labels_keep_the_order_of_their_files(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    train, test = load_dataset("fashion-mnist", tmp_path)
    np.testing.assert_array_equal(train.images, make_images(5, 1)[..., None])
    np.testing.assert_array_equal(test.images, make_images(3, 2)[..., None])
    assert train.labels.tolist() == [0, 1, 2, 3, 4]
    assert test.labels.tolist() == [9, 0, 4]
    assert {(part.classes, part.pixel_divisor) for part in (train, test)} == {(10, 256)}


def test_files_are_found_in_a_folder_of_the_datasets_name_too(tmp_path: Path) -> None:
    write_dataset(tmp_path / "fashion-mnist")
    assert len(load_dataset("fashion-mnist", tmp_path)[0]) == 5


def test_without_a_folder_the_systems_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "fashion-mnist")
    monkeypatch.setattr(places, "SYSTEM_FOLDER", tmp_path)
    assert len(load_dataset("fashion-mnist")[1]) == 3


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / LABELS).unlink()
    with pytest.raises(DatasetMissing) as missing:
        load_dataset("fashion-mnist", tmp_path)
    for part in (LABELS, str(tmp_path), "apt install dataset-fashion-mnist", "--data-dir"):
        assert part in str(missing.value)


def test_images_and_labels_of_two_editions_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / LABELS).write_bytes(encode_idx(np.arange(4, dtype=np.uint8)))
    with pytest.raises(DatasetMismatch, match=r"5 images.* 4 labels"):
        load_dataset("fashion-mnist", tmp_path)


WHOLE = encode_idx(make_images(2, 3))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("plain", b"", "begins with"),
        ("plain", b"<html>not found</html>", "begins with"),
        ("plain", encode_idx(np.arange(3, dtype=np.uint8)), "begins with 00000801"),
        ("plain", bytes.fromhex("00000d03") + WHOLE[4:], "begins with 00000d03"),
        ("plain", WHOLE[:15], "within its header"),
        ("plain", WHOLE[:-1], "1567 values where its header says 1568"),
        ("plain", WHOLE + b"\x00", "more than 1568"),
        ("plain", WHOLE[:4] + b"\xff" * 12, "too many"),
        ("file.gz", WHOLE, "Not a gzipped file"),
        ("file.gz", gzip.compress(WHOLE)[:-9], "ended before"),
        ("file.gz", gzip.compress(WHOLE)[:-8] + bytes(8), "CRC"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidIdx, match=says) as refusal:
        read_idx(path, 3)
    assert str(path) in str(refusal.value)


@pytest.mark.skipif(
    not (places.SYSTEM_FOLDER / "fashion-mnist").is_dir(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_debians_files_are_the_presets() -> None:
    params = load_preset("fashion-mnist").params.task
    train, test = load_dataset("fashion-mnist")
    assert (train.images.shape, test.images.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    assert compute_digest(train) == params.train_digest
    assert compute_digest(test) == params.test_digest
