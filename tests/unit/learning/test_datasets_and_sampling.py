"""The digits as the protocol splits them, and batches with their augmentation."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from pol_abci.learning.datasets import (
    Dataset,
    DatasetMismatch,
    check_digest,
    compute_digest,
    digits,
    load_dataset,
)
from pol_abci.learning.sampling import BatchDraw, TrainSet
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.params import Address, Augmentation
from pol_abci.rules.seed import Stream

ADDRESS = Address(bytes(20))
SEED = bytes(32)
CPU = torch.device("cpu")


def make_dataset(count: int = 6, height: int = 5, width: int = 4, channels: int = 2) -> Dataset:
    random = np.random.default_rng(3)
    return Dataset(
        random.integers(1, 256, (count, height, width, channels)).astype(np.uint8),
        (np.arange(count) % 3).astype(np.uint8),
        classes=3,
        pixel_divisor=256,
    )


def make_train(dataset: Dataset, **augmentation: Any) -> TrainSet:
    settings = Augmentation(**({"shift": 0, "flip": False, "cutout": 0} | augmentation))
    return TrainSet(dataset, len(dataset), settings, CPU)


def test_every_fifth_digit_is_for_tests() -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - it takes a second

    images, labels = load_digits(return_X_y=True)
    train, test = load_dataset("digits")
    assert (len(train), len(test)) == (1_437, 360)
    np.testing.assert_array_equal(test.images.reshape(360, 64), images[::5])
    np.testing.assert_array_equal(test.labels, labels[::5])
    positions = [position for position in range(1_797) if position % 5]
    np.testing.assert_array_equal(train.images.reshape(1_437, 64), images[positions])
    np.testing.assert_array_equal(train.labels, labels[positions])


def test_a_digest_covers_shape_classes_pixels_and_labels() -> None:
    dataset = make_dataset(2, 1, 2, 1)
    fields = [
        *(number.to_bytes(8, "big") for number in (2, 1, 2, 1, 3)),
        bytes(dataset.images.ravel().tolist()),
        bytes([0, 1]),
    ]
    preimage = b"\x07dataset" + b"".join(len(f).to_bytes(4, "big") + f for f in fields)
    assert compute_digest(dataset) == hashlib.sha256(preimage).digest()


def test_another_edition_of_a_dataset_is_refused_with_both_digests() -> None:
    dataset = make_dataset()
    expected = compute_digest(dataset)
    check_digest("digits", "train", dataset, expected)
    dataset.images[0, 0, 0, 0] ^= 1
    with pytest.raises(DatasetMismatch, match=expected.hex()) as refusal:
        check_digest("digits", "train", dataset, expected)
    assert compute_digest(dataset).hex() in str(refusal.value)


def test_an_unknown_dataset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(GenesisError, match="digits"):
        load_dataset("imagenet")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("_SHAPE", (1_798, 65), "are .* values here"),
        ("_FILE", "sklearn/elsewhere.csv.gz", "cannot be read here .*elsewhere"),
        ("_FILE", "sklearn/__init__.py", "cannot be read here"),
        ("_LIBRARY", "scikit-forget", "cannot be read here"),
    ],
)
def test_a_library_that_ships_no_such_digits_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, reason: str
) -> None:
    monkeypatch.setattr(digits, name, value)
    with pytest.raises(DatasetMismatch, match=f"{reason}.* install the version"):
        load_dataset("digits")


def test_draws_come_in_the_order_of_the_protocol() -> None:
    dataset = make_dataset(6, 5, 4)
    train = make_train(dataset, shift=2, flip=True, cutout=3)
    draw = train.draw(SEED, ADDRESS, 7, 3)
    stream = Stream("batch", SEED, ADDRESS, 7, 3)
    assert draw.ordinals == stream.draw_distinct(6, 6)
    for image in range(6):
        assert draw.shifts[image] == (stream.uniform(5) - 2, stream.uniform(5) - 2)
        assert draw.flips[image] == (stream.uniform(2) == 1)
        assert draw.cutouts[image] == (stream.uniform(5), stream.uniform(4))


def test_what_the_preset_lacks_is_not_drawn() -> None:
    dataset = make_dataset()
    draw = make_train(dataset, flip=True).draw(SEED, ADDRESS, 0, 1)
    stream = Stream("batch", SEED, ADDRESS, 0, 1)
    assert draw.ordinals == stream.draw_distinct(6, 6)
    assert draw.flips == [stream.uniform(2) == 1 for _ in range(6)]
    assert draw.shifts == []
    assert draw.cutouts == []


def test_draws_differ_by_seed_address_nonce_and_step() -> None:
    train = make_train(make_dataset(), shift=2)
    others = [
        (bytes([1]) * 32, ADDRESS, 0, 1),
        (SEED, Address(bytes([1]) * 20), 0, 1),
        (SEED, ADDRESS, 1, 1),
        (SEED, ADDRESS, 0, 2),
    ]
    first = train.draw(SEED, ADDRESS, 0, 1)
    assert all(train.draw(*other) != first for other in others)


def augment_pixel_by_pixel(
    image: np.ndarray[Any, Any], shift: tuple[int, int], flip: bool, corner: tuple[int, int]
) -> np.ndarray[Any, Any]:
    height, width = image.shape[:2]
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            sy, sx = y + shift[0], x + shift[1]
            if 0 <= sy < height and 0 <= sx < width:
                out[y, x] = image[sy, sx]
    if flip:
        out = np.array([[row[width - 1 - x] for x in range(width)] for row in out])
    for y in range(height):
        for x in range(width):
            if corner[0] <= y < corner[0] + 3 and corner[1] <= x < corner[1] + 3:
                out[y, x] = 0
    return out


def test_shift_then_flip_then_cutout_with_zeros_outside() -> None:
    dataset = make_dataset()
    train = make_train(dataset, shift=2, flip=True, cutout=3)
    draw = BatchDraw(
        [4, 0, 5, 1, 2, 3],
        [(0, 0), (2, -1), (-2, 2), (1, 1), (0, -2), (-1, 0)],
        [False, True, True, False, True, False],
        [(0, 0), (4, 3), (2, 1), (0, 3), (1, 1), (3, 0)],
    )
    images, labels = train.gather(draw)
    for place, ordinal in enumerate(draw.ordinals):
        expected = augment_pixel_by_pixel(
            dataset.images[ordinal], draw.shifts[place], draw.flips[place], draw.cutouts[place]
        )
        np.testing.assert_array_equal(images[place].numpy() * 256, expected)
        assert labels[place] == dataset.labels[ordinal]


def test_augmentation_leaves_the_dataset_as_it_was() -> None:
    dataset = make_dataset()
    before = dataset.images.copy()
    train = make_train(dataset, flip=True, cutout=3)
    first, _ = train.gather(train.draw(SEED, ADDRESS, 0, 1))
    again, _ = train.gather(train.draw(SEED, ADDRESS, 0, 1))
    np.testing.assert_array_equal(dataset.images, before)
    assert torch.equal(first, again)
