"""Convert classification networks of other projects: torchvision's and timm's names, the authors' Caffe models, detectron2's.

The preprocessing, the place of the strides and the stem's pool are not in such a file: they follow from its format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backbones.errors import BackboneError, CheckpointError, shorten
from backbones.options import BackboneOptions, StemPool
from backbones.preprocessing import IMAGENET_PREPROCESSING, Preprocessing
from backbones.registry import registered_builder
from backbones.resnet import BLOCKS, BUILDERS, HALF, Bottleneck
from backbones.weights.files import fitting_state, wrapper_prefixes
from backbones.weights.renaming import ConversionEntry, RenameRule, State, rename, unwrap_state_dict

# Of the authors' models as detectron2 and Detectron use them: BGR in 0..255, the mean colour subtracted.
MSRA_PREPROCESSING = Preprocessing("bgr", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
# Of their other PyTorch ports (resnet50-caffe.pth, resnet101_caffe.pth), and the detectors trained from those.
CAFFE_PREPROCESSING = Preprocessing("bgr", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
# Of nets trained with Caffe's own tools, whose mean colour of ImageNet is rounded.
BVLC_PREPROCESSING = Preprocessing("bgr", (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
NORM_PARTS = "(weight|bias|running_mean|running_var|num_batches_tracked)"
STEP_COUNTS = RenameRule(r".*\.num_batches_tracked", note="a step count, which a frozen norm does not have")
EPS = 1e-5  # of every norm here


@dataclass(frozen=True)
class ConvertedBackbone:
    """A classification network with this project's names: a backbone `name`, with its classifier if the source has one."""

    format: str
    name: str
    state: State
    preprocessing: Preprocessing
    stride_in_1x1: bool
    stem_pool: StemPool
    entries: list[ConversionEntry]


@dataclass(frozen=True)
class _BackboneFormat:
    summary: str
    key_patterns: tuple[str, ...]  # a file with a key that matches one of them has this format
    convert: Callable[[State, Mapping[str, Any], str], ConvertedBackbone]


def backbone_format(keys: Iterable[str]) -> str | None:
    """The name of the format that the keys of a state dict have, or None."""
    names = list(keys)
    for prefix in wrapper_prefixes(names):
        for name, found in BACKBONE_FORMATS.items():
            if any(re.fullmatch(pattern, key[len(prefix) :]) for pattern in found.key_patterns for key in names):
                return name
    return None


def convert_backbone(contents: Mapping[str, Any], source: str, format_name: str | None = None) -> ConvertedBackbone:
    """The network in what `load_checkpoint` read from `source`. Its keys tell the format, unless it is given.

    Raises CheckpointError for an unknown format, a tensor too many or missing, a wrong shape, NaN or infinity.
    """
    state, extras = unwrap_state_dict(contents, source)
    format_name = format_name or backbone_format(state)
    if format_name not in BACKBONE_FORMATS:
        known = ", ".join(BACKBONE_FORMATS)
        raise CheckpointError(f"{source} is in no format known here ({known}); its keys are {shorten(list(state)[:5])}")
    return BACKBONE_FORMATS[format_name].convert(state, extras, source)


def _from_torchvision(state: State, extras: Mapping[str, Any], source: str) -> ConvertedBackbone:
    renamed, entries = rename(state, TORCHVISION_RULES, source, "torchvision's or timm's")
    name = network_name(renamed, source)
    checked = checked_state(renamed, name, source)
    return ConvertedBackbone(
        "torchvision", name, checked, IMAGENET_PREPROCESSING, stride_in_1x1=False, stem_pool="pad1", entries=entries
    )


def _from_msra(state: State, extras: Mapping[str, Any], source: str) -> ConvertedBackbone:
    renamed, entries = rename(state, msra_rules(), source, "the authors' Caffe models")
    norm = [renamed.get(key) for key in ("conv1.bias", "bn1.weight", "bn1.bias")]
    mean = renamed.get("bn1.running_mean")
    if all(value is not None and value.shape == (64,) for value in norm) and (mean is None or mean.shape == (64,)):
        # ResNet-50's conv1 has a bias: the norm after it absorbs it, in its mean or, where that is folded, in its offset.
        bias = renamed.pop("conv1.bias")
        if mean is None:
            renamed["bn1.bias"] = renamed["bn1.bias"] + bias * renamed["bn1.weight"]
        else:
            renamed["bn1.running_mean"] = mean - bias
    # Their norms are folded to a scale and an offset. Ours adds eps to the variance, so it is less by that.
    entries += add_running_statistics(renamed, variance=1 - EPS)
    name = network_name(renamed, source)
    checked = checked_state(renamed, name, source)
    return ConvertedBackbone("msra", name, checked, MSRA_PREPROCESSING, stride_in_1x1=True, stem_pool="ceil", entries=entries)


def _from_detectron2(state: State, extras: Mapping[str, Any], source: str) -> ConvertedBackbone:
    if extras.get("__author__") != "torchvision":
        raise CheckpointError(
            f"{source} has detectron2's names and author {shorten(extras.get('__author__'))}: only the author 'torchvision' "
            "tells what it expects of an image"
        )
    linear = RenameRule(r"stem\.fc\.(weight|bias)", r"fc.\1")
    renamed, entries = rename(state, [*detectron2_rules("", "", range(2, 6)), linear], source, "detectron2's")
    name = network_name(renamed, source)
    checked = checked_state(renamed, name, source)
    return ConvertedBackbone(
        "detectron2-backbone", name, checked, IMAGENET_PREPROCESSING, stride_in_1x1=False, stem_pool="pad1", entries=entries
    )


def _from_akamaster(state: State, extras: Mapping[str, Any], source: str) -> ConvertedBackbone:
    renamed, entries = rename(state, AKAMASTER_RULES, source, "a CIFAR ResNet with the classifier `linear`")
    name = cifar_name(renamed, source)
    checked = checked_state(renamed, name, source)
    return ConvertedBackbone(
        "akamaster", name, checked, IMAGENET_PREPROCESSING, stride_in_1x1=False, stem_pool="pad1", entries=entries
    )


def _from_caffe(state: State, extras: Mapping[str, Any], source: str) -> ConvertedBackbone:
    return _caffe_resnet(state, source, "caffe", CAFFE_PREPROCESSING)


def _from_bvlc(state: State, extras: Mapping[str, Any], source: str) -> ConvertedBackbone:
    return _caffe_resnet(state, source, "caffe-bvlc", BVLC_PREPROCESSING)


def _caffe_resnet(state: State, source: str, format_name: str, preprocessing: Preprocessing) -> ConvertedBackbone:
    renamed, entries = rename(state, TORCHVISION_RULES, source, "a Caffe ResNet with torchvision's names")
    name = network_name(renamed, source)
    if not name.startswith("resnet"):
        raise CheckpointError(f"{source} is a {name}; the format '{format_name}' is one of ResNets")
    checked = checked_state(renamed, name, source)
    return ConvertedBackbone(format_name, name, checked, preprocessing, stride_in_1x1=True, stem_pool="ceil", entries=entries)


BACKBONE_FORMATS = {
    "msra": _BackboneFormat(
        "the authors' Caffe ResNets as detectron2 ships them", (r"conv1_w", r"res_conv1_bn_.*"), _from_msra
    ),
    "detectron2-backbone": _BackboneFormat(
        "torchvision's ResNets, as detectron2 ships them", (r"stem\.conv1\..*",), _from_detectron2
    ),
    "akamaster": _BackboneFormat(
        "the CIFAR ResNets of akamaster/pytorch_resnet_cifar10, shortcut option A", (r"linear\..*",), _from_akamaster
    ),
    "torchvision": _BackboneFormat(
        "torchvision's ResNets and VGG-16, timm's ResNets of the same shape",
        (r"conv1\.weight", r"conv1\.0\.weight", r"layer1\.0\..*", r"features\.0\.weight"),
        _from_torchvision,
    ),
    "caffe": _BackboneFormat(
        "the authors' ResNets with torchvision's names, to be told by you: their keys do not say it", (), _from_caffe
    ),
    "caffe-bvlc": _BackboneFormat(
        "the same, trained on images from which Caffe's mean colour (104, 117, 123) was subtracted", (), _from_bvlc
    ),
}


def _refusal(pattern: str, what: str) -> RenameRule:
    return RenameRule(pattern, note=f"{what}, which the networks here lack", refuse=True)


TORCHVISION_RULES = (
    _refusal(r"conv1\.\d+\..*", "a stem of several convolutions (timm's -c, -d, -s and -t nets)"),
    _refusal(r"layer.*\.downsample\.2\..*", "average pooling in the shortcuts (timm's -d nets)"),
    _refusal(r"layer.*\.(se|attn|eca)\..*", "squeeze-and-excitation or attention (timm's SE and ECA nets)"),
    _refusal(r"(layer.*\.)?aa\..*|maxpool\..*", "anti-aliased pooling (timm's blur nets)"),
    _refusal(r"features\.\d+\.running_mean", "a VGG with batch normalisation"),
    RenameRule(r"(conv1|fc)\.(weight|bias)", r"\g<0>"),
    RenameRule(rf"bn1\.{NORM_PARTS}", r"\g<0>"),
    RenameRule(r"layer[1-4]\.\d+\.(conv[1-3]|downsample\.0)\.weight", r"\g<0>"),
    RenameRule(rf"layer[1-4]\.\d+\.(bn[1-3]|downsample\.1)\.{NORM_PARTS}", r"\g<0>"),
    RenameRule(r"(features|classifier)\.\d+\.(weight|bias)", r"\g<0>"),
)
# The project takes ImageNet's mean and deviation for CIFAR, too.
AKAMASTER_RULES = (
    _refusal(r"layer.*\.(shortcut|downsample)\..*", "projections in the shortcuts (option B)"),
    _refusal(r"layer4\..*", "a fourth stage (an ImageNet network fitted to small images)"),
    RenameRule(r"conv1\.weight", r"\g<0>"),
    RenameRule(rf"bn1\.{NORM_PARTS}", r"\g<0>"),
    RenameRule(r"layer[1-3]\.\d+\.conv[12]\.weight", r"\g<0>"),
    RenameRule(rf"layer[1-3]\.\d+\.bn[12]\.{NORM_PARTS}", r"\g<0>"),
    RenameRule(r"linear\.(weight|bias)", r"fc.\1"),
)


def msra_rules() -> list[RenameRule]:
    """Names of Detectron's pickles: `res2_0_branch2a_w`, `res2_0_branch2a_bn_s` and so on."""
    rules = [
        RenameRule(r".*_momentum", note="the solver's"),
        RenameRule(r"conv1_w", "conv1.weight"),
        RenameRule(r"conv1_b", "conv1.bias", "absorbed by the norm after it"),
        RenameRule(r"fc1000_w", "fc.weight"),
        RenameRule(r"fc1000_b", "fc.bias"),
    ]
    # Detectron folds norms to scale and offset; detectron2's copies have all four tensors.
    norm_parts = {
        **{"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"},
        **{"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"},
    }
    rules += [RenameRule(rf"res_conv1_bn_{short}", f"bn1.{part}") for short, part in norm_parts.items()]
    branches = {"1": ("downsample.0", "downsample.1"), "2a": ("conv1", "bn1"), "2b": ("conv2", "bn2"), "2c": ("conv3", "bn3")}
    for stage in range(2, 6):
        for branch, (conv, norm) in branches.items():
            start, block = rf"res{stage}_(\d+)_branch{branch}", rf"layer{stage - 1}.\1"
            rules.append(RenameRule(rf"{start}_w", f"{block}.{conv}.weight"))
            rules += [RenameRule(rf"{start}_bn_{short}", f"{block}.{norm}.{part}") for short, part in norm_parts.items()]
    return rules


def detectron2_rules(prefix: str, target: str, stages: Sequence[int]) -> list[RenameRule]:
    """Names of detectron2's ResNet, under `prefix` -> under `target`: stages (2 is res2), and the stem if 2 is among them."""
    before = re.escape(prefix)
    rules = []
    if 2 in stages:
        rules += [
            RenameRule(rf"{before}stem\.conv1\.weight", f"{target}conv1.weight"),
            RenameRule(rf"{before}stem\.conv1\.norm\.{NORM_PARTS}", rf"{target}bn1.\1"),
        ]
    for stage in stages:
        start, block = rf"{before}res{stage}\.(\d+)", rf"{target}layer{stage - 1}.\1"
        rules += [
            RenameRule(rf"{start}\.conv([1-3])\.weight", rf"{block}.conv\2.weight"),
            RenameRule(rf"{start}\.conv([1-3])\.norm\.{NORM_PARTS}", rf"{block}.bn\2.\3"),
            RenameRule(rf"{start}\.shortcut\.weight", rf"{block}.downsample.0.weight"),
            RenameRule(rf"{start}\.shortcut\.norm\.{NORM_PARTS}", rf"{block}.downsample.1.\2"),
        ]
    return rules


def add_running_statistics(state: State, variance: float) -> list[ConversionEntry]:
    """Give norms that have only a scale and an offset the mean 0 and this variance, in place; an entry per new tensor."""
    entries = []
    for key in [key for key in state if re.search(r"(^|\.)(bn\d|downsample\.1)\.weight$", key)]:
        norm = key.removesuffix(".weight")
        for part, value in (("running_mean", 0.0), ("running_var", variance)):
            if f"{norm}.{part}" not in state:
                state[f"{norm}.{part}"] = torch.full_like(state[key], value)
                entries.append(ConversionEntry(None, f"{norm}.{part}", "the source folds it into scale and offset"))
    return entries


def network_name(state: Mapping[str, Tensor], source: str) -> str:
    """The backbone whose state dict, with torchvision's names, this is. Raises CheckpointError if there is none."""
    if any(key.startswith("features.") for key in state):
        count = sum(key.startswith("features.") and key.endswith(".weight") for key in state)
        if count != 13:
            raise CheckpointError(f"{source} is a VGG of {count} convolutions; only VGG-16, with 13, is here")
        return "vgg16"
    return resnet_name(state, (1, 2, 3, 4), source)


def resnet_name(state: Mapping[str, Tensor], layers: Sequence[int], source: str) -> str:
    """The name of the ResNet that has as many blocks in these of its four layers; keys may have prefixes before `layer1`.

    Raises CheckpointError if there is none."""
    blocks = {match.groups() for key in state if (match := re.search(r"(?:^|\.)layer(\d)\.(\d+)\.", key))}
    found = tuple(sum(layer == str(number) for layer, _ in blocks) for number in layers)
    bottleneck = any(key.endswith(".conv3.weight") for key in state)
    for depth, (block, counts) in BLOCKS.items():
        if found == tuple(counts[number - 1] for number in layers) and (block is Bottleneck) == bottleneck:
            name = f"resnet{depth}"
            return name + HALF if name + HALF in BUILDERS and _is_half(state) else name
    kind = "bottleneck" if bottleneck else "basic"
    raise CheckpointError(
        f"{source} has {', '.join(map(str, found))} {kind} blocks in its stages; no ResNet here "
        f"({', '.join(map(str, BLOCKS))}) has as many"
    )


def _is_half(state: Mapping[str, Tensor]) -> bool:
    """Whether conv2_x's narrowest layers have 32 channels in place of 64."""
    narrow = next((value for key, value in state.items() if re.search(r"(^|\.)layer1\.0\.conv1\.weight$", key)), None)
    return narrow is not None and narrow.shape[:1] == (32,)


def cifar_name(state: Mapping[str, Tensor], source: str) -> str:
    """The name of the CIFAR ResNet with as many blocks. Raises CheckpointError where its three stages differ in length."""
    blocks = {match.groups() for key in state if (match := re.match(r"layer(\d)\.(\d+)\.", key))}
    found = [sum(layer == number for layer, _ in blocks) for number in "123"]
    if found[0] == 0 or len(set(found)) > 1:
        raise CheckpointError(f"{source} has {', '.join(map(str, found))} blocks in its stages; a CIFAR ResNet has n, n, n")
    return f"cifar_resnet{6 * found[0] + 2}"


def checked_state(state: State, name: str, source: str) -> State:
    """The state, if it fits the backbone `name`, with a classifier or without. Raises CheckpointError with the first
    difference."""
    classifier = state.get("fc.weight", state.get("classifier.6.weight"))
    num_classes = None if classifier is None else max([*classifier.shape[:1], 1])
    builder = registered_builder(name)
    if builder is None:
        raise CheckpointError(f"{source} is a {name}, which cannot be built: there are too many blocks")
    try:
        with torch.device("meta"):  # shapes without values
            network = builder(BackboneOptions(num_classes=num_classes))
    except BackboneError as error:
        raise CheckpointError(f"{source} is a {name}, which cannot be built: {error}") from None
    return fitting_state(network.state_dict(), state, source)
