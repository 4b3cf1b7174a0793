"""Classification networks of timm and torchvision as backbones, with those libraries' own parameter names."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, fx, nn

from backbones.base import Backbone, C4Head, C4Trunk
from backbones.blocks import global_average
from backbones.errors import BackboneError, did_you_mean
from backbones.foreign.tracing import (
    MAP_NAMES,
    TRACING_ERRORS,
    TracedNet,
    error_in_one_line,
    forward_function,
    subgraph,
    take_over_parts,
    trace_feature_maps,
)
from backbones.norm import FrozenBatchNorm2d
from backbones.options import BackboneOptions
from backbones.preprocessing import IMAGENET_PREPROCESSING, Preprocessing

LIBRARIES = ("timm", "torchvision")
DEFAULT_CLASSES = 1000


class ForeignNet(Backbone):
    """A network of another library. c2..c5 are its last maps of strides 4, 8, 16, 32, those that it has; it must have c4.

    Built with `num_classes` its state dict is the library's own; without, it lacks what the maps do not need.
    """

    def __init__(self, net: nn.Module, traced: TracedNet, preprocessing: Preprocessing, num_classes: int | None) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        maps = {name: traced.by_stride[stride] for stride, name in MAP_NAMES.items() if stride in traced.by_stride}
        self.channels = {name: found.channels for name, found in maps.items()}
        self.strides = {name: found.stride for name, found in maps.items()}
        self.traced = traced
        wanted = {name: found.node for name, found in maps.items()}
        # A few networks go on to stride 64, which is part of a detector's head.
        needed = fx.GraphModule(net, subgraph(traced.graph, None, {**wanted, "last": traced.last.node}))
        self.classifier_keys, self.head_keys = _unused_keys(net, needed, num_classes or DEFAULT_CLASSES)
        self.num_classes = num_classes
        self._features = forward_function(fx.GraphModule(net, subgraph(traced.graph, None, wanted)))
        self._logits = forward_function(fx.GraphModule(net, traced.graph))
        take_over_parts(self, net if num_classes else needed)
        self.stage_parts = _stages(traced, self)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images (N, 3, H, W) -> {"c2": ..., "c5": ...}."""
        return self._features(self, images)

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax, by the library's own classifier: (N, 3, H, W) -> (N, num_classes)."""
        if not self.num_classes:
            raise BackboneError("this network has no classifier: build it with num_classes")
        return self._logits(self, images)

    def freeze_up_to(self, count: int) -> None:
        """Freeze all that the last map of stride 2**count needs, or of the next smaller stride that the network has."""
        stage = max((stride for stride in self.traced.by_stride if stride <= 2**count), default=0)
        if count and stage:
            self.freeze(_modules_up_to(self.traced, self.traced.by_stride[stage].node, self))

    def split_c4(self) -> tuple[C4Trunk, C4Head]:
        """All up to c4, and the rest of the maps with global average pooling; they share this network's modules."""
        trunk, head = ForeignTrunk(self), ForeignHead(self)
        if shared := trunk.state_dict().keys() & head.state_dict().keys():
            raise BackboneError(f"this network cannot be split at stride 16: both halves need '{min(shared)}'")
        return trunk, head


class ForeignTrunk(C4Trunk):
    """All up to c4: (N, 3, H, W) -> (N, channels, H/16, W/16), rounded as the network does it."""

    stride = 16

    def __init__(self, whole: ForeignNet) -> None:
        super().__init__()
        graph_module = fx.GraphModule(whole, subgraph(whole.traced.graph, None, whole.traced.c4.node))
        take_over_parts(self, graph_module)
        self._forward = forward_function(graph_module)
        self.stage_parts = whole.stage_parts
        self.channels = whole.traced.c4.channels
        self.preprocessing = whole.preprocessing
        self.classifier_keys = (*whole.head_keys, *whole.classifier_keys)
        self.freeze(_existing_modules(whole.frozen, self))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images -> the features that the RPN and all regions share."""
        return self._forward(self, images)


class ForeignHead(C4Head):
    """What follows c4 up to the last map, and global average pooling: (R, C, S, S) -> (R, channels). R may be 0."""

    def __init__(self, whole: ForeignNet) -> None:
        super().__init__()
        graph_module = fx.GraphModule(whole, subgraph(whole.traced.graph, whole.traced.c4.node, whole.traced.last.node))
        take_over_parts(self, graph_module)
        self._forward = forward_function(graph_module)
        self.stage_parts = whole.stage_parts
        self.channels = whole.traced.last.channels
        self.freeze(_existing_modules(whole.frozen, self))

    def forward(self, pooled_features: Tensor) -> Tensor:
        """Pooled features of R regions -> one vector per region."""
        return global_average(self.maps(pooled_features))

    def maps(self, pooled_features: Tensor) -> Tensor:
        """Pooled features of R regions -> the last map of each."""
        maps: Tensor = self._forward(self, pooled_features)
        return maps


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """The frozen form of timm's norms that contain an activation: the norm, then `modules_after` in a row."""

    def __init__(self, norm: nn.BatchNorm2d, modules_after: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__(norm.num_features, norm.eps)
        for name, module in modules_after:
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        x = super().forward(x)
        for module in self.children():
            x = module(x)
        return x


def build_foreign(name: str, options: BackboneOptions) -> ForeignNet:
    """The backbone "timm/NAME" or "torchvision/NAME", with that library's initialisation.

    Raises BackboneError: an unknown name, timm not installed, a network that cannot be traced or has no map of stride 16.
    """
    if options.stride_in_1x1:
        raise BackboneError(f"{name} is built as its library has it: stride_in_1x1 is for the ResNets of list_backbones()")
    library, _, own_name = name.partition("/")
    create = _create_timm if library == "timm" else _create_torchvision
    net, preprocessing = create(own_name, options.num_classes or DEFAULT_CLASSES)
    traced = trace_feature_maps(name, net)
    if options.norm == "frozen_bn":
        _freeze_norms(net)
    backbone = ForeignNet(net, traced, preprocessing, options.num_classes)
    backbone.freeze_up_to(options.freeze_stages)
    return backbone


def _create_timm(name: str, num_classes: int) -> tuple[nn.Module, Preprocessing]:
    try:
        import timm
    except ImportError:
        raise BackboneError(f"backbone 'timm/{name}' needs the package timm: pip install 'resdet[timm]'") from None
    if not timm.is_model(name.partition(".")[0]):
        raise BackboneError(_unknown_name("timm", name, timm.list_models()))
    try:
        net = timm.create_model(name, pretrained=False, num_classes=num_classes)
    except TRACING_ERRORS as error:
        raise BackboneError(f"timm cannot build '{name}': {error_in_one_line(error)}") from None
    config = timm.data.resolve_model_data_config(net)
    mean, std = ([round(255 * value, 6) for value in config[key]] for key in ("mean", "std"))
    return net, Preprocessing.from_dict({"channel_order": "rgb", "mean": mean, "std": std})


def _create_torchvision(name: str, num_classes: int) -> tuple[nn.Module, Preprocessing]:
    try:
        from torchvision import models
    except ImportError:
        raise BackboneError(f"backbone 'torchvision/{name}' needs the package torchvision: pip install torchvision") from None
    known = models.list_models(module=models)  # of classifiers only
    if name not in known:
        raise BackboneError(_unknown_name("torchvision", name, known))
    return models.get_model(name, weights=None, num_classes=num_classes), IMAGENET_PREPROCESSING


def _unknown_name(library: str, name: str, known: Iterable[str]) -> str:
    full_names = [f"{library}/{each}" for each in known]
    hint = did_you_mean(f"{library}/{name}", full_names, f"{library}.models has a list of its networks")
    return f"{library} has no classification network '{name}'{hint}"


def _unused_keys(net: nn.Module, needed: nn.Module, num_classes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keys of the state dict that the maps do not need: those of the last layer, and all others."""
    state, used = net.state_dict(), needed.state_dict().keys()
    unused = [key for key in state if key not in used]
    rows = [key for key in unused if state[key].shape[:1] == (num_classes,)]
    layer = rows[-1].rpartition(".")[0] if rows else None
    last = tuple(key for key in unused if key.rpartition(".")[0] == layer)
    return last, tuple(key for key in unused if key not in last)


def _stages(traced: TracedNet, owner: nn.Module) -> tuple[tuple[str, ...], ...]:
    """What each stride's last map needs and those of smaller strides do not."""
    stages: list[tuple[str, ...]] = []
    before: set[str] = set()
    for stride in sorted(traced.by_stride):
        names = _modules_up_to(traced, traced.by_stride[stride].node, owner)
        stages.append(tuple(name for name in names if name not in before))
        before.update(names)
    return tuple(stage for stage in stages if stage)


def _modules_up_to(traced: TracedNet, last: fx.Node, owner: nn.Module) -> list[str]:
    nodes = list(traced.graph.nodes)
    called = [str(node.target) for node in nodes[: nodes.index(last) + 1] if node.op == "call_module"]
    return [name for name in dict.fromkeys(called) if owner.get_submodule(name).state_dict()]


def _existing_modules(names: Iterable[str], owner: nn.Module) -> list[str]:
    known = {name for name, _ in owner.named_modules()}
    return [name for name in names if name in known]


def _freeze_norms(net: nn.Module) -> None:
    """Replace every BatchNorm2d by a frozen one of the same values, in place."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats:
            frozen = FrozenBatchNormAct2d(module, list(module.named_children()))
            frozen.load_state_dict(module.state_dict())
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, frozen)
