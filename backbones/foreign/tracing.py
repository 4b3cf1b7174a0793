"""Find the feature maps of another library's network: traced with torch.fx, only as deep as the maps need.

What is inside a block stays the library's own code, with its behaviour in training. A map is an (N, C, h, w) tensor; its
stride is the number of pixels by which the image has to grow for the map to grow by one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, fx, nn

from backbones.errors import BackboneError

MAP_NAMES = {4: "c2", 8: "c3", 16: "c4", 32: "c5"}
# Two images whose sides differ by different multiples of 64: rounding cancels, and height and width cannot be confused.
PROBE_SIZES_HW = ((256, 320), (512, 768))
# What tracing, building or running another library's module may raise.
TRACING_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class TracedMap:
    """A feature map: the value of one node of the traced graph."""

    node: fx.Node
    stride: int
    channels: int


@dataclass(frozen=True)
class TracedNet:
    """A traced network with its feature maps.

    `by_stride` has the last map of each stride; `c4` is that of stride 16, from which alone everything after it is computed;
    `last` is the last map of all.
    """

    graph: fx.Graph
    by_stride: Mapping[int, TracedMap]
    c4: TracedMap
    last: TracedMap

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedNet:
        """Copies of a network share it, since it is never changed."""
        return self


def trace_feature_maps(name: str, net: nn.Module) -> TracedNet:
    """Trace the network called `name` and find its maps. It is not changed: only shapes are computed, on a copy.

    The inside of a module is traced only where it hides a map. Raises BackboneError for a network that cannot be traced, runs
    on images of one size only, or has no map of stride 16 through which everything after it passes.
    """
    original, net = net, _on_meta_device(net).eval()
    opened: set[str] = set()
    while True:
        try:
            graph = _ShallowTracer(opened).trace(net)
            _require_no_constants(original, graph)
            maps, end = _all_maps(net, graph), _classifier_index(net, graph)
        except TRACING_ERRORS as error:
            raise BackboneError(
                f"{name} cannot be a backbone: it cannot be traced or run on images of any size: {error_in_one_line(error)}"
            ) from None
        hiding = _modules_to_open(net, graph, maps, end)
        if not hiding:
            return _choose_maps(name, graph, maps, end)
        opened |= hiding


def _on_meta_device(net: nn.Module) -> nn.Module:
    """A copy whose tensors are on the meta device, which computes shapes only."""
    empty: dict[int, Any] = {id(value): value.to("meta") for value in net.buffers()}
    empty |= {id(value): nn.Parameter(value.to("meta"), value.requires_grad) for value in net.parameters()}
    return copy.deepcopy(net, empty)


def _require_no_constants(net: nn.Module, graph: fx.Graph) -> None:
    """Raises AttributeError for a tensor that the net's code creates, which tracing has made an attribute of the copy."""
    known = {name for name, _ in [*net.named_parameters(), *net.named_buffers()]}
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) not in known:
            raise AttributeError(f"its forward makes a constant, {node.target}")


class _ShallowTracer(fx.Tracer):
    """Traces the inside of the network itself and of the modules in `opened`; all others stay one node."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened


class _ShapeRecorder(fx.Interpreter):
    """Records the shape of every tensor that is computed."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta.setdefault("shapes", []).append(tuple(value.shape))
        return value


@torch.no_grad()
def _all_maps(net: nn.Module, graph: fx.Graph) -> dict[fx.Node, TracedMap]:
    """Every feature map of the graph with its stride, found by running images of two sizes."""
    runner = _ShapeRecorder(fx.GraphModule(net, graph), graph=graph)
    for height, width in PROBE_SIZES_HW:
        runner.run(torch.empty(1, 3, height, width, device="meta"))
    growth = [large - small for small, large in zip(*PROBE_SIZES_HW, strict=True)]
    maps = {}
    for node in graph.nodes:
        small, large = node.meta.pop("shapes", ((), ()))
        if len(small) == 4 and small[:2] == large[:2] and small[2] < large[2] and small[3] < large[3]:
            down, across = growth[0] / (large[2] - small[2]), growth[1] / (large[3] - small[3])
            if down == across == int(down):
                maps[node] = TracedMap(node, int(down), small[1])
    return maps


def _classifier_index(net: nn.Module, graph: fx.Graph) -> int:
    """The node number of the last module with parameters: the classifier, or a module that holds the whole network."""
    indices = [index for index, node in enumerate(graph.nodes) if _has_parameters(net, node)]
    return indices[-1]


def _has_parameters(net: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and next(net.get_submodule(str(node.target)).parameters(), None) is not None


def _modules_to_open(net: nn.Module, graph: fx.Graph, maps: Mapping[fx.Node, TracedMap], end: int) -> set[str]:
    """Names of the modules that hide a map: one of the strides of MAP_NAMES lies between their input's and their output's."""
    found = set()
    for index, node in enumerate(graph.nodes):
        inputs = [maps[value].stride for value in node.all_input_nodes if value in maps]
        if not inputs or not _has_parameters(net, node) or not [*net.get_submodule(str(node.target)).children()]:
            continue
        output = maps[node].stride if node in maps else inf
        if index < end or max(inputs) == 1:
            found |= {str(node.target) for stride in MAP_NAMES if max(inputs) < stride < output}
    return found


def _choose_maps(name: str, graph: fx.Graph, maps: Mapping[fx.Node, TracedMap], end: int) -> TracedNet:
    """The maps before node number `end` by their strides. Raises BackboneError where none of stride 16 can be c4."""
    nodes = list(graph.nodes)
    ordered = [maps[node] for node in nodes[:end] if node in maps]
    candidates = [found for found in ordered if found.stride == 16 and _is_only_way(nodes[:end], ordered[-1].node, found.node)]
    if not candidates:
        strides = sorted({found.stride for found in ordered})
        raise BackboneError(
            f"{name} cannot be a backbone: it has no map (N, C, H/16, W/16) through which all passes; its strides are {strides}"
        )
    c4 = candidates[-1]
    before = [found for found in ordered if found.stride < 16 and nodes.index(found.node) < nodes.index(c4.node)]
    after = [found for found in ordered if nodes.index(found.node) > nodes.index(c4.node)]
    by_stride = {found.stride: found for found in (*before, c4, *after) if found.stride != 16 or found is c4}
    return TracedNet(graph, by_stride, c4, after[-1] if after else c4)


def _is_only_way(nodes: list[fx.Node], last: fx.Node, cut: fx.Node) -> bool:
    """Whether the nodes after `cut`, up to `last`, use no value from before it but parameters."""
    later = nodes[nodes.index(cut) + 1 : nodes.index(last) + 1]
    known = {cut, *later}
    return all(value in known or value.op == "get_attr" for node in later for value in node.all_input_nodes)


def subgraph(graph: fx.Graph, start: fx.Node | None, wanted: fx.Node | Mapping[str, fx.Node]) -> fx.Graph:
    """The part of the graph from the image, or from `start` as the new input, to the wanted values."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = part.placeholder("pooled_features")
    for node in graph.nodes:
        is_image = node.op == "placeholder" and start is not None
        if node.op != "output" and not is_image and node is not start and copies.keys() >= set(node.all_input_nodes):
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output({name: copies[node] for name, node in wanted.items()} if isinstance(wanted, Mapping) else copies[wanted])
    part.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    return part


def forward_function(graph_module: fx.GraphModule) -> Callable[..., Any]:
    """The generated `forward` of a traced module, to be called with any module that has the same parts by the same names."""
    return type(graph_module).forward


def take_over_parts(owner: nn.Module, source: nn.Module) -> None:
    """Give `owner` the child modules, parameters and buffers of `source`, by the same names."""
    for name, module in source.named_children():
        owner.add_module(name, module)
    for name, parameter in source.named_parameters(recurse=False):
        owner.register_parameter(name, parameter)
    for name, buffer in source.named_buffers(recurse=False):
        owner.register_buffer(name, buffer)


def error_in_one_line(error: Exception) -> str:
    """The message of an error, without torch.fx's account of where it was."""
    return " ".join(str(error).partition("While executing")[0].split())[:200] or type(error).__name__
