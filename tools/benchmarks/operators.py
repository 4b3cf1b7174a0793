"""RoI pooling alone against torchvision's operators, and the machine's own speed: a large matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from detection.modeling.roi_head import pool_rois
from tools.benchmarks.benchmark import Benchmark, Setup, Work
from tools.benchmarks.parts import Options

MAP = (1024, 38, 50)
SIZE = 14
Pooling = Literal["align", "max"]
NAMES: dict[Pooling, str] = {"align": "RoIAlign", "max": "RoI max pooling"}
Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """RoI pooling alone. On a CPU torchvision's operators have no bf16: ours is compared with their fp32."""
    for kind, direction in product(NAMES, DIRECTIONS):
        setup = partial(pooling_work, kind=kind, direction=direction, num_rois=options.rois, device=options.device)
        implementations: dict[str, Setup] = {
            "torchvision fp32": partial(setup, "torchvision", dtype=torch.float32),
            "ours fp32": partial(setup, "ours", dtype=torch.float32),
            "ours bf16": partial(setup, "ours", dtype=torch.bfloat16),
        }
        yield Benchmark(f"{NAMES[kind]} {direction}, {options.rois} RoIs of {SIZE}x{SIZE}x{MAP[0]}", implementations)


def matrix_product(dtype: torch.dtype, device: str, side: int) -> Work:
    """The hardware's limit: one product of two square matrices."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def regions(num_rois: int) -> Tensor:
    """(R, 4) boxes of 32..500 px on the image of 600 x 800 that MAP belongs to; always the same."""
    numbers = torch.Generator().manual_seed(0)
    start = torch.rand(num_rois, 2, generator=numbers) * torch.tensor([700.0, 500.0])
    side = 32 + torch.rand(num_rois, 2, generator=numbers) * 468
    return torch.cat([start, (start + side).minimum(torch.tensor([800.0, 600.0]))], dim=1)


def pooling_work(
    who: Literal["ours", "torchvision"],
    *,
    kind: Pooling,
    direction: Direction,
    dtype: torch.dtype,
    num_rois: int,
    device: str = "cpu",
) -> Work:
    """14 x 14 cells per RoI of a 38 x 50 map, RoIAlign with two samples per axis; forward alone or its gradient alone.

    Ours is what the detector does on that device: on a GPU torchvision's operators, between casts and to its own layout.
    """
    numbers = torch.Generator().manual_seed(1)
    layout = torch.channels_last if who == "ours" else torch.contiguous_format  # each in that of its detector
    features = torch.randn(1, *MAP, generator=numbers).to(device, dtype).contiguous(memory_format=layout)
    rois = regions(num_rois).to(device)

    def forward() -> Tensor:
        if who == "ours":
            return pool_rois(features, [rois], SIZE, 16, kind, 2)
        from torchvision import ops

        if kind == "align":
            return ops.roi_align(features, [rois], SIZE, 1 / 16, 2, aligned=True)
        return ops.roi_pool(features, [rois], SIZE, 1 / 16)

    if direction == "forward":
        return torch.no_grad()(forward)
    features.requires_grad_()
    pooled = forward()
    gradient = torch.randn(pooled.shape, generator=numbers).to(device, dtype).contiguous(memory_format=layout)
    return lambda: torch.autograd.grad(pooled, features, gradient, retain_graph=True)
