"""Finding the feature maps of a network that one has not written: traced with torch.fx, only as deep as its maps lie.

What is inside a block stays the library's own code, training mode and all. A map is an (N, C, h, w) tensor; its stride is the
number of pixels by which the image has to grow for the map to grow by one.
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

MAPS = {4: "c2", 8: "c3", 16: "c4", 32: "c5"}
# Two images whose sides differ by different multiples of 64, so that rounding cancels and height cannot pass for width.
PROBES = ((256, 320), (512, 768))
# What tracing, building or running another project's module may raise.
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Map:
    """A value of the traced net that is a feature map."""

    node: fx.Node
    stride: int
    channels: int


@dataclass(frozen=True)
class Plan:
    """A traced net, its last map of each stride, the one of stride 16 through which all else passes, and the very last."""

    graph: fx.Graph
    by_stride: Mapping[int, Map]
    cut: Map
    last: Map

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        """Copies of a network share it: it is never changed."""
        return self


def explore(name: str, net: nn.Module) -> Plan:
    """The maps of the net called `name`, which stays as it is: shapes are computed, not values.

    Modules are opened for as long as they hide maps. Raises BackboneError for a net that cannot be traced, runs on images of
    one size alone, or has no map of stride 16 through which all passes.
    """
    own, net = net, _without_values(net).eval()
    opened: set[str] = set()
    while True:
        try:
            graph = _Tracer(opened).trace(net)
            _require_parts(own, graph)
            maps, end = _find_maps(net, graph), _classifier_index(net, graph)
        except FAILURES as error:
            raise BackboneError(
                f"{name} cannot be a backbone: it cannot be traced or run on images of any size: {one_line(error)}"
            ) from None
        hiding = _modules_to_open(net, graph, maps, end)
        if not hiding:
            return _plan(name, graph, maps, end)
        opened |= hiding


def _without_values(net: nn.Module) -> nn.Module:
    """A copy whose tensors are on the meta device, which computes shapes alone."""
    empty: dict[int, Any] = {id(value): value.to("meta") for value in net.buffers()}
    empty |= {id(value): nn.Parameter(value.to("meta"), value.requires_grad) for value in net.parameters()}
    return copy.deepcopy(net, empty)


def _require_parts(net: nn.Module, graph: fx.Graph) -> None:
    """Raises AttributeError for a tensor that the net's code makes anew, which tracing has taken for a part of it."""
    known = {name for name, _ in [*net.named_parameters(), *net.named_buffers()]}
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) not in known:
            raise AttributeError(f"its forward makes a constant, {node.target}")


class _Tracer(fx.Tracer):
    """Looks into the net itself and the modules named, into no others."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened


class _Shapes(fx.Interpreter):
    """Notes the shape of every tensor that comes by."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta.setdefault("shapes", []).append(tuple(value.shape))
        return value


@torch.no_grad()
def _find_maps(net: nn.Module, graph: fx.Graph) -> dict[fx.Node, Map]:
    runner = _Shapes(fx.GraphModule(net, graph), graph=graph)
    for height, width in PROBES:
        runner.run(torch.empty(1, 3, height, width, device="meta"))
    growth = [large - small for small, large in zip(*PROBES, strict=True)]
    maps = {}
    for node in graph.nodes:
        small, large = node.meta.pop("shapes", ((), ()))
        if len(small) == 4 and small[:2] == large[:2] and small[2] < large[2] and small[3] < large[3]:
            down, across = growth[0] / (large[2] - small[2]), growth[1] / (large[3] - small[3])
            if down == across == int(down):
                maps[node] = Map(node, int(down), small[1])
    return maps


def _classifier_index(net: nn.Module, graph: fx.Graph) -> int:
    """The place of the last module with parameters, which is the classifier, or holds all of the net."""
    places = [index for index, node in enumerate(graph.nodes) if _has_parameters(net, node)]
    return places[-1]


def _has_parameters(net: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and next(net.get_submodule(str(node.target)).parameters(), None) is not None


def _modules_to_open(net: nn.Module, graph: fx.Graph, maps: Mapping[fx.Node, Map], end: int) -> set[str]:
    """Modules between whose input and output a stride lies that is asked for."""
    found = set()
    for index, node in enumerate(graph.nodes):
        inputs = [maps[value].stride for value in node.all_input_nodes if value in maps]
        if not inputs or not _has_parameters(net, node) or not [*net.get_submodule(str(node.target)).children()]:
            continue
        output = maps[node].stride if node in maps else inf
        if index < end or max(inputs) == 1:
            found |= {str(node.target) for stride in MAPS if max(inputs) < stride < output}
    return found


def _plan(name: str, graph: fx.Graph, maps: Mapping[fx.Node, Map], end: int) -> Plan:
    nodes = list(graph.nodes)
    ordered = [maps[node] for node in nodes[:end] if node in maps]
    cuts = [found for found in ordered if found.stride == 16 and _all_passes(nodes[:end], ordered[-1].node, found.node)]
    if not cuts:
        strides = sorted({found.stride for found in ordered})
        raise BackboneError(
            f"{name} cannot be a backbone: it has no map (N, C, H/16, W/16) through which all passes; its strides are {strides}"
        )
    cut = cuts[-1]
    before = [found for found in ordered if found.stride < 16 and nodes.index(found.node) < nodes.index(cut.node)]
    after = [found for found in ordered if nodes.index(found.node) > nodes.index(cut.node)]
    by_stride = {found.stride: found for found in (*before, cut, *after) if found.stride != 16 or found is cut}
    return Plan(graph, by_stride, cut, after[-1] if after else cut)


def _all_passes(nodes: list[fx.Node], last: fx.Node, cut: fx.Node) -> bool:
    """Whether what follows `cut`, up to `last`, takes nothing else from before it but parameters."""
    place = nodes.index(cut)
    later = nodes[place + 1 : nodes.index(last) + 1]
    known = {cut, *later}
    return all(value in known or value.op == "get_attr" for node in later for value in node.all_input_nodes)


def part_of(graph: fx.Graph, start: fx.Node | None, wanted: fx.Node | Mapping[str, fx.Node]) -> fx.Graph:
    """The graph from the image, or from the value `start` in its place, to the values wanted."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = part.placeholder("pooled")
    for node in graph.nodes:
        is_image = node.op == "placeholder" and start is not None
        if node.op != "output" and not is_image and node is not start and copies.keys() >= set(node.all_input_nodes):
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output({name: copies[node] for name, node in wanted.items()} if isinstance(wanted, Mapping) else copies[wanted])
    part.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    return part


def code_of(run: fx.GraphModule) -> Callable[..., Any]:
    """The function of a traced module, to be called with any module that has the same parts under the same names."""
    return type(run).forward


def adopt(owner: nn.Module, source: nn.Module) -> None:
    """Give `owner` the parts of `source`, under their names."""
    for name, module in source.named_children():
        owner.add_module(name, module)
    for name, parameter in source.named_parameters(recurse=False):
        owner.register_parameter(name, parameter)
    for name, buffer in source.named_buffers(recurse=False):
        owner.register_buffer(name, buffer)


def one_line(error: Exception) -> str:
    """What went wrong, without the place in the trace."""
    return " ".join(str(error).partition("While executing")[0].split())[:200] or type(error).__name__
