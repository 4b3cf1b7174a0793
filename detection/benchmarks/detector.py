"""A detector's training step and its inference against torchvision's, given the same network, anchors and counts.

The peer is torchvision's FasterRCNN with its ResNet-50 cut as C4: its FrozenBatchNorm2d, our anchors and numbers of
proposals, RoIAlign 14 x 14, as many RoIs. Weights are random, so are images and boxes; both see the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from detection.benchmarks.contest import Work
from detection.config import Config
from detection.engine.precision import autocast
from detection.engine.train import total_loss
from detection.inference.detector import Detector
from detection.structures import Batch, Target

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
NUM_CLASSES = 80
NUM_BOXES = 12


@dataclass(frozen=True)
class Task:
    """What both sides do."""

    job: Literal["train", "infer"]
    precision: Precision
    size_hw: tuple[int, int] = (600, 800)
    num_rois: int = 512  # an image, in training
    proposals: int = 300  # an image, in inference
    batch: int = 1
    device: str = "cpu"

    def autocast(self) -> AbstractContextManager[None]:
        """The context of the forward pass."""
        return autocast(torch.device(self.device), DTYPES[self.precision])


def benchmark_config(task: Task) -> Config:
    """Our side's config: ResNet-50 C4 with the paper's anchors."""
    return Config.model_validate(
        {
            "model": {"backbone": "resnet50", "freeze_stages": 2},
            "rpn": {"post_nms_test": task.proposals, "ignore_straddling": False, "min_size": 0},
            "roi": {
                "pooling": "align",
                "pool_size": 14,
                "sampling_ratio": 2,
                "sample_size": task.num_rois,
                "negative_iou": [0, 0.5],
            },
            "data": {"classes": [f"class {number}" for number in range(NUM_CLASSES)]},
            "test": {"shorter_side": min(task.size_hw), "longer_side": max(task.size_hw)},
        }
    )


def images_and_boxes(task: Task) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """(N, 3, H, W) uint8, and the boxes and labels of each image; always the same."""
    numbers = torch.Generator().manual_seed(0)
    (height, width), batch = task.size_hw, task.batch
    images = torch.randint(0, 256, (batch, 3, height, width), generator=numbers, dtype=torch.uint8)
    corners = torch.rand(batch, NUM_BOXES, 2, generator=numbers) * torch.tensor([width * 0.7, height * 0.7])
    sides = 32 + torch.rand(batch, NUM_BOXES, 2, generator=numbers) * (min(task.size_hw) * 0.3 - 32)
    boxes = torch.cat([corners, corners + sides], dim=2)
    labels = torch.randint(0, NUM_CLASSES, (batch, NUM_BOXES), generator=numbers)
    return images, list(boxes), list(labels)


def ours(task: Task) -> Work:
    """Our detector with its settings of that precision."""
    config = benchmark_config(task)
    torch.manual_seed(0)
    model = Detector(config, config.data.class_names).to(task.device)
    images, boxes, labels = images_and_boxes(task)
    if task.job == "infer":
        model.eval()
        arrays = [image.permute(1, 2, 0).numpy() for image in images]

        def infer() -> None:
            with task.autocast():
                model.predict(arrays)

        return infer
    targets = [Target(box, label, torch.zeros(0, 4)) for box, label in zip(boxes, labels, strict=True)]
    data = Batch(images, [task.size_hw] * task.batch, targets, [""] * task.batch).to(task.device)
    return _training_step(model, lambda: total_loss(model(data)), task)


def torchvision_peer(task: Task) -> Work:
    """torchvision's detector on the same work."""
    torch.manual_seed(0)
    model = build_peer(task).to(task.device)
    images, boxes, labels = images_and_boxes(task)
    floats = list((images.float() / 255).to(task.device))
    if task.job == "infer":
        model.eval()

        @torch.inference_mode()
        def infer() -> None:
            with task.autocast():
                model(floats)

        return infer
    pairs = zip(boxes, labels, strict=True)
    targets = [{"boxes": box.to(task.device), "labels": label.to(task.device) + 1} for box, label in pairs]
    return _training_step(model, lambda: total_loss(model(floats, targets)), task)


def _training_step(model: nn.Module, loss: Callable[[], Tensor], task: Task) -> Work:
    """Forward, backward and SGD, as in the training loop."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with task.autocast():
            value = loss()
        value.backward()
        optimizer.step()

    return step


class _Trunk(nn.Sequential):
    """What torchvision's detector asks of a backbone."""

    out_channels = 1024


def build_peer(task: Task) -> nn.Module:
    """torchvision's FasterRCNN around its own ResNet-50, conv1..conv4 shared and conv5 on each RoI."""
    from torchvision.models import resnet50
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign
    from torchvision.ops.misc import FrozenBatchNorm2d

    net = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    for part in (net.conv1, net.layer1):
        part.requires_grad_(False)
    trunk = _Trunk(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3)
    rpn = benchmark_config(task).rpn
    return FasterRCNN(
        trunk,
        rpn_anchor_generator=AnchorGenerator((tuple(rpn.anchor_sizes),), (tuple(rpn.anchor_ratios),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        box_head=nn.Sequential(net.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        box_predictor=FastRCNNPredictor(2048, NUM_CLASSES + 1),
        min_size=min(task.size_hw),
        max_size=max(task.size_hw),
        rpn_pre_nms_top_n_train=rpn.pre_nms_train,
        rpn_post_nms_top_n_train=rpn.post_nms_train,
        rpn_pre_nms_top_n_test=rpn.pre_nms_test,
        rpn_post_nms_top_n_test=rpn.post_nms_test,
        box_batch_size_per_image=task.num_rois,
    )
