"""Backbones and their C4 halves, built by name, with their weights: the top of this package, which uses all of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from backbones.base import Backbone, C4Head, C4Trunk, RegionHead, Trunk
from backbones.errors import MAX_NAME_LENGTH, BackboneError, did_you_mean, shorten
from backbones.foreign.net import LIBRARIES, build_foreign
from backbones.fpn import FpnTrunk
from backbones.modes import one_thread_after_fork, own_defaults
from backbones.options import BackboneOptions, NeckNorm, Norm, StemPool
from backbones.plugins import load_plugin, plugin_names
from backbones.registry import Builder, registered_builder, registered_names
from backbones.weights.classifier import load_classifier_weights, read_classifier_weights
from backbones.weights.files import load_state, without_prefix
from backbones.weights.zoo import classifier_file


def list_backbones() -> list[str]:
    """The registered names and those that installed packages offer, sorted. Imports none of these packages.

    Of a family only those depths that are registered by themselves; of timm and torchvision none.
    """
    return sorted(registered_names() | plugin_names())


def build_backbone(
    name: str,
    weights: str | Path | None = None,
    norm: Norm = "bn",
    num_classes: int | None = None,
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: StemPool = "pad1",
) -> Backbone:
    """The backbone of that name: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}.

    A name of `list_backbones()`, or of a family with a depth after it ("cifar_resnet38"); CIFAR nets have no c5. Or one of
    timm's or torchvision's classification nets: "timm/resnet50d", "torchvision/convnext_tiny".

    `weights` is a file: a classifier's checkpoint of ours, or a plain torchvision state dict (.pth, .safetensors); or a name
    of `list_weights()` as "torchvision/resnet50", which is downloaded once. Its classifier is used only where `num_classes`
    asks for one. None: He initialisation. `norm` "frozen_bn" makes BN a constant scale and offset; the first `freeze_stages`
    stages (0..5) are not trained. `stride_in_1x1` and `stem_pool` must be the weights' own: a checkpoint that records others is
    refused.
    Raises BackboneError (name, options) or CheckpointError (weights).
    """
    options = BackboneOptions(norm, num_classes, stride_in_1x1, freeze_stages, stem_pool)
    network = _build(name, options)
    _load_weights(network, weights, name, options)
    return network


def build_c4(
    name: str,
    weights: str | Path | None = None,
    norm: Norm = "bn",
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: StemPool = "pad1",
) -> tuple[C4Trunk, C4Head]:
    """The two halves of a C4 detector, with the arguments of `build_backbone`.

    trunk: (N, 3, H, W) -> (N, trunk.channels, H/16, W/16); head: (R, trunk.channels, S, S) -> (R, head.channels), where S
    is `head.pool_size`, or any size if that is None: 14 in the paper's ResNets.
    """
    options = BackboneOptions(norm, None, stride_in_1x1, freeze_stages, stem_pool)
    trunk, head = _build(name, options).split_c4()
    if weights is not None:
        found = read_classifier_weights(classifier_file(weights), name, options, trunk.preprocessing)
        load_c4(trunk, head, found.state, found.source)
        trunk.preprocessing = found.preprocessing
    return trunk, head


def build_fpn(
    name: str,
    weights: str | Path | None = None,
    norm: Norm = "bn",
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: StemPool = "pad1",
    channels: int = 256,
    neck_norm: NeckNorm = "none",
) -> FpnTrunk:
    """A backbone with a feature pyramid on it, with the arguments of `build_backbone`; the pyramid's own weights are random.

    `trunk.feature_maps`: normalised images (N, 3, H, W), sides multiples of 32 -> P2..P6, (N, channels, H/stride, W/stride)
    for the strides 4, 8, 16, 32, 64. Raises BackboneError also for a backbone without c2..c5 at strides 4 to 32.
    """
    options = BackboneOptions(norm, None, stride_in_1x1, freeze_stages, stem_pool)
    backbone = _build(name, options)
    trunk = FpnTrunk(backbone, channels, neck_norm)  # refuses a backbone before its weights are downloaded
    _load_weights(backbone, weights, name, options)
    trunk.preprocessing = backbone.preprocessing
    return trunk


def _build(name: str, options: BackboneOptions) -> Backbone:
    """The network with fresh weights. Raises BackboneError for an unknown name, or a builder that returns something else."""
    one_thread_after_fork()
    with own_defaults():
        network = _builder(name)(options)
    if not isinstance(network, Backbone):
        raise BackboneError(f"the builder of '{name}' must return a backbones.Backbone, not a {type(network).__name__}")
    return network


def _load_weights(network: Backbone, weights: str | Path | None, name: str, options: BackboneOptions) -> None:
    """Load a classifier's weights, if there are any, and take over their preprocessing. Raises CheckpointError."""
    if weights is not None:
        found = read_classifier_weights(classifier_file(weights), name, options, network.preprocessing)
        load_classifier_weights(network, found, with_classifier=options.num_classes is not None)


def _builder(name: str) -> Builder:
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH:
        raise BackboneError(f"a backbone's name is text of at most {MAX_NAME_LENGTH} characters, got {shorten(name)}")
    if found := registered_builder(name):
        return found
    if name.startswith(tuple(f"{library}/" for library in LIBRARIES)):
        return partial(build_foreign, name)
    if plugin := load_plugin(name):
        return plugin
    known = f"known are {', '.join(list_backbones())}, timm/NAME and torchvision/NAME"
    raise BackboneError(f"unknown backbone {shorten(name)}{did_you_mean(name, list_backbones(), known)}")


def load_classifier_into(
    trunk: Trunk,
    head: RegionHead,
    backbone_state: Mapping[str, Tensor],
    source: str = "the backbone's state dict",
) -> None:
    """Load a whole backbone's state dict into a detector's parts: C4's two halves, or the backbone below a pyramid.

    Raises CheckpointError, naming `source`, as `load_c4`.
    """
    if isinstance(trunk, FpnTrunk):
        backbone = trunk.backbone
        unused = {*backbone.classifier_keys, *backbone.head_keys}
        state = without_prefix(backbone_state, {*backbone.state_dict(), *unused}, source)
        load_state(backbone, {key: value for key, value in state.items() if key not in unused}, source)
    else:
        load_c4(trunk, head, backbone_state, source)


def load_c4(
    trunk: Trunk,
    head: nn.Module,
    backbone_state: Mapping[str, Tensor],
    source: str = "the backbone's state dict",
) -> None:
    """Load a whole backbone's state dict into its two halves. The classifier is left out: neither half has one.

    A key goes to the head if it begins with the name of one of the head's child modules, unless the trunk has that very key;
    all others go to the trunk. Raises CheckpointError, naming `source` and the first keys, on anything else missing,
    unexpected or of another shape.
    """
    both = nn.ModuleDict({"trunk": trunk, "head": head})
    head_names = tuple(f"{name}." for name, _ in head.named_children())
    trunk_keys = trunk.state_dict().keys()  # a container such as `features` may have parts in both halves
    backbone_state = without_prefix(backbone_state, {*trunk_keys, *head.state_dict(), *trunk.classifier_keys}, source)
    state = {
        f"head.{key}" if key.startswith(head_names) and key not in trunk_keys else f"trunk.{key}": value
        for key, value in backbone_state.items()
        if key not in trunk.classifier_keys
    }
    load_state(both, state, source)
