"""From a torch module to a graph of exact layers, by way of torch.fx.

`convert` takes what torchvision's ResNets are made of, and refuses anything else with the layer's
name and what to use in its place: nothing is ever computed in another way than the module says.
The module's values are not used: a chain draws its own first weights.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import fx, nn

from pol_abci.learning.exact.convolution import Conv2d
from pol_abci.learning.exact.graph import Add, Model, Node
from pol_abci.learning.exact.layers import BatchNorm, Flatten, Linear, ReLU
from pol_abci.learning.exact.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from pol_abci.rules.errors import GenesisError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pol_abci.learning.exact.layer import Layer
    from pol_abci.learning.exact.window import Pair
    from pol_abci.learning.exact.workspace import Shape

_EPSILON, _MOMENTUM = 1e-5, 0.1
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_)
_IMAGE_AXES = 3
_INSTEAD: dict[type[nn.Module], str] = {
    nn.Dropout: "leave it out: a step has to be the same on every machine",
    nn.Dropout2d: "leave it out: a step has to be the same on every machine",
    nn.GroupNorm: "use BatchNorm2d",
    nn.LayerNorm: "use BatchNorm2d",
    nn.BatchNorm1d: "use BatchNorm2d before the values are flattened",
    nn.GELU: "use ReLU",
    nn.SiLU: "use ReLU",
    nn.Sigmoid: "use ReLU",
    nn.Tanh: "use ReLU",
    nn.LeakyReLU: "use ReLU",
    nn.AdaptiveMaxPool2d: "use MaxPool2d",
    nn.Softmax: "leave it out: the loss takes logits",
    nn.LogSoftmax: "leave it out: the loss takes logits",
}
_KNOWN = (
    "Conv2d, BatchNorm2d, Linear, ReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d(1), Flatten, "
    "Identity, torch.flatten(x, 1), torch.relu and +"
)


class UnsupportedModule(GenesisError):
    """A module that has no exact form; the message names the layer and what to use instead."""


def convert(module: nn.Module, input_shape: Shape, *, is_drawn_by_graph: bool = False) -> Model:
    """The graph of exact layers that computes what a module does.

    Parameters
    ----------
    module
        On any device, "meta" included; its values do not matter.
    input_shape
        (H, W, C) of an image; the module itself takes [N, C, H, W].
    is_drawn_by_graph
        As `Model` has it.

    Returns
    -------
    Model
        Tensors have the names and the order of the module's `state_dict`, without
        `num_batches_tracked`.

    Raises
    ------
    UnsupportedModule
        For the first layer, or use of one, that has no exact form.
    GenesisError
        For a module whose first tensor is not that of its first layer.
    """
    try:
        traced = fx.symbolic_trace(module)
    except Exception as error:  # whatever the module's own code raises when it meets a tracer
        raise UnsupportedModule(
            f"{type(module).__name__} can't be read as a graph ({error}): its forward pass must "
            "call the same layers whatever the images are"
        ) from error
    conversion = _Conversion(traced, input_shape)
    for node in traced.graph.nodes:
        conversion.read(node)
    return Model(
        conversion.nodes, conversion.compute_order(module), is_drawn_by_graph=is_drawn_by_graph
    )


class _Conversion:
    """Nodes so far; and of each fx node the number of its value, shape and what it flattens."""

    def __init__(self, traced: fx.GraphModule, input_shape: Shape) -> None:
        self.nodes: list[Node | Add] = []
        self._modules = dict(traced.named_modules())
        self._values: dict[fx.Node, int] = {}
        self._shapes: list[Shape] = [input_shape]
        # By value: the shape of the images whose values a flat value holds in our order, H, W, C.
        # torch has them in the order C, H, W, so values of two such orders can't be added.
        self._flattened: list[Shape | None] = [None]
        self._used: set[str] = set()

    def read(self, node: fx.Node) -> None:
        """Take one node in, the nodes that it reads having been taken in."""
        match node.op:
            case "placeholder":
                self._read_placeholder(node)
            case "call_module":
                self._read_module(node)
            case "call_function" | "call_method":
                self._read_call(node)
            case "output":
                self._read_output(node)
            case _:
                _refuse(f"{node.target} is a tensor by itself", "put it into a layer")

    def compute_order(self, module: nn.Module) -> list[str]:
        """The names of the module's tensors, in its own order."""
        names = [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]
        layers = [node.layer for node in self.nodes if isinstance(node, Node)]
        owned = {spec.name for layer in layers for spec in layer.tensors}
        for name in names:
            if name not in owned:
                _refuse(f"{name} is never used", "remove its layer")
        return names

    def _read_placeholder(self, node: fx.Node) -> None:
        if self._values:
            _refuse(f"{node.target} is a second input", "take images alone")
        self._values[node] = 0

    def _read_output(self, node: fx.Node) -> None:
        (result,) = node.args
        if not isinstance(result, fx.Node) or self._values[result] != len(self.nodes):
            _refuse("the result is not the last value made", "return the logits, one tensor")
        if len(self._shapes[-1]) != 1:
            _refuse(f"the result has the shape {self._shapes[-1]}", "return logits [N, classes]")
        readers = {source for made in self.nodes for source in made.sources}
        for value in range(len(self.nodes)):
            if value not in readers:
                _refuse(f"value {value} of the graph is never used", "leave it out")

    def _read_module(self, node: fx.Node) -> None:
        name = str(node.target)
        module = self._modules[name]
        source = self._take_sources(node, name, 1)[0]
        if type(module) is nn.Identity:
            self._values[node] = source
            return
        if name in self._used and any(True for _ in module.parameters()):
            _refuse(f"{name} is used twice", "make a layer for each use: weights are not shared")
        self._used.add(name)
        kind = type(module)
        if kind not in _BUILDERS:
            _refuse(
                f"{name}: {kind.__name__} has no exact form", _INSTEAD.get(kind, f"use {_KNOWN}")
            )
        layer = _BUILDERS[kind](name, module, self._shapes[source], self._flattened[source])
        self._append(node, source, layer, name)

    def _read_call(self, node: fx.Node) -> None:
        target = node.target
        name = f"{getattr(target, '__name__', target)} ({node.name})"
        if target in _ADDITIONS or (node.op, target) in (
            ("call_method", "add"),
            ("call_method", "add_"),
        ):
            self._read_addition(node, name)
        elif target in _RELUS or (node.op, target) in (
            ("call_method", "relu"),
            ("call_method", "relu_"),
        ):
            source = self._take_sources(node, name, 1, ("inplace",))[0]
            self._append(node, source, ReLU(self._shapes[source]), name)
        elif target is torch.flatten or (node.op, target) == ("call_method", "flatten"):
            start = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)
            if start != 1 or len(node.args) > 2 or "end_dim" in node.kwargs:  # noqa: PLR2004 - tensor, start
                _refuse(f"{name} flattens other axes", "use torch.flatten(x, 1)")
            (source,) = self._take_sources(node, name, 1, ("start_dim",), extra=1)
            self._append(node, source, Flatten(self._shapes[source]), name)
        else:
            _refuse(f"{name} has no exact form", f"use {_KNOWN}")

    def _read_addition(self, node: fx.Node, name: str) -> None:
        left, right = self._take_sources(node, name, 2)
        if self._shapes[left] != self._shapes[right]:
            _refuse(
                f"{name} adds the shapes {self._shapes[left]} and {self._shapes[right]}",
                "make them equal",
            )
        if self._flattened[left] != self._flattened[right]:
            _refuse(f"{name} adds values that were flattened otherwise", "add before flattening")
        self.nodes.append(Add(left, right, self._shapes[left]))
        self._shapes.append(self._shapes[left])
        self._flattened.append(self._flattened[left])
        self._values[node] = len(self.nodes)

    def _take_sources(
        self, node: fx.Node, name: str, count: int, options: tuple[str, ...] = (), extra: int = 0
    ) -> list[int]:
        """The values that a node reads; refuse any other argument."""
        tensors, others = node.args[:count], node.args[count:]
        keywords = [key for key in node.kwargs if key not in options]
        if (
            len(tensors) != count
            or len(others) > extra
            or keywords
            or not all(isinstance(tensor, fx.Node) for tensor in tensors)
        ):
            _refuse(
                f"{name} is called with other arguments than {count} value(s) of the graph",
                "leave them out",
            )
        return [self._values[tensor] for tensor in tensors if isinstance(tensor, fx.Node)]

    def _append(self, node: fx.Node, source: int, layer: Layer, name: str) -> None:
        try:
            shape = layer.output_shape
        except ValueError as error:
            raise UnsupportedModule(
                f"{name}: {error}; use a smaller kernel, or bigger images"
            ) from error
        flattened = self._flattened[source]
        if isinstance(layer, Flatten):
            _check_axes(name, layer.input_shape, _IMAGE_AXES)
            height, width, channels = layer.input_shape
            flattened = layer.input_shape if height * width > 1 and channels > 1 else None
        elif not isinstance(layer, ReLU):
            flattened = None
        self.nodes.append(Node(layer, source))
        self._shapes.append(shape)
        self._flattened.append(flattened)
        self._values[node] = len(self.nodes)


def _build_convolution(name: str, module: nn.Conv2d, shape: Shape, _: Shape | None) -> Conv2d:
    if module.groups != 1:
        _refuse(f"{name} has {module.groups} groups", "use groups=1")
    if _pair(module.dilation) != (1, 1):
        _refuse(f"{name} is dilated", "use dilation=1, or a bigger kernel")
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        _refuse(f"{name} pads with {module.padding_mode}, {module.padding}", "give numbers, zeros")
    _check_axes(name, shape, _IMAGE_AXES, module.in_channels)
    return Conv2d(
        name,
        shape,
        module.out_channels,
        _pair(module.kernel_size),
        _pair(module.stride),
        _pair(module.padding),
        has_bias=module.bias is not None,
    )


def _build_norm(name: str, module: nn.BatchNorm2d, shape: Shape, _: Shape | None) -> BatchNorm:
    if not module.affine or not module.track_running_stats:
        _refuse(f"{name} has no weights or no running statistics", "leave both as they are")
    if (module.eps, module.momentum) != (_EPSILON, _MOMENTUM):
        _refuse(
            f"{name} has eps {module.eps}, momentum {module.momentum}",
            f"use eps={_EPSILON}, momentum={_MOMENTUM}, which are the defaults",
        )
    _check_axes(name, shape, _IMAGE_AXES, module.num_features)
    return BatchNorm(name, shape)


def _build_linear(name: str, module: nn.Linear, shape: Shape, flattened: Shape | None) -> Linear:
    _check_axes(name, shape, 1, module.in_features)
    has_bias = module.bias is not None
    return Linear(name, shape, module.out_features, has_bias=has_bias, flattened=flattened)


def _build_relu(name: str, module: nn.ReLU, shape: Shape, _: Shape | None) -> ReLU:
    del name, module
    return ReLU(shape)


def _build_flatten(name: str, module: nn.Flatten, shape: Shape, _: Shape | None) -> Flatten:
    if (module.start_dim, module.end_dim) != (1, -1):
        _refuse(f"{name} flattens other axes", "use Flatten() as it is")
    return Flatten(shape)


def _build_max_pool(name: str, module: nn.MaxPool2d, shape: Shape, _: Shape | None) -> MaxPool2d:
    if _pair(module.dilation) != (1, 1) or module.ceil_mode or module.return_indices:
        _refuse(f"{name} has dilation, ceil_mode or return_indices", "leave them out")
    _check_axes(name, shape, _IMAGE_AXES)
    kernel, padding = _pair(module.kernel_size), _pair(module.padding)
    if any(2 * pad > side for pad, side in zip(padding, kernel, strict=True)):
        _refuse(f"{name} has windows that see no image", "pad by half the kernel at most")
    return MaxPool2d(shape, kernel, _pair(module.stride), padding)


def _build_avg_pool(name: str, module: nn.AvgPool2d, shape: Shape, _: Shape | None) -> AvgPool2d:
    if module.ceil_mode or module.divisor_override is not None:
        _refuse(f"{name} has ceil_mode or divisor_override", "leave them out")
    if _pair(module.padding) != (0, 0):
        _refuse(f"{name} is padded", "use padding=0")
    _check_axes(name, shape, _IMAGE_AXES)
    return AvgPool2d(shape, _pair(module.kernel_size), _pair(module.stride))


def _build_global_pool(
    name: str, module: nn.AdaptiveAvgPool2d, shape: Shape, _: Shape | None
) -> GlobalAvgPool2d:
    if module.output_size not in (1, (1, 1)):
        _refuse(f"{name} has the output size {module.output_size}", "use AdaptiveAvgPool2d(1)")
    _check_axes(name, shape, _IMAGE_AXES)
    return GlobalAvgPool2d(shape)


_BUILDERS: dict[type[nn.Module], Callable[[str, Any, Shape, Shape | None], Layer]] = {
    nn.Conv2d: _build_convolution,
    nn.BatchNorm2d: _build_norm,
    nn.Linear: _build_linear,
    nn.ReLU: _build_relu,
    nn.Flatten: _build_flatten,
    nn.MaxPool2d: _build_max_pool,
    nn.AvgPool2d: _build_avg_pool,
    nn.AdaptiveAvgPool2d: _build_global_pool,
}


def _pair(value: Any) -> Pair:
    """Both numbers of an argument that torch takes as one or as two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _check_axes(name: str, shape: Shape, axes: int, channels: int | None = None) -> None:
    if len(shape) != axes:
        kind = "images" if axes == _IMAGE_AXES else "flat values"
        _refuse(f"{name} reads the shape {shape}", f"give it {kind}")
    if channels not in (None, shape[-1]):
        _refuse(f"{name} takes {channels} channels, its inputs have {shape[-1]}", "make them equal")


def _refuse(what: str, instead: str) -> NoReturn:
    raise UnsupportedModule(f"{what}; {instead}")
