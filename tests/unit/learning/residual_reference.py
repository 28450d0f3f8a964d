"""One step and the evaluation of `SmallResidual`, from the protocol's definition alone."""

from __future__ import annotations

import numpy as np

from tests.unit.learning import integer_reference as reference
from tests.unit.learning.integer_reference import Floats, ReferenceConv, ReferenceNorm

ZERO = np.float32(0)


class _Pass:
    """One forward and backward pass over a dictionary of weights."""

    def __init__(self, weights: dict[str, Floats], bits: tuple[int, int]) -> None:
        self.weights = weights
        self.forward_bits, self.backward_bits = bits
        self.gradients: dict[str, Floats] = {}
        self.statistics: dict[str, Floats] = {}
        self.norms: dict[str, ReferenceNorm] = {}
        self.inputs: dict[str, Floats] = {}

    def convolve(self, name: str, conv: ReferenceConv, values: Floats) -> Floats:
        self.inputs[name] = values
        return conv.forward(values, self.weights[f"{name}.weight"], self.forward_bits)

    def convolve_back(self, name: str, conv: ReferenceConv, gradient: Floats) -> Floats:
        self.gradients[f"{name}.weight"], to_inputs = conv.backward(
            self.inputs[name], self.weights[f"{name}.weight"], gradient, self.backward_bits
        )
        return to_inputs

    def normalise(self, name: str, values: Floats) -> Floats:
        norm = ReferenceNorm(self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])
        out = norm.forward(values.reshape(-1, values.shape[3])).reshape(values.shape)
        self.norms[name] = norm
        mean, variance = f"{name}.running_mean", f"{name}.running_var"
        self.statistics[mean], self.statistics[variance] = norm.update_running(
            self.weights[mean], self.weights[variance]
        )
        return out

    def normalise_back(self, name: str, gradient: Floats) -> Floats:
        rows, of_gamma, of_beta = self.norms[name].backward(gradient.reshape(-1, gradient.shape[3]))
        self.gradients[f"{name}.weight"], self.gradients[f"{name}.bias"] = of_gamma, of_beta
        return rows.reshape(gradient.shape)


class ReferenceResidual:
    """`SmallResidual` on images [N, 9, 8, 2]."""

    def __init__(self) -> None:
        self.stem = ReferenceConv(9, 8, (5, 3), 1, (2, 1))
        self.pool = ReferenceConv(9, 8, 3, 2, 1)  # 5 by 4
        self.same = ReferenceConv(5, 4, 3, 1, 1)
        self.down = ReferenceConv(5, 4, 3, 2, 1)  # 3 by 2
        self.short = ReferenceConv(5, 4, 1, 2, 0)
        self.last = ReferenceConv(3, 2, 3, 1, 1)

    def update(
        self,
        weights: dict[str, Floats],
        images: Floats,
        labels: list[int],
        rate: float,
        bits: tuple[int, int],
    ) -> dict[str, Floats]:
        run = _Pass(weights, bits)
        y = run.convolve("conv1", self.stem, images) + weights["conv1.bias"]
        stem = np.maximum(run.normalise("bn1", y), ZERO)
        pooled, winners = reference.take_maximum(self.pool, stem)

        y = run.normalise("block1.bn1", run.convolve("block1.conv1", self.same, pooled))
        inner1 = np.maximum(y, ZERO)
        y = run.normalise("block1.bn2", run.convolve("block1.conv2", self.same, inner1))
        first = np.maximum(y + pooled, ZERO)

        y = run.normalise("block2.bn1", run.convolve("block2.conv1", self.down, first))
        inner2 = np.maximum(y, ZERO)
        y = run.normalise("block2.bn2", run.convolve("block2.conv2", self.last, inner2))
        side = run.normalise(
            "block2.shortcut.1", run.convolve("block2.shortcut.0", self.short, first)
        )
        second = np.maximum(y + side, ZERO)

        pixels = second.reshape(len(images), 6, 4).transpose(1, 0, 2)
        flat = reference.sum_tree(pixels) / np.float32(6)
        logits = reference.contract(flat, weights["fc.weight"], bits[0]) + weights["fc.bias"]

        g = reference.compute_softmax_gradient(logits, labels)
        run.gradients["fc.weight"] = reference.contract(np.ascontiguousarray(flat.T), g, bits[1])
        run.gradients["fc.bias"] = reference.sum_tree(
            reference.to_floats(*reference.quantise(g, bits[1]))
        )
        g = reference.contract(g, np.ascontiguousarray(weights["fc.weight"].T), bits[1])
        g = np.broadcast_to((g / np.float32(6))[:, None, None, :], second.shape)

        g = np.where(second > 0, g, ZERO)
        to_side = run.convolve_back(
            "block2.shortcut.0", self.short, run.normalise_back("block2.shortcut.1", g)
        )
        h = run.convolve_back("block2.conv2", self.last, run.normalise_back("block2.bn2", g))
        h = run.normalise_back("block2.bn1", np.where(inner2 > 0, h, ZERO))
        g = run.convolve_back("block2.conv1", self.down, h) + to_side

        g = np.where(first > 0, g, ZERO)
        h = run.convolve_back("block1.conv2", self.same, run.normalise_back("block1.bn2", g))
        h = run.normalise_back("block1.bn1", np.where(inner1 > 0, h, ZERO))
        g = run.convolve_back("block1.conv1", self.same, h) + g

        g = reference.give_to_maximum(self.pool, winners, g, stem.shape)
        g = run.normalise_back("bn1", np.where(stem > 0, g, ZERO))
        integers, unit = reference.quantise(g, bits[1])
        run.gradients["conv1.bias"] = reference.sum_tree(
            reference.to_floats(integers, unit).reshape(-1, 3)
        )
        run.convolve_back("conv1", self.stem, g)
        updated = {
            name: weights[name] - np.float32(rate) * gradient
            for name, gradient in run.gradients.items()
        }
        return {name: (run.statistics | updated)[name] for name in weights}

    def evaluate(self, weights: dict[str, Floats], images: Floats, bits: int) -> Floats:
        """Logits, each image by itself."""

        def normalise(name: str, y: Floats) -> Floats:
            variance = weights[f"{name}.running_var"] + reference.EPSILON
            inverse = np.float32(1) / np.sqrt(variance)
            d = y - weights[f"{name}.running_mean"]
            return d * (inverse * weights[f"{name}.weight"]) + weights[f"{name}.bias"]

        def convolve(name: str, conv: ReferenceConv, values: Floats) -> Floats:
            return conv.forward(values, weights[f"{name}.weight"], bits)

        rows = []
        for index in range(len(images)):
            y = convolve("conv1", self.stem, images[index : index + 1]) + weights["conv1.bias"]
            x = reference.take_maximum(self.pool, np.maximum(normalise("bn1", y), ZERO))[0]
            y = np.maximum(normalise("block1.bn1", convolve("block1.conv1", self.same, x)), ZERO)
            y = normalise("block1.bn2", convolve("block1.conv2", self.same, y))
            x = np.maximum(y + x, ZERO)
            y = np.maximum(normalise("block2.bn1", convolve("block2.conv1", self.down, x)), ZERO)
            y = normalise("block2.bn2", convolve("block2.conv2", self.last, y))
            side = convolve("block2.shortcut.0", self.short, x)
            x = np.maximum(y + normalise("block2.shortcut.1", side), ZERO)
            flat = reference.sum_tree(x.reshape(6, 1, 4)) / np.float32(6)
            rows.append(reference.contract(flat, weights["fc.weight"], bits) + weights["fc.bias"])
        return np.concatenate(rows)
