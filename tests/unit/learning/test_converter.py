"""Torch modules become graphs: same names, same function, or a refusal that says what to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from pol_abci.learning.exact.bound_model import BoundModel
from pol_abci.learning.exact.converter import UnsupportedModule, convert
from pol_abci.learning.exact.torch_layout import to_torch
from pol_abci.learning.models import build_model
from pol_abci.rules.errors import GenesisError
from pol_abci.rules.params import ArithmeticParams
from tests.unit.learning.residual_module import SmallResidual

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pol_abci.learning.exact.graph import Model

SHAPE = (6, 6, 2)


class Net(nn.Module):
    """A first convolution, then what a test gives."""

    def __init__(self, body: nn.Module | Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, channels, 3, padding=1)
        self.body = body
        self.last = nn.Linear(channels * 36, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.flatten(self.body(self.first(images)), 1))
        return logits


def fill(model: Model) -> Tensor:
    """Weights of both signs, variances above zero."""
    generator = torch.Generator().manual_seed(1)
    flat = torch.rand(model.size, generator=generator) * 0.5 + 0.1
    flat[::3] *= -1
    for name, view in model.split(flat).items():
        if name.endswith("running_var"):
            view.abs_()
    return flat


def compare(module: nn.Module, shape: tuple[int, int, int]) -> None:
    """The graph's logits, 20 bits, beside the module's own: equal up to float32's rounding."""
    model = convert(module, shape)
    flat = fill(model)
    images = torch.rand((4, *shape), generator=torch.Generator().manual_seed(2))
    logits, _ = model.evaluate(flat, images.clone(), 20)
    module.load_state_dict(to_torch(model, flat, steps=1), strict=True)
    with torch.inference_mode():
        plain = module.eval()(images.permute(0, 3, 1, 2).contiguous())
    torch.testing.assert_close(plain, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))


class FlattenedTwice(nn.Module):
    """Adds two values that were flattened alike, and reads images through pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.pool = nn.AvgPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(36, 5, bias=False)
        self.fc2 = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        values = self.pool(self.first(images))
        flat = self.flatten(values) + torch.relu(values).flatten(1)
        logits: Tensor = self.fc2(self.fc1(flat).relu())
        return logits


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "residual": (lambda: SmallResidual(3), (9, 8, 2)),
    "flattened twice": (FlattenedTwice, SHAPE),
    "sequential": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, (1, 2), stride=2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
            nn.Linear(3, 4),
        ),
        SHAPE,
    ),
    "linear layers alone": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.ReLU(), nn.Linear(5, 2)),
        SHAPE,
    ),
    "added to itself before the norm": (
        lambda: Net(nn.Sequential(nn.Identity(), AddToItself(), nn.BatchNorm2d(4))),
        SHAPE,
    ),
    "activation before the norm": (
        lambda: Net(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU())),
        SHAPE,
    ),
}  # fmt: skip


class AddToItself(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values + values


@pytest.mark.parametrize("case", MODULES)
def test_a_module_computes_the_same_as_a_graph(case: str) -> None:
    make, shape = MODULES[case]
    compare(make(), shape)


@pytest.mark.parametrize(("name", "count"), [("resnet18", 4_234_826), ("resnet34", 10_148_682)])
def test_torchvisions_resnets_are_graphs_without_taps_that_see_nothing(
    name: str, count: int
) -> None:
    models = pytest.importorskip("torchvision.models")
    model = build_model(name, (), (32, 32, 3), 10)
    with torch.device("meta"):
        state = models.get_model(name, weights=None, num_classes=10).state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    assert [spec.name for spec in model.tensors] == names
    assert model.weight_count == count
    assert model.first_layer_size == 7 * 7 * 3 * 64


def test_torchvisions_resnet18_computes_the_same_as_its_graph() -> None:
    models = pytest.importorskip("torchvision.models")
    module = models.resnet18(num_classes=10)
    model = build_model("resnet18", (), (32, 32, 3), 10)
    flat = model.initial_weights(bytes(32))
    images = torch.rand((4, 32, 32, 3), generator=torch.Generator().manual_seed(2))
    logits, _ = model.evaluate(flat, images.clone(), 20)
    module.load_state_dict(to_torch(model, flat, steps=1), strict=True)
    with torch.inference_mode():
        plain = module.eval()(images.permute(0, 3, 1, 2).contiguous())
    torch.testing.assert_close(plain, logits, rtol=1e-2, atol=1e-3 * float(logits.abs().max()))


@pytest.mark.parametrize("case", ["residual", "flattened twice", "added to itself before the norm",
                                  "activation before the norm"])  # fmt: skip
def test_gradients_are_those_of_autograd(case: str) -> None:
    """At 20 bits a step moves the weights as float32's does, up to a few thousandths."""
    make, shape = MODULES[case]
    module = make()
    model = convert(module, shape)
    flat, rate = fill(model), 2.0**-10
    random = np.random.default_rng(4)
    images = torch.from_numpy(random.random((6, *shape), dtype=np.float32))
    labels = torch.from_numpy(random.integers(0, 2, 6))
    arithmetic = ArithmeticParams(version=1, forward_bits=20, backward_bits=20)
    bound = BoundModel(model, 6, rate, arithmetic, torch.device("cpu"))
    bound.load(flat)
    bound.update(images, labels)
    module.load_state_dict(to_torch(model, flat, steps=1), strict=True)
    loss = nn.functional.cross_entropy(module.train()(images.permute(0, 3, 1, 2)), labels)
    torch.autograd.backward(loss)
    moved = to_torch(model, bound.previous - bound.weights, steps=1)
    for name, parameter in module.named_parameters():
        expected = parameter.grad
        assert expected is not None
        worst = 5e-3 * float(expected.abs().max()) + 1e-4
        torch.testing.assert_close(moved[name] / rate, expected, rtol=0, atol=worst, msg=name)


class TwoInputs(nn.Module):
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return images + others


class DependsOnData(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class SharedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.conv(self.conv(values))
        return result


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, values: Tensor) -> Tensor:
        return values


class Multiplied(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * 2


class Scaled(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return torch.add(values, values, alpha=2)


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4, 6, 6))

    def forward(self, values: Tensor) -> Tensor:
        return values + self.shift


class MixedOrders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.fc = nn.Linear(144, 144)

    def forward(self, images: Tensor) -> Tensor:
        flat = self.first(images).flatten(1)
        logits: Tensor = flat + self.fc(flat)
        return logits


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (lambda: Net(nn.Dropout(0.1)), "body: Dropout .* leave it out"),
    "groups": (lambda: Net(nn.Conv2d(4, 4, 1, groups=2)), "body has 2 groups; use groups=1"),
    "dilation": (lambda: Net(nn.Conv2d(4, 4, 3, dilation=2)), "body is dilated; use dilation=1"),
    "reflection": (
        lambda: Net(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), "body pads with reflect"
    ),
    "padding by name": (lambda: Net(nn.Conv2d(4, 4, 3, padding="same")), "give numbers"),
    "GELU": (lambda: Net(nn.GELU()), "body: GELU has no exact form; use ReLU"),
    "transposed": (lambda: Net(nn.ConvTranspose2d(4, 4, 1)), "ConvTranspose2d .* use Conv2d"),
    "other eps": (lambda: Net(nn.BatchNorm2d(4, eps=1e-3)), "body has eps 0.001"),
    "no affine": (lambda: Net(nn.BatchNorm2d(4, affine=False)), "body has no weights"),
    "adaptive to 2": (lambda: Net(nn.AdaptiveAvgPool2d(2)), "AdaptiveAvgPool2d\\(1\\)"),
    "padded average": (lambda: Net(nn.AvgPool2d(3, 1, 1)), "body is padded"),
    "ceil mode": (lambda: Net(nn.MaxPool2d(2, ceil_mode=True)), "body has .*ceil_mode"),
    "two inputs": (TwoInputs, "others is a second input"),
    "depends on data": (DependsOnData, "DependsOnData can't be read as a graph"),
    "shared weights": (lambda: Net(SharedLayer()), "body.conv is used twice"),
    "unused weights": (lambda: Net(Unused()), "body.conv.weight is never used"),
    "multiplication": (lambda: Net(Multiplied()), "mul .* has no exact form"),
    "scaled addition": (lambda: Net(Scaled()), "called with other arguments"),
    "a parameter": (lambda: Net(Constant()), "body.shift is a tensor by itself"),
    "two orders of flat values": (MixedOrders, "flattened otherwise; add before flattening"),
    "images as logits": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3)), "return logits"),
    "wrong channels": (lambda: Net(nn.Conv2d(3, 4, 1)), "body takes 3 channels"),
    "too big a window": (lambda: Net(nn.Conv2d(4, 4, 9)), "body: .* use a smaller kernel"),
    "linear on images": (lambda: Net(nn.Linear(4, 4)), "body reads the shape .* give it flat"),
    "flattened again": (
        lambda: nn.Sequential(nn.Flatten(), nn.Flatten(), nn.Linear(72, 3)), "1 reads the shape"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_exact_form_is_refused_with_the_layer_and_what_to_use(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(UnsupportedModule, match=words):
        convert(make(), SHAPE)


class FirstLast(nn.Module):
    """The head is defined before the layer that reads the images."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4 * 36, 3)
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(images).flatten(1))
        return logits


class ImagesAgain(nn.Module):
    """Images go around the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.fc = nn.Linear(72, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc((self.conv(images) + images).flatten(1))
        return logits


@pytest.mark.parametrize("module", [FirstLast(), ImagesAgain(), nn.Sequential(
    nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))])  # fmt: skip
def test_the_first_tensor_must_be_that_of_the_layer_that_all_else_depends_on(
    module: nn.Module,
) -> None:
    with pytest.raises(GenesisError, match="what a probe covers"):
        convert(module, SHAPE)


OWN = "module:tests.unit.learning.residual_module:SmallResidual"
HERE = f"module:{__name__}"


def make_two_outputs(num_classes: int) -> nn.Module:
    del num_classes
    return SmallResidual(2)


def make_without_weights(num_classes: int) -> nn.Module:
    del num_classes
    return nn.Sequential(nn.ReLU(), nn.Flatten())


def test_a_module_of_ones_own_is_an_architecture() -> None:
    model = build_model(OWN, (), (9, 8, 2), 3)
    assert [spec.name for spec in model.tensors][:3] == ["conv1.weight", "conv1.bias", "bn1.weight"]
    assert model.classes == 3


def test_first_weights_of_a_module_of_ones_own_depend_on_its_graph() -> None:
    seed = bytes(32)
    model = build_model(OWN, (), (9, 8, 2), 3)
    same, other = SmallResidual(3), SmallResidual(3)
    other.maxpool = nn.MaxPool2d(3, 2, 0)  # shapes and names stay as they are
    drawn = [
        convert(module, (9, 8, 2), is_drawn_by_graph=True).initial_weights(seed)
        for module in (same, other)
    ]
    assert torch.equal(model.initial_weights(seed), drawn[0])
    assert drawn[0].shape == drawn[1].shape
    assert not torch.equal(*drawn)


@pytest.mark.parametrize(
    ("architecture", "channels", "words"),
    [
        ("module:nowhere.to_be_found:Net", (), "install the code of this chain"),
        ("module:tests.unit.learning.residual_module:Nothing", (), "is not here"),
        ("module:", (), "is not here"),
        (OWN, (8,), "takes no channels"),
        ("resnet18", (8,), "takes no channels"),
        ("module:builtins:dict", (), "makes no torch.nn.Module"),
        ("module:torch.nn:Flatten", (), "cannot be made by num_classes=3"),
        (f"{HERE}:make_two_outputs", (), "has 2 outputs for 3 classes"),
        (f"{HERE}:make_without_weights", (), "no weights that could learn"),
    ],
)
def test_an_architecture_that_is_not_here_is_refused_in_words(
    architecture: str, channels: tuple[int, ...], words: str
) -> None:
    with pytest.raises(GenesisError, match=words):
        build_model(architecture, channels, (9, 8, 2), 3)
