"""A detector's training step and its inference against torchvision's, given the same network, anchors and counts.

The reference is torchvision's FasterRCNN with its ResNet-50 cut as C4: its FrozenBatchNorm2d, our anchors and numbers of
proposals, RoIAlign 14 x 14, as many RoIs. Weights, images and boxes are random; both see the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from detection.config import Config
from detection.engine.loop import total_loss
from detection.engine.precision import autocast, resolve_precision
from detection.inference.detector import Detector
from detection.structures import Batch, Target
from tools.benchmarks.benchmark import PEAK, Benchmark, Setup, Work
from tools.benchmarks.operators import matrix_product
from tools.benchmarks.parts import Options, Precision

Mode = Literal["train", "infer"]
Span = Callable[[str], AbstractContextManager[None]]
"""The context that a named step runs in: one that times it, or none."""

DTYPES: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
MODES: tuple[Mode, ...] = ("train", "infer")
NUM_CLASSES = 80
NUM_BOXES = 12

TORCHVISION_NAMES = {
    "trunk.conv1": "backbone.0",
    "trunk.bn1": "backbone.1",
    "trunk.layer1": "backbone.4",
    "trunk.layer2": "backbone.5",
    "trunk.layer3": "backbone.6",
    "rpn.conv": "rpn.head.conv.0.0",
    "rpn.objectness": "rpn.head.cls_logits",
    "rpn.deltas": "rpn.head.bbox_pred",
    "roi_head.conv5.layer4": "roi_heads.box_head.0",
    "roi_head.class_scores": "roi_heads.box_predictor.cls_score",
    "roi_head.box_deltas": "roi_heads.box_predictor.bbox_pred",
}
"""The names of our detector's modules in torchvision's."""


@dataclass(frozen=True)
class DetectorCase:
    """What both implementations do, with which images. The reference is a ResNet-50 whatever `backbone` says."""

    mode: Mode
    precision: Precision
    size_hw: tuple[int, int] = (600, 800)
    num_rois: int = 512  # per image, in training
    proposals: int = 300  # per image, in inference
    batch: int = 1
    device: str = "cpu"
    backbone: str = "resnet50"
    seed: int = 0  # of images and boxes

    def autocast(self) -> AbstractContextManager[None]:
        """The context of the forward pass."""
        return autocast(torch.device(self.device), DTYPES[self.precision])


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """One for each batch size and mode: torchvision's detector, ours, and the machine's matrix products."""
    side = 4096 if options.device == "cpu" else 8192  # enough work to show what the machine can do
    precisions = DTYPES if options.precision is None else {options.precision: DTYPES[options.precision]}
    for batch in options.batches:
        for mode in MODES:
            implementations: dict[str, Setup] = {}
            for precision in precisions:
                case = DetectorCase(mode, precision, options.size_hw, options.rois, options.proposals, batch, options.device)
                implementations[f"torchvision {precision}"] = partial(torchvision_work, case)
                implementations[f"ours {precision}"] = partial(our_work, case)
            for precision, dtype in precisions.items():
                implementations[f"{PEAK} {precision}"] = partial(matrix_product, dtype or torch.float32, options.device, side)
            yield Benchmark(f"ResNet-50 C4, {describe(case)}", implementations, images=batch, repeats=options.repeats)


def describe(case: DetectorCase) -> str:
    """'training, 2 images of 600x800, 128 RoIs each'."""
    mode, rois = ("training", case.num_rois) if case.mode == "train" else ("inference", case.proposals)
    height, width = case.size_hw
    images, each = ("1 image", "") if case.batch == 1 else (f"{case.batch} images", " each")
    return f"{mode}, {images} of {height}x{width}, {rois} RoIs{each}"


def suitable_precision(device: str) -> Precision:
    """The precision that our training takes by default on this hardware."""
    return "fp32" if resolve_precision("auto", device) is None else "bf16"


def benchmark_config(case: DetectorCase) -> Config:
    """Our side's config: C4 with the paper's anchors."""
    return Config.model_validate(
        {
            "model": {"backbone": case.backbone, "freeze_stages": 2},
            "rpn": {
                "channels": 1024 if case.backbone == "resnet50" else 256,  # as torchvision's, which has those of the features
                "post_nms_test": case.proposals,
                "ignore_straddling": False,
                "min_size": 0,
            },
            "roi": {
                "pooling": "align",
                "pool_size": 14,
                "sampling_ratio": 2,
                "sample_size": case.num_rois,
                "negative_iou": [0, 0.5],
            },
            "data": {"classes": [f"class {number}" for number in range(NUM_CLASSES)]},
            "test": {"shorter_side": min(case.size_hw), "longer_side": max(case.size_hw), "batch_size": case.batch},
        }
    )


def images_and_boxes(case: DetectorCase) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """(N, 3, H, W) uint8, and the boxes and labels of each image; the same for the same seed."""
    numbers = torch.Generator().manual_seed(case.seed)
    (height, width), batch = case.size_hw, case.batch
    images = torch.randint(0, 256, (batch, 3, height, width), generator=numbers, dtype=torch.uint8)
    corners = torch.rand(batch, NUM_BOXES, 2, generator=numbers) * torch.tensor([width * 0.7, height * 0.7])
    sides = 32 + torch.rand(batch, NUM_BOXES, 2, generator=numbers) * (min(case.size_hw) * 0.3 - 32)
    boxes = torch.cat([corners, corners + sides], dim=2)
    labels = torch.randint(0, NUM_CLASSES, (batch, NUM_BOXES), generator=numbers)
    return images, list(boxes), list(labels)


def our_work(case: DetectorCase) -> Work:
    """Training or inference of our detector."""
    model = our_detector(case)
    return our_training(model, model, case) if case.mode == "train" else our_inference(model, case)


def our_detector(case: DetectorCase) -> Detector:
    """Our detector with random weights, always the same."""
    config = benchmark_config(case)
    torch.manual_seed(0)
    return Detector(config).to(case.device)


def no_span(name: str) -> AbstractContextManager[None]:
    """A step that nobody times."""
    return nullcontext()


def our_training(model: Detector, parallel: nn.Module, case: DetectorCase, span: Span = no_span) -> Work:
    """A step of the model through `parallel`, the module that averages gradients over processes, or the model itself."""
    images, boxes, labels = images_and_boxes(case)
    targets = [Target(box, label, torch.zeros(0, 4)) for box, label in zip(boxes, labels, strict=True)]
    batch = Batch(images, [case.size_hw] * case.batch, targets, [""] * case.batch)
    data = batch.pin_memory() if case.device != "cpu" else batch

    def loss() -> Tensor:
        with span("transfer"):
            moved = data.to(case.device)
        return total_loss(parallel(moved))

    return _training_step(model, loss, case, span)


def our_inference(model: Detector, case: DetectorCase) -> Work:
    """Our detector's `predict` on the images of a case."""
    arrays = [image.permute(1, 2, 0).numpy() for image in images_and_boxes(case)[0]]
    model.eval()

    def infer() -> None:
        with case.autocast():
            model.predict(arrays)

    return infer


def torchvision_work(case: DetectorCase) -> Work:
    """Training or inference of torchvision's detector on the same images; it takes floats."""
    torch.manual_seed(0)
    model = build_torchvision(case).to(case.device)
    images, boxes, labels = images_and_boxes(case)
    floats = images.float() / 255
    floats = floats.pin_memory() if case.device != "cpu" and case.mode == "train" else floats
    if case.mode == "infer":
        model.eval()

        @torch.inference_mode()
        def infer() -> None:
            with case.autocast():
                model(list(floats.to(case.device)))

        return infer

    def loss() -> Tensor:
        pairs = zip(boxes, labels, strict=True)
        targets = [{"boxes": box.to(case.device), "labels": label.to(case.device) + 1} for box, label in pairs]
        return total_loss(model(list(floats.to(case.device, non_blocking=True)), targets))

    return _training_step(model, loss, case)


def _training_step(model: nn.Module, loss: Callable[[], Tensor], case: DetectorCase, span: Span = no_span) -> Work:
    """Forward, backward and SGD, as in the training loop."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with case.autocast():
            value = loss()
        with span("backward"):
            value.backward()
        with span("optimizer"):
            optimizer.step()

    return step


class _Trunk(nn.Sequential):
    """A trunk with the attribute that torchvision's detector asks of a backbone."""

    out_channels = 1024


def build_torchvision(case: DetectorCase) -> nn.Module:
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
    model = our_detector(case)
    rpn = model.config.rpn
    anchors = AnchorGenerator((tuple(rpn.anchor_sizes),), (tuple(rpn.anchor_ratios),))
    anchors.cell_anchors = list(model.rpn.get_buffer("cell_anchors"))  # its own are in another order
    reference = FasterRCNN(
        trunk,
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        box_head=nn.Sequential(net.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        box_predictor=FastRCNNPredictor(2048, NUM_CLASSES + 1),
        min_size=min(case.size_hw),
        max_size=max(case.size_hw),
        rpn_pre_nms_top_n_train=rpn.pre_nms_train,
        rpn_post_nms_top_n_train=rpn.post_nms_train,
        rpn_pre_nms_top_n_test=rpn.pre_nms_test,
        rpn_post_nms_top_n_test=rpn.post_nms_test,
        box_batch_size_per_image=case.num_rois,
    )
    # With other random weights the two would have other proposals, and after NMS another number of RoIs to work on.
    reference.load_state_dict(torchvision_state(model.state_dict()))
    return reference


def torchvision_state(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our detector's state dict under torchvision's names. Its background is class 0 and has boxes; ours is last, without."""
    state = {}
    for key, value in ours.items():
        part = next(part for part in TORCHVISION_NAMES if key.startswith(f"{part}."))
        state[TORCHVISION_NAMES[part] + key.removeprefix(part)] = _background_first(part, value)
    return state


def _background_first(part: str, value: Tensor) -> Tensor:
    if part == "roi_head.class_scores":
        return value.roll(1, dims=0)
    return torch.cat([torch.zeros_like(value[:4]), value]) if part == "roi_head.box_deltas" else value
