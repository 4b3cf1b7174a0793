"""A classifier's training step against the plain loop: torchvision's modules, float32, channels first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from detection.config import ClassifierModelConfig
from detection.engine.loop import total_loss
from detection.engine.precision import autocast, resolve_precision
from detection.pretraining.data import ImageBatch
from detection.pretraining.model import build_classifier
from tools.benchmarks.benchmark import Benchmark, Work
from tools.benchmarks.parts import Options

Network = Literal["cifar_resnet20", "resnet50"]
SETTINGS: dict[Network, tuple[int, int, int]] = {"cifar_resnet20": (128, 32, 10), "resnet50": (16, 224, 1000)}
"""Images per step, the length of their sides in pixels, classes."""


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """Our step and the plain loop's, on the networks of SETTINGS."""
    for network, (batch, side, _) in SETTINGS.items():
        yield Benchmark(
            f"training, {network}, {batch} images of {side}x{side}",
            {
                "plain loop": partial(plain_loop_work, network, options.device),
                "ours": partial(our_work, network, options.device),
            },
            images=batch,
            repeats=options.repeats,
        )


def _data(network: Network) -> ImageBatch:
    batch, side, classes = SETTINGS[network]
    numbers = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, side, side, 3), generator=numbers, dtype=torch.uint8).permute(0, 3, 1, 2)
    return ImageBatch(images, torch.randint(0, classes, (batch,), generator=numbers), [""] * batch)


def our_work(network: Network, device: str) -> Work:
    """Our step as `tools/pretrain.py` makes it, in the precision that suits the hardware."""
    torch.manual_seed(0)
    names = [str(number) for number in range(SETTINGS[network][2])]
    model = build_classifier(ClassifierModelConfig(backbone=network), names).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    batch, precision = _data(network).to(device), resolve_precision("auto", device)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(torch.device(device), precision):
            loss = total_loss(model(batch))
        loss.backward()
        optimizer.step()

    return step


def plain_loop_work(network: Network, device: str) -> Work:
    """The loop of many tutorials."""
    torch.manual_seed(0)
    model = _plain_network(network).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    batch = _data(network)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images, labels = batch.images.contiguous().to(device), batch.labels.to(device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model((images.float() / 255 - mean) / std), labels).backward()
        optimizer.step()

    return step


def _plain_network(network: Network) -> nn.Module:
    from torchvision.models import resnet50
    from torchvision.models.resnet import BasicBlock

    if network == "resnet50":
        return resnet50(weights=None)

    class Shortcut(nn.Module):
        def __init__(self, extra: int) -> None:
            super().__init__()
            self.extra = extra

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra // 2))

    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    channels = 16
    for width in (16, 32, 64):
        for _ in range(3):
            grows = width != channels
            layers.append(BasicBlock(channels, width, 2 if grows else 1, Shortcut(width - channels) if grows else None))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
