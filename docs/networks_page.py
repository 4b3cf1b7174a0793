"""The body of networks.md: parameters and multiply-adds of every registered network beside the paper's."""

from __future__ import annotations

import re

import torch

from backbones import BACKBONES, build_backbone, multiply_adds

# The paper's: multiply-adds in units of 10^9 (table 1, figure 3), parameters of CIFAR nets in millions (table 6).
PAPER_GIGA = {
    **{"resnet18": 1.8, "resnet34": 3.6, "resnet50": 3.8, "resnet101": 7.6, "resnet152": 11.3},
    **{"plain18": 1.8, "plain34": 3.6, "vgg16": 15.3},
}
PAPER_MILLION = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}
BOTTLENECK_NETS = ("resnet50", "resnet50_half", "resnet101", "resnet152")


def networks_body() -> str:
    """Everything below the page's title."""
    names = sorted(BACKBONES, key=_by_depth)  # ours alone, whatever plug-ins are installed
    parts = [
        "Every name of `list_backbones()` and what it costs; [backbones](backbones.md) says what they are. Multiply-adds\n"
        "are those of the convolutions and linear layers on one image, which the paper calls FLOPs.\n",
        "## ImageNet\n\n224x224, 1000 classes. *Authors' strides*: with `stride_in_1x1`, as they released their models.\n\n"
        "| name | parameters (million) | multiply-adds (10^9) | authors' strides | the paper's |\n|---|---|---|---|---|",
    ]
    parts += [_imagenet_row(name) for name in names if not name.startswith("cifar_")]
    parts.append(
        "\n## CIFAR\n\n32x32, 10 classes. Any other depth of 6n + 2 has a name too: `cifar_resnet38`, `cifar_plain26`.\n\n"
        "| name | parameters (million) | the paper's | multiply-adds (10^9) |\n|---|---|---|---|"
    )
    parts += [_cifar_row(name) for name in names if name.startswith("cifar_")]
    return "\n".join(parts) + "\n"


def _by_depth(name: str) -> tuple[str, int, str]:
    """A key that sorts resnet101 after resnet50."""
    family, *rest = re.split(r"(\d+)", name, maxsplit=1)
    return (family, int(rest[0]), rest[1]) if rest else (family, 0, "")


def _imagenet_row(name: str) -> str:
    million, giga = _cost(name, 1000, 224)
    authors = f"{_cost(name, 1000, 224, stride_in_1x1=True)[1]:.2f}" if name in BOTTLENECK_NETS else ""
    return f"| `{name}` | {million:.2f} | {giga:.2f} | {authors} | {PAPER_GIGA.get(name, '')} |"


def _cifar_row(name: str) -> str:
    million, giga = _cost(name, 10, 32)
    paper = PAPER_MILLION[int(name.removeprefix("cifar_resnet"))] if name.startswith("cifar_resnet") else ""
    return f"| `{name}` | {million:.2f} | {paper} | {giga:.3f} |"


def _cost(name: str, num_classes: int, image_size: int, stride_in_1x1: bool = False) -> tuple[float, float]:
    """Parameters in millions and multiply-adds in 10^9."""
    with torch.device("meta"):  # shapes without values
        network = build_backbone(name, num_classes=num_classes, stride_in_1x1=stride_in_1x1)
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6, multiply_adds(network, image_size) / 1e9
