"""CIFAR-10 from both of its editions, from a few images made here; decoded once."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets import cifar as torchvision_cifar

from pol_abci.cache_folder import get_cache_folder
from pol_abci.learning.datasets import (
    DatasetMismatch,
    DatasetMissing,
    cifar,
    compute_digest,
    load_dataset,
)
from pol_abci.learning.datasets.cifar import DatasetNotFetched, fetch_cifar10
from pol_abci.learning.datasets.decoded import load_decoded
from tests.unit.learning.cifar_files import (
    dump,
    make_images,
    write_batches,
    write_image_folder,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pol_abci.learning.datasets.decoded import Pixels


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_image_folder_is_read_by_class_then_file_name(tmp_path: Path) -> None:
    pixels = write_image_folder(tmp_path)
    train, test = load_dataset("cifar10", tmp_path)
    np.testing.assert_array_equal(train.images, pixels["train"])
    np.testing.assert_array_equal(test.images, pixels["test"])
    assert train.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert test.labels.tolist() == list(range(10))
    assert (train.classes, train.pixel_divisor, train.source) == (10, 256, str(tmp_path))


@pytest.mark.parametrize("place", ["", "cifar10"])
def test_the_original_batches_are_read_in_the_order_of_their_files(
    tmp_path: Path, place: str
) -> None:
    images, labels = write_batches(tmp_path / place / "cifar-10-batches-py")
    train, test = load_dataset("cifar10", tmp_path)
    np.testing.assert_array_equal(train.images, images[:15])
    np.testing.assert_array_equal(test.images, images[15:])
    assert train.labels.tolist() == labels[:15]
    assert test.labels.tolist() == labels[15:]


def test_torchvision_reads_the_same_from_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_batches(folder)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda _: None)
    for is_train, dataset in zip((True, False), load_dataset("cifar10", tmp_path), strict=True):
        theirs = CIFAR10(str(tmp_path), train=is_train)
        np.testing.assert_array_equal(dataset.images, theirs.data)
        assert dataset.labels.tolist() == theirs.targets


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image_folder(tmp_path)
    first = load_dataset("cifar10", tmp_path)
    monkeypatch.setattr(cifar, "_read_image_folder", None, raising=False)  # would not be callable
    second = load_dataset("cifar10", tmp_path)
    assert [compute_digest(part) for part in first] == [compute_digest(part) for part in second]


def test_a_changed_image_is_decoded_again(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    load_dataset("cifar10", tmp_path)
    Image.fromarray(make_images(1, 99)[0]).save(tmp_path / "train" / "bird" / "0001.png")
    np.testing.assert_array_equal(
        load_dataset("cifar10", tmp_path)[0].images[5], make_images(1, 99)[0]
    )


@pytest.mark.parametrize("damage", ["a pixel", "cut short", "no digests"])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, damage: str) -> None:
    pixels = write_image_folder(tmp_path)
    load_dataset("cifar10", tmp_path)
    (copy,) = (get_cache_folder() / "datasets").iterdir()
    file = copy / "train-images.npy"
    content = bytearray(file.read_bytes())
    if damage == "a pixel":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "cut short":
        file.write_bytes(content[: len(content) // 2])
    else:
        (copy / "digests.json").write_text("{")
    np.testing.assert_array_equal(load_dataset("cifar10", tmp_path)[0].images, pixels["train"])
    assert len(list((get_cache_folder() / "datasets").iterdir())) == 1


def test_a_copy_that_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.touch()
    pixels = {"train": (make_images(2, 1), np.arange(2, dtype=np.uint8))}

    def decode() -> dict[str, Pixels]:
        load_decoded("images", tmp_path, [source], lambda: pixels)  # the quicker process
        (folder,) = (get_cache_folder() / "datasets").iterdir()
        inodes.append(folder.stat().st_ino)
        return pixels

    inodes: list[int] = []
    kept = load_decoded("images", tmp_path, [source], decode)
    np.testing.assert_array_equal(kept["train"][0], pixels["train"][0])
    (folder,) = (get_cache_folder() / "datasets").iterdir()
    assert [folder.stat().st_ino] == inodes


def test_a_test_set_of_1000_takes_the_first_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path / "cifar-10-batches-py")
    monkeypatch.setattr(cifar, "_IMAGES_A_CLASS_OF_TEST1000", 1)
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    content = pickle.loads(batch.read_bytes(), encoding="bytes")  # noqa: S301 - written above
    content[b"labels"] = [4, 1, 4]
    batch.write_bytes(dump(content))
    train, test = load_dataset("cifar10-test1000", tmp_path)
    whole_train, whole = load_dataset("cifar10", tmp_path)
    assert test.labels.tolist() == [4, 1]
    np.testing.assert_array_equal(test.images, whole.images[:2])
    assert compute_digest(train) == compute_digest(whole_train)


def test_a_batch_that_would_run_code_is_refused(tmp_path: Path) -> None:
    write_batches(tmp_path / "cifar-10-batches-py")
    evil = b"cos\nsystem\n(S'touch owned'\ntR."
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(evil)
    with pytest.raises(DatasetMismatch, match=r"data_batch_1 is no batch of cifar10.*os.system"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}.", dump([1]), dump(
    {b"data": np.zeros((1, 5), np.uint8), b"labels": [0]}), dump(
    {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]})])  # fmt: skip
def test_a_damaged_batch_is_told_by_name(tmp_path: Path, content: bytes) -> None:
    write_batches(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(DatasetMismatch, match="data_batch_3 is no batch"):
        load_dataset("cifar10", tmp_path)


def test_a_missing_dataset_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="pol-abci dataset fetch cifar10 --data-dir"):
        load_dataset("cifar10", tmp_path)


def test_a_missing_batch_is_told_by_name(tmp_path: Path) -> None:
    write_batches(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(DatasetMissing, match="test_batch"):
        load_dataset("cifar10", tmp_path)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "test" / "frog").rename(tmp_path / "test" / "newt")
    with pytest.raises(DatasetMismatch, match="newt"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("kind", ["size", "text"])
def test_a_file_that_is_no_picture_of_the_size_is_told_by_name(tmp_path: Path, kind: str) -> None:
    write_image_folder(tmp_path)
    file = tmp_path / "test" / "ship" / "0000.png"
    if kind == "size":
        Image.new("RGB", (31, 32)).save(file)
    else:
        file.write_text("no picture")
    with pytest.raises(DatasetMismatch, match=r"ship/0000.png is"):
        load_dataset("cifar10", tmp_path)


def test_without_a_network_a_fetch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision_cifar, "download_and_extract_archive", fail)
    with pytest.raises(DatasetNotFetched, match=r"no route to host; fetch .* on a machine with"):
        fetch_cifar10(tmp_path / "new")
