"""State dicts with other projects' names and random values, for tests of the conversion."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.resnet import BLOCKS, Bottleneck

State = dict[str, Tensor]


def norm(channels: int, scale: float = 1.0) -> State:
    """The four tensors of a norm."""
    return {
        "weight": (0.5 + torch.rand(channels)) * scale,
        "bias": torch.randn(channels) * 0.1,
        "running_mean": torch.randn(channels) * 0.1,
        "running_var": 0.5 + torch.rand(channels),
    }


def conv(out_channels: int, in_channels: int, size: int) -> Tensor:
    """A convolution's weight (He)."""
    return torch.randn(out_channels, in_channels, size, size) * (2 / (in_channels * size**2)) ** 0.5


def residual_stage(stage: int, depth: int) -> dict[str, tuple[Tensor, State]]:
    """res2..res5 of a ResNet: (convolution, norm) by detectron2's names within the stage, e.g. "0.shortcut"."""
    kind, counts = BLOCKS[depth]
    width = 64 * 2 ** (stage - 2)
    out_channels = width * kind.expansion
    in_channels = 64 if stage == 2 else out_channels // 2
    layers = {}
    for block in range(counts[stage - 2]):
        if kind is Bottleneck:
            shapes = [(width, in_channels, 1), (width, width, 3), (out_channels, width, 1)]
        else:
            shapes = [(width, in_channels, 3), (width, width, 3)]
        for number, shape in enumerate(shapes, start=1):
            # Weak branches keep a deep sum of them finite.
            layers[f"{block}.conv{number}"] = conv(*shape), norm(shape[0], 0.3 if number == len(shapes) else 1.0)
        if block == 0 and in_channels != out_channels:
            layers[f"{block}.shortcut"] = conv(out_channels, in_channels, 1), norm(out_channels)
        in_channels = out_channels
    return layers


def detectron2_detector(depth: int = 50, num_classes: int = 80, rpn_channels: int | None = None) -> State:
    """A C4 detector's state dict."""
    state: State = {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}

    def put(name: str, weight: Tensor, values: State) -> None:
        state[f"{name}.weight"] = weight
        state.update({f"{name}.norm.{part}": value for part, value in values.items()})

    put("backbone.stem.conv1", conv(64, 3, 7) / 64, norm(64))
    for stage in (2, 3, 4, 5):
        start = "roi_heads.res5" if stage == 5 else f"backbone.res{stage}"
        for name, layer in residual_stage(stage, depth).items():
            put(f"{start}.{name}", *layer)
    expansion = BLOCKS[depth][0].expansion
    channels, vector = 256 * expansion, 512 * expansion
    hidden = rpn_channels or channels
    layers = {
        "proposal_generator.rpn_head.conv": torch.randn(hidden, channels, 3, 3) * 0.01,
        "proposal_generator.rpn_head.objectness_logits": torch.randn(15, hidden, 1, 1) * 0.05,
        "proposal_generator.rpn_head.anchor_deltas": torch.randn(60, hidden, 1, 1) * 0.003,
        "roi_heads.box_predictor.cls_score": torch.randn(num_classes + 1, vector) * 0.01,
        "roi_heads.box_predictor.bbox_pred": torch.randn(num_classes * 4, vector) * 0.003,
    }
    for name, weight in layers.items():
        state |= {f"{name}.weight": weight, f"{name}.bias": torch.randn(len(weight)) * 0.1}
    return state


def msra_classifier(depth: int = 50, num_classes: int = 1000) -> dict[str, np.ndarray]:
    """The authors' model as Detectron pickles it: norms folded to a scale and an offset."""
    arrays = {"conv1_w": conv(64, 3, 7), "res_conv1_bn_s": torch.rand(64) + 0.5, "res_conv1_bn_b": torch.randn(64)}
    branches = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
    for stage in (2, 3, 4, 5):
        for name, (weight, values) in residual_stage(stage, depth).items():
            block, layer = name.split(".")
            start = f"res{stage}_{block}_{branches[layer]}"
            arrays |= {f"{start}_w": weight, f"{start}_bn_s": values["weight"], f"{start}_bn_b": values["bias"]}
    vector = 512 * BLOCKS[depth][0].expansion
    arrays |= {"fc1000_w": torch.randn(num_classes, vector) * 0.01, "fc1000_b": torch.zeros(num_classes)}
    return {name: value.numpy() for name, value in arrays.items()}


def torchvision_names(stage: str, layers: dict[str, tuple[Tensor, State]]) -> State:
    """A stage with torchvision's names under `stage`, e.g. "resnet.layer1"."""
    names = {
        "conv1": ("conv1", "bn1"),
        "conv2": ("conv2", "bn2"),
        "conv3": ("conv3", "bn3"),
        "shortcut": ("downsample.0", "downsample.1"),
    }
    state: State = {}
    for name, (weight, values) in layers.items():
        block, layer = name.split(".")
        first, second = names[layer]
        state[f"{stage}.{block}.{first}.weight"] = weight
        state |= {f"{stage}.{block}.{second}.{part}": value for part, value in values.items()}
    return state


def py_faster_rcnn_detector(style: str, depth: int, num_classes: int, num_sizes: int = 3) -> State:
    """A C4 detector's state dict of "jwyang" or of the port "tf"."""
    trunk = {
        "jwyang": ["RCNN_base.0", "RCNN_base.1", "RCNN_base.4", "RCNN_base.5", "RCNN_base.6", "RCNN_top.0"],
        "tf": ["resnet.conv1", "resnet.bn1", "resnet.layer1", "resnet.layer2", "resnet.layer3", "resnet.layer4"],
    }[style]
    heads = {
        "jwyang": ["RCNN_rpn.RPN_Conv", "RCNN_rpn.RPN_cls_score", "RCNN_rpn.RPN_bbox_pred", "RCNN_cls_score", "RCNN_bbox_pred"],
        "tf": ["rpn_net", "rpn_cls_score_net", "rpn_bbox_pred_net", "cls_score_net", "bbox_pred_net"],
    }[style]
    state = {f"{trunk[0]}.weight": conv(64, 3, 7)} | {f"{trunk[1]}.{part}": value for part, value in norm(64).items()}
    state[f"{trunk[1]}.num_batches_tracked"] = torch.tensor(7)
    for stage in (2, 3, 4, 5):
        state |= torchvision_names(trunk[stage], residual_stage(stage, depth))
    expansion, num_anchors = BLOCKS[depth][0].expansion, 3 * num_sizes
    shapes = [
        (512, 256 * expansion, 3, 3), (2 * num_anchors, 512, 1, 1), (4 * num_anchors, 512, 1, 1),
        (num_classes + 1, 512 * expansion), (4 * (num_classes + 1), 512 * expansion),
    ]  # fmt: skip
    for name, shape in zip(heads, shapes, strict=True):
        state |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}
    return state


def write_pickle(path: Path, contents: object, protocol: int = 2) -> Path:
    """A pickle at `path`, as Python 2 users wrote them."""
    path.write_bytes(pickle.dumps(contents, protocol=protocol))
    return path


def arrays_of(state: State, leave_out: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The same as numpy arrays."""
    return {key: value.numpy() for key, value in state.items() if key not in leave_out}


def detectron2_pyramid(depth: int = 18, num_classes: int = 80, head_channels: int = 1024, channels: int = 256) -> State:
    """The state dict of a detector with a pyramid."""
    state: State = {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}

    def put(name: str, weight: Tensor, values: State) -> None:
        state[f"{name}.weight"] = weight
        state.update({f"{name}.norm.{part}": value for part, value in values.items()})

    put("backbone.bottom_up.stem.conv1", conv(64, 3, 7) / 64, norm(64))
    expansion = BLOCKS[depth][0].expansion
    for stage in (2, 3, 4, 5):
        for name, layer in residual_stage(stage, depth).items():
            put(f"backbone.bottom_up.res{stage}.{name}", *layer)
    layers = {}
    for stage in (2, 3, 4, 5):
        width = 64 * 2 ** (stage - 2) * expansion
        layers[f"backbone.fpn_lateral{stage}"] = conv(channels, width, 1) / 8
        layers[f"backbone.fpn_output{stage}"] = conv(channels, channels, 3)
    layers |= {
        "proposal_generator.rpn_head.conv": torch.randn(channels, channels, 3, 3) * 0.03,
        "proposal_generator.rpn_head.objectness_logits": torch.randn(3, channels, 1, 1) * 0.1,
        "proposal_generator.rpn_head.anchor_deltas": torch.randn(12, channels, 1, 1) * 0.01,
        "roi_heads.box_head.fc1": torch.randn(head_channels, channels * 49) * (2 / (channels * 49)) ** 0.5,
        "roi_heads.box_head.fc2": torch.randn(head_channels, head_channels) * (2 / head_channels) ** 0.5,
        "roi_heads.box_predictor.cls_score": torch.randn(num_classes + 1, head_channels) * 0.1,
        "roi_heads.box_predictor.bbox_pred": torch.randn(num_classes * 4, head_channels) * 0.02,
    }
    for name, weight in layers.items():
        state |= {f"{name}.weight": weight, f"{name}.bias": torch.randn(len(weight)) * 0.1}
    return state


def detectron2_mask_head(in_channels: int, num_classes: int, num_convs: int, channels: int = 256) -> State:
    """What a detector with masks has beside the others': convolutions on a pyramid, none in C4."""
    start = "roi_heads.mask_head"
    state: State = {}
    for number in range(num_convs):
        weight = conv(channels, channels if number else in_channels, 3)
        state |= {
            f"{start}.mask_fcn{number + 1}.weight": weight,
            f"{start}.mask_fcn{number + 1}.bias": torch.randn(channels) * 0.1,
        }
    inputs = channels if num_convs else in_channels
    state |= {f"{start}.deconv.weight": torch.randn(inputs, channels, 2, 2) * (2 / inputs) ** 0.5}
    state |= {f"{start}.deconv.bias": torch.randn(channels) * 0.1}
    state |= {f"{start}.predictor.weight": torch.randn(num_classes, channels, 1, 1) * 0.1}
    return state | {f"{start}.predictor.bias": torch.randn(num_classes) * 0.1}
