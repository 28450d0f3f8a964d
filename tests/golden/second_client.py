"""A second client, written from docs/protocol.md and not from the package.

It walks the golden walk with numpy, hashlib and scikit-learn's images, so that the document
and the implementation are held against each other: what a reader of the document computes must
be, bit for bit, what the package computes. It is one file, to be read beside the document section
by section, and is not quick. It has sections 1 to 6 and 9 as far as a walk needs them, and
section 12's root of the weights.

    python -m tests.golden.second_client

prints what pol_abci/learning/golden_walk.json says is `made`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Field = bytes | int
Pixels = NDArray[np.int64]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Floats = TypeVar("Floats", Float32s, Float64s)
Weights = dict[str, Float32s]  # by tensor name, in canonical order

PRESET = Path(__file__).parents[2] / "cometbft-config/digits/genesis.json"
GOLDEN = Path(__file__).parents[2] / "pol_abci/learning/golden_walk.json"


# Section 1: bytes, hashes, streams


def encode_preimage(tag: str, *fields: Field) -> bytes:
    """u8 length and tag, then u32 length and bytes of each field; an integer is a u64."""
    preimage = len(tag).to_bytes(1, "big") + tag.encode("ascii")
    for field in fields:
        data = field.to_bytes(8, "big") if isinstance(field, int) else field
        preimage += len(data).to_bytes(4, "big") + data
    return preimage


def tagged_hash(tag: str, *fields: Field) -> bytes:
    """H(tag; f1, f2, …)."""
    return hashlib.sha256(encode_preimage(tag, *fields)).digest()


class Stream:
    """Stream(tag; f1, …): the endless output of SHAKE-256, read from its beginning."""

    def __init__(self, tag: str, *fields: Field) -> None:
        self._shake = hashlib.shake_256(encode_preimage(tag, *fields))
        self._known = b""
        self._position = 0

    def read(self, count: int) -> bytes:
        """The next `count` bytes."""
        start, self._position = self._position, self._position + count
        if self._position > len(self._known):
            self._known = self._shake.digest(2 * self._position + 1024)
        return self._known[start : self._position]

    def uniform(self, n: int) -> int:
        """One of 0 … n - 1: the first word below the greatest multiple of n, mod n."""
        limit = 2**64 // n * n
        while (word := int.from_bytes(self.read(8), "big")) >= limit:
            pass
        return word % n

    def distinct(self, k: int, n: int) -> list[int]:
        """k different ones of 0 … n - 1, in the order in which they first came."""
        seen: dict[int, None] = {}
        while len(seen) < k:
            seen[self.uniform(n)] = None
        return list(seen)


def encode_tensor(values: Float32s) -> bytes:
    """Little-endian float32, last axis fastest; adding +0 makes positive zeros of negative ones."""
    return (values + np.float32(0)).astype("<f4").tobytes()


def encode_weights(weights: Weights) -> bytes:
    """Canonical bytes: the tensors one after the other, running statistics included."""
    return b"".join(encode_tensor(values) for values in weights.values())


# Section 2: genesis, datasets, first weights


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a genesis chooses for a walk, by section 2's names."""

    channels: tuple[int, ...]
    shift: int
    flip: bool
    cutout: int
    batch_size: int
    learning_rate: str
    forward_bits: int
    backward_bits: int
    min_steps: int
    max_steps: int
    evaluation_samples: int


def read_figures(genesis: Any) -> Figures:
    """The figures of a preset's parsed genesis.json."""
    task, walk, arithmetic = genesis["task"], genesis["walk"], genesis["arithmetic"]
    return Figures(
        channels=tuple(task["channels"]),
        **task["augmentation"],
        batch_size=task["batch_size"],
        learning_rate=task["learning_rate"],
        forward_bits=arithmetic["forward_bits"],
        backward_bits=arithmetic["backward_bits"],
        min_steps=walk["min_steps"],
        max_steps=walk["max_steps"],
        evaluation_samples=walk["evaluation_samples"],
    )


def round_learning_rate(text: str) -> np.float32:
    """The float32 nearest to a decimal, ties to even; rounding through float64 would be twice."""
    guess = np.float32(float(text))
    candidates = (np.nextafter(guess, np.float32(0)), guess, np.nextafter(guess, np.float32(1e9)))
    return min(
        candidates,
        key=lambda c: (abs(Fraction(float(c)) - Fraction(text)), int(c.view(np.uint32)) % 2),
    )


@dataclass(frozen=True)
class Dataset:
    """Images [count, H, W, C] of pixels 0 to 16, labels [count], and the number of classes."""

    images: Pixels
    labels: Pixels
    classes: int = 10

    def compute_digest(self) -> bytes:
        """H("dataset"; count, H, W, C, classes, pixels, labels)."""
        pixels = self.images.astype(np.uint8).tobytes()
        labels = self.labels.astype(np.uint8).tobytes()
        return tagged_hash("dataset", *self.images.shape, self.classes, pixels, labels)


def load_train_and_test_set() -> tuple[Dataset, Dataset]:
    """`digits`: D and E; positions 0, 5, 10, … are E."""
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.astype(np.int64).reshape(-1, 8, 8, 1)
    is_test = np.arange(len(images)) % 5 == 0
    return Dataset(images[~is_test], labels[~is_test]), Dataset(images[is_test], labels[is_test])


def draw_layer(
    chain_seed: bytes, name: str, rows: int, columns: int, *, is_convolution: bool
) -> Float32s:
    """First weights of a convolution or linear layer, [rows, columns]; fan_in is rows."""
    stream = Stream("initial-weights", chain_seed, name.encode())
    bound = math.sqrt(6 / rows) if is_convolution else 1 / math.sqrt(rows)
    draws = [int.from_bytes(stream.read(3), "big") for _ in range(rows * columns)]
    values = [(2 * u + 1 - 2**24) * 2.0**-24 * bound for u in draws]
    return np.array(values, np.float64).astype(np.float32).reshape(rows, columns)


def draw_first_weights(chain_id: str, figures: Figures) -> Weights:
    """W_0 of `cnn`, its tensors in section 3's order."""
    chain_seed = tagged_hash("chain-seed", chain_id.encode())
    weights: Weights = {}
    channels = (1, *figures.channels)
    for i in (1, 2, 3):
        name, inputs, outputs = f"conv{i}.weight", channels[i - 1], channels[i]
        weights[name] = draw_layer(chain_seed, name, 9 * inputs, outputs, is_convolution=True)
        weights[f"bn{i}.weight"] = np.ones(outputs, np.float32)
        weights[f"bn{i}.bias"] = np.zeros(outputs, np.float32)
        weights[f"bn{i}.running_mean"] = np.zeros(outputs, np.float32)
        weights[f"bn{i}.running_var"] = np.ones(outputs, np.float32)
    # Strides 1, 2, 2 make 2 by 2 of 8 by 8.
    weights["fc.weight"] = draw_layer(
        chain_seed, "fc.weight", 2 * 2 * channels[3], 10, is_convolution=False
    )
    weights["fc.bias"] = np.zeros(10, np.float32)
    return weights


# Section 3: exact arithmetic

LIMIT = 2.0**60
EPSILON = np.float32(1e-5)
RHO = np.float32(0.1)
ONE = np.float32(1)
ZERO = np.float32(0)


class InvalidValue(Exception):
    """A value that makes its step, or in evaluation its image, invalid."""


def quantise(values: Float32s, bits: int) -> Float64s:
    """Q_b(x), scope: all that is given. Float64 has multiples of u, and sums of products, exact."""
    greatest = float(np.abs(values).max())
    if not greatest < LIMIT:  # so also if it is not a number
        raise InvalidValue
    if greatest < 2.0**-40:
        return np.zeros(values.shape)
    exponent = math.frexp(greatest * (1 + 2.0 ** (1 - bits)))[1]
    unit = 2.0 ** (exponent - bits + 1)
    return np.rint(values.astype(np.float64) / unit) * unit


def contract(left: Float64s, right: Float64s) -> Float32s:
    """Exact sums of the products of quantised operands, rounded once."""
    return (left @ right).astype(np.float32)


def halving_tree(values: Floats) -> Floats:
    """The sum over the first axis, in the tree's order."""
    rows: Floats = values.copy()
    while (count := len(rows)) > 1:
        half = 2 ** ((count - 1).bit_length() - 1)
        rows[: count - half] += rows[half:]
        rows = rows[:half]
    total: Floats = rows[0]
    return total


def slice_tap(tap: int, outputs: int, stride: int) -> slice:
    """Along one padded axis: what the outputs see through a tap."""
    return slice(tap, tap + stride * (outputs - 1) + 1, stride)


def count_outputs(size: int, stride: int) -> int:
    """Along one axis, of a 3 by 3 convolution with padding 1."""
    return (size + 2 - 3) // stride + 1


def gather_taps(images: Float64s, stride: int) -> Float64s:
    """[N, H, W, C] to [R, 9 C]: what each output sees, zeros outside."""
    height, width = (count_outputs(size, stride) for size in images.shape[1:3])
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = [
        padded[:, slice_tap(i, height, stride), slice_tap(j, width, stride)]
        for i in range(3)
        for j in range(3)
    ]
    return np.stack(seen, axis=3).reshape(-1, 9 * images.shape[3])


def scatter_taps(rows: Float64s, shape: tuple[int, ...], stride: int) -> Float64s:
    """[R, 9 C] to [N, H, W, C]: for each input value the exact sum over the taps that saw it."""
    count, height, width, channels = shape
    out_height, out_width = count_outputs(height, stride), count_outputs(width, stride)
    taps = rows.reshape(count, out_height, out_width, 9, channels)
    padded = np.zeros((count, height + 2, width + 2, channels))
    for tap in range(9):
        i, j = divmod(tap, 3)
        seen = padded[:, slice_tap(i, out_height, stride), slice_tap(j, out_width, stride)]
        seen += taps[:, :, :, tap]
    return padded[:, 1:-1, 1:-1]


STRIDES = {1: 1, 2: 2, 3: 2}  # of conv1, conv2, conv3


def convolve(i: int, weights: Weights, images: Float32s, figures: Figures) -> Float32s:
    """Forward through conv{i}: [N, H', W', O]."""
    stride = STRIDES[i]
    seen = gather_taps(quantise(images, figures.forward_bits), stride)
    rows = contract(seen, quantise(weights[f"conv{i}.weight"], figures.forward_bits))
    height, width = (count_outputs(size, stride) for size in images.shape[1:3])
    return rows.reshape(len(images), height, width, -1)


def apply_linear(weights: Weights, features: Float32s, figures: Figures) -> Float32s:
    """Forward through fc: logits [N, classes]."""
    bits = figures.forward_bits
    products = contract(quantise(features, bits), quantise(weights["fc.weight"], bits))
    return products + weights["fc.bias"]


@dataclass(frozen=True)
class Normalised:
    """What BatchNorm keeps of a forward pass: d [R, C], and q, inv, mean [C]."""

    deviations: Float32s
    squares: Float32s
    inverse: Float32s
    mean: Float32s


def normalise(y: Float32s) -> Normalised:
    """BatchNorm's statistics of the batch, of rows [R, C]."""
    count = np.float32(len(y))
    mean = halving_tree(y) / count
    deviations = y - mean
    squares = halving_tree(deviations * deviations)
    inverse = ONE / np.sqrt(squares / count + EPSILON)
    return Normalised(deviations, squares, inverse, mean)


def compute_loss_gradient(logits: Float32s, labels: Pixels) -> Float32s:
    """Gradient of the logits, in float64 until the end."""
    z = logits.astype(np.float64)
    x = np.maximum(z - z.max(axis=1, keepdims=True), -700.0)
    k = np.rint(x * 1.4426950408889634)
    r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    p = np.full_like(r, 1 / math.factorial(13))
    for i in range(12, -1, -1):
        p = p * r + 1 / math.factorial(i)
    v = np.ldexp(p, k.astype(np.int64))
    share = v / halving_tree(v.T)[:, np.newaxis]
    onehot = np.eye(logits.shape[1])[labels]
    gradient: Float64s = (share - onehot) / float(len(labels))
    return gradient.astype(np.float32)


def update(weights: Weights, images: Float32s, labels: Pixels, figures: Figures) -> Weights:
    """The weights after one step on a batch; raises InvalidValue when the step is invalid."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is beyond the type becomes infinite
        updated = _update(weights, images, labels, figures)
    if not all(np.all(np.abs(values) < LIMIT) for values in updated.values()):
        raise InvalidValue
    return updated


def _update(weights: Weights, images: Float32s, labels: Pixels, figures: Figures) -> Weights:
    bits = figures.backward_bits
    gradients: Weights = {}
    inputs: dict[int, Float32s] = {}
    norms: dict[int, Normalised] = {}
    x = images
    for i in STRIDES:
        inputs[i] = x
        y = convolve(i, weights, x, figures)
        norm = norms[i] = normalise(y.reshape(-1, y.shape[3]))
        scale = norm.inverse * weights[f"bn{i}.weight"]
        out = norm.deviations * scale + weights[f"bn{i}.bias"]
        x = np.maximum(out, ZERO).reshape(y.shape)
    outputs = {1: inputs[2], 2: inputs[3], 3: x}
    features = x.reshape(len(x), -1)

    g = compute_loss_gradient(apply_linear(weights, features, figures), labels)
    quantised = quantise(g, bits)
    gradients["fc.weight"] = contract(quantise(features, bits).T, quantised)
    gradients["fc.bias"] = halving_tree(quantised.astype(np.float32))
    g = contract(quantised, quantise(weights["fc.weight"], bits).T).reshape(x.shape)

    for i in reversed(STRIDES):
        norm, gamma = norms[i], weights[f"bn{i}.weight"]
        d, inverse, count = norm.deviations, norm.inverse, np.float32(len(norm.deviations))
        g = np.where(outputs[i] > 0, g, ZERO).reshape(d.shape)
        beta_gradient = halving_tree(g)
        gamma_gradient = halving_tree(g * d) * inverse
        g = ((g - beta_gradient / count) - d * ((gamma_gradient * inverse) / count)) * (
            inverse * gamma
        )
        gradients[f"bn{i}.weight"], gradients[f"bn{i}.bias"] = gamma_gradient, beta_gradient

        quantised = quantise(g, bits)
        seen = gather_taps(quantise(inputs[i], bits), STRIDES[i])
        gradients[f"conv{i}.weight"] = contract(seen.T, quantised)
        if i > 1:  # the first layer's input has no gradient
            rows = quantised @ quantise(weights[f"conv{i}.weight"], bits).T
            g = scatter_taps(rows, inputs[i].shape, STRIDES[i]).astype(np.float32)

    rate = round_learning_rate(figures.learning_rate)
    updated = {
        name: values - rate * gradients[name] if name in gradients else values
        for name, values in weights.items()
    }
    for i, norm in norms.items():
        mean, variance = weights[f"bn{i}.running_mean"], weights[f"bn{i}.running_var"]
        count = np.float32(len(norm.deviations))
        updated[f"bn{i}.running_mean"] = mean + RHO * (norm.mean - mean)
        updated[f"bn{i}.running_var"] = variance + RHO * (norm.squares / (count - ONE) - variance)
    return updated


def get_learnable_values(weights: Weights) -> Float32s:
    """All but the running statistics, flat in canonical order."""
    return np.concatenate([v.ravel() for name, v in weights.items() if "running" not in name])


# Section 4: the walk


@dataclass(frozen=True)
class Head:
    """W_n and s_n."""

    weights: Weights
    seed: bytes


@dataclass(frozen=True)
class Step:
    """W^(t), probe_t, and the score from min_steps on."""

    t: int
    probe: bytes
    score: int | None
    weights: Weights


def augment(image: Pixels, stream: Stream, figures: Figures) -> Pixels:
    """An image [H, W, C] changed as the stream says; all draws come before the changes."""
    height, width, _ = image.shape
    p = figures.shift
    dy, dx = (stream.uniform(2 * p + 1) - p, stream.uniform(2 * p + 1) - p) if p > 0 else (0, 0)
    is_mirrored = figures.flip and stream.uniform(2) == 1
    y, x = (stream.uniform(height), stream.uniform(width)) if figures.cutout > 0 else (0, 0)

    padded = np.pad(image, ((p, p), (p, p), (0, 0)))
    out = padded[p + dy : p + dy + height, p + dx : p + dx + width]
    out = (out[:, ::-1] if is_mirrored else out).copy()
    out[y : y + figures.cutout, x : x + figures.cutout] = 0
    return out


def draw_batch(train: Dataset, stream: Stream, figures: Figures) -> tuple[Float32s, Pixels]:
    """Inputs [S, H, W, C] and labels [S]."""
    ordinals = stream.distinct(figures.batch_size, len(train.images))
    images = [augment(train.images[ordinal], stream, figures) for ordinal in ordinals]
    return scale_pixels(np.stack(images)), train.labels[ordinals]


def scale_pixels(images: Pixels) -> Float32s:
    """Inputs of `digits`: pixel / 16, which is exact."""
    return images.astype(np.float32) / np.float32(16)


def walk(
    train: Dataset, figures: Figures, head: Head, address: bytes, nonce: int
) -> Iterator[Step]:
    """The steps of a walk from a head, until max_steps or before an invalid step."""
    weights, seed = head.weights, head.seed
    probe = tagged_hash("probe", seed, encode_tensor(weights["conv1.weight"]))
    for t in range(1, figures.max_steps + 1):
        batch = draw_batch(train, Stream("batch", seed, address, nonce, t), figures)
        before, probe_before = weights, probe
        try:
            weights = update(before, *batch, figures)
        except InvalidValue:
            return
        probe = tagged_hash("probe", probe_before, encode_tensor(weights["conv1.weight"]))
        requirements = Stream("requirements", seed, address, nonce, t, probe_before)
        is_ticket = t >= figures.min_steps
        score = compute_score(requirements, before, weights, probe) if is_ticket else None
        yield Step(t, probe, score, weights)


# Section 5: requirements and score


def compute_score(requirements: Stream, before: Weights, after: Weights, probe: bytes) -> int:
    """In 1/65,536 bit."""
    moves = np.sign(get_learnable_values(after) - get_learnable_values(before))
    count = 0
    seen: set[int] = set()
    for _ in range(4096):
        i, is_decrease = divmod(requirements.uniform(2 * len(moves)), 2)
        if i in seen:
            continue
        seen.add(i)
        if moves[i] == 0:
            continue
        if moves[i] != (-1 if is_decrease else 1):
            break
        count += 1
    return 65_536 * count + int.from_bytes(tagged_hash("fraction", probe)[:2], "big")


# Section 6: progress


def draw_evaluation_sample(test: Dataset, figures: Figures, seed: bytes) -> list[int]:
    """E_n, as ordinals."""
    return Stream("evaluation", seed).distinct(figures.evaluation_samples, len(test.images))


def classify(weights: Weights, image: Pixels, figures: Figures) -> int:
    """The class of one image, which is the scope of Q by itself; may raise InvalidValue."""
    x = scale_pixels(image[np.newaxis])
    with np.errstate(over="ignore", invalid="ignore"):
        for i in STRIDES:
            d = convolve(i, weights, x, figures) - weights[f"bn{i}.running_mean"]
            inverse = ONE / np.sqrt(weights[f"bn{i}.running_var"] + EPSILON)
            out = d * (inverse * weights[f"bn{i}.weight"]) + weights[f"bn{i}.bias"]
            x = np.maximum(out, ZERO)
        return int(np.argmax(apply_linear(weights, x.reshape(1, -1), figures)))


def count_correct(
    weights: Weights, test: Dataset, figures: Figures, ordinals: Iterable[int]
) -> int:
    """c(W) on these images of E; an invalid one counts as wrong."""
    correct = 0
    for ordinal in ordinals:
        try:
            predicted = classify(weights, test.images[ordinal], figures)
        except InvalidValue:
            continue
        correct += predicted == int(test.labels[ordinal])
    return correct


# Section 9: seeds of generations


def compute_first_seed(chain_id: str, genesis_digest: bytes) -> bytes:
    """s_0."""
    return tagged_hash("seed-0", chain_id.encode(), genesis_digest)


def compute_next_seed(seed: bytes, address: bytes, nonce: int, steps: int, root: bytes) -> bytes:
    """s_{n+1}."""
    return tagged_hash("seed", seed, address, nonce, steps, root)


# Section 12: the root of the weights


def compute_tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 over at least one leaf."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 2 ** ((len(leaves) - 1).bit_length() - 1)
    left, right = compute_tree_root(leaves[:split]), compute_tree_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def compute_root(weights: Weights) -> bytes:
    """root(W): a `simple:v` leaf for each chunk of 65,536 bytes, its key the u64 index."""
    data = encode_weights(weights)
    chunks = [data[start : start + 65_536] for start in range(0, len(data), 65_536)]
    # A chunk has whole float32s, so 0x01 and the chunk never have the 32 bytes of a root.
    return compute_tree_root(
        [
            b"\x08" + index.to_bytes(8, "big") + b"\x20" + hashlib.sha256(b"\x01" + chunk).digest()
            for index, chunk in enumerate(chunks)
        ]
    )


# Section 18: the golden walk


def compute_golden_walk() -> dict[str, object]:
    """What `made` holds for `given`: a walk of generation 0."""
    given = json.loads(GOLDEN.read_text())["given"]
    figures = read_figures(given["params"])
    train, test = load_train_and_test_set()
    head = Head(
        draw_first_weights(given["chain_id"], figures),
        compute_first_seed(given["chain_id"], bytes.fromhex(given["genesis_digest"])),
    )
    golden_walk = walk(train, figures, head, bytes.fromhex(given["address"]), given["nonce"])
    steps = list(itertools.islice(golden_walk, given["steps"]))
    last = steps[-1].weights
    return {
        "first_root": compute_root(head.weights).hex(),
        "probes": [step.probe.hex() for step in steps],
        "scores": [step.score for step in steps],
        "last_root": compute_root(last).hex(),
        "correct": count_correct(last, test, figures, range(len(test.images))),
    }


if __name__ == "__main__":
    print(json.dumps(compute_golden_walk(), indent=2))  # noqa: T201 - this is a command
