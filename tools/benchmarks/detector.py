"""A detector's training step and its inference against torchvision's, given the same network, anchors and counts.

The reference is torchvision's FasterRCNN with its ResNet-50, cut as C4 or with a pyramid: its FrozenBatchNorm2d, our anchors
and numbers of proposals, as many RoIs, RoIAlign with as many samples or its RoIPool. Weights, images and boxes are random; both
see the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detection.allocator import keep_freed_memory
from detection.config import Config, TrainConfig
from detection.device import to_device
from detection.engine.loop import total_loss
from detection.engine.optim import build_optimizer
from detection.engine.precision import autocast, resolve_precision
from detection.inference.detector import Detector
from detection.structures import Batch, Target
from tools.benchmarks.benchmark import PEAK, Benchmark, Result, Setup, Work
from tools.benchmarks.operators import matrix_product
from tools.benchmarks.parts import ARCHITECTURES, Architecture, Options, Precision
from tools.benchmarks.reference import build_torchvision, torchvision_targets

Mode = Literal["train", "infer"]
Span = Callable[[str], AbstractContextManager[None]]
"""The context that a named step runs in: one that times it, or none."""

DTYPES: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
MODES: tuple[Mode, ...] = ("train", "infer")
NUM_CLASSES = 80
_TRAINING: dict[Precision, float] = {"fp32": 1.5, "bf16": 2.5}
_INFERENCE: dict[Precision, float] = {"fp32": 1.3, "bf16": 2.2}
BARS: dict[tuple[Architecture, Mode], dict[Precision, float]] = {
    ("c4_max", "train"): {"fp32": 2.0},
    ("fpn", "train"): _TRAINING,
    ("fpn", "infer"): _INFERENCE,
    ("fpn_mask", "train"): _TRAINING,
    ("fpn_mask", "infer"): _INFERENCE,
}
"""How many times as fast as torchvision in fp32 a training step and inference should be, on a CPU."""
NUM_BOXES = 12


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
    architecture: Architecture = "c4"
    detections: int = 100  # per image, at most, and of a large image always

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
                case = case_of(options, mode, precision, batch)
                implementations[f"torchvision {precision}"] = partial(torchvision_work, case)
                implementations[f"ours {precision}"] = partial(our_work, case)
            for precision, dtype in precisions.items():
                implementations[f"{PEAK} {precision}"] = partial(matrix_product, dtype or torch.float32, options.device, side)
            bars = BARS.get((case.architecture, mode), {}) if options.device == "cpu" else {}
            yield Benchmark(
                describe(case),
                implementations,
                images=batch,
                repeats=options.repeats,
                summarize=partial(compared_with_bars, bars) if bars else None,
            )


def compared_with_bars(bars: Mapping[Precision, float], results: Mapping[str, Result]) -> dict[str, float]:
    """How many times as fast as torchvision in fp32 ours is in each precision; each name says what is aimed at."""
    reference = results.get("torchvision fp32")
    mine = {precision: results.get(f"ours {precision}") for precision in bars}
    return {
        f"ours {precision} over torchvision fp32 (aim: at least {bars[precision]})": round(own.speed / reference.speed, 2)
        for precision, own in mine.items()
        if own and reference
    }


def case_of(options: Options, mode: Mode, precision: Precision, batch: int) -> DetectorCase:
    """What the options ask for, in this mode and precision."""
    return DetectorCase(
        mode,
        precision,
        options.size_hw,
        options.rois,
        options.proposals,
        batch,
        options.device,
        architecture=options.architecture,
    )


def describe(case: DetectorCase) -> str:
    """'ResNet-50 C4, training, 2 images of 600x800, 128 RoIs each'."""
    mode, rois = ("training", case.num_rois) if case.mode == "train" else ("inference", case.proposals)
    height, width = case.size_hw
    images, each = ("1 image", "") if case.batch == 1 else (f"{case.batch} images", " each")
    return f"ResNet-50 {ARCHITECTURES[case.architecture]}, {mode}, {images} of {height}x{width}, {rois} RoIs{each}"


def suitable_precision(device: str) -> Precision:
    """The precision that our training takes by default on this hardware."""
    return "fp32" if resolve_precision("auto", device) is None else "bf16"


def benchmark_config(case: DetectorCase) -> Config:
    """Our side's config: C4 with the paper's anchors, or a pyramid with the settings of torchvision's."""
    settings: dict[str, Any] = {
        "model": {"backbone": case.backbone, "freeze_stages": 2},
        "rpn": {
            "channels": 1024 if case.backbone == "resnet50" else 256,  # as torchvision's, which has those of the features
            "post_nms_test": case.proposals,
            "ignore_straddling": False,
            "min_size": 0,
        },
        "roi": {
            "pooling": "max" if case.architecture == "c4_max" else "align",
            "pool_size": 14,
            "sampling_ratio": 2,
            "sample_size": case.num_rois,
            "negative_iou": [0, 0.5],
        },
        "data": {"classes": [f"class {number}" for number in range(NUM_CLASSES)]},
        "test": {"shorter_side": min(case.size_hw), "longer_side": max(case.size_hw), "batch_size": case.batch}
        | {"max_detections": case.detections},
    }
    if case.architecture.startswith("fpn"):
        settings["model"] |= {"neck": "fpn", "mask": case.architecture == "fpn_mask"}
        settings["rpn"] |= {
            "channels": 256,
            "anchor_sizes": [32, 64, 128, 256, 512],
            "pre_nms_train": 2000,
            "pre_nms_test": max(1000, case.proposals),
        }
        settings["roi"] |= {"pool_size": 7}
        settings["mask"] = {"targets": "soft"}
    return Config.model_validate(settings)


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


def targets_of(case: DetectorCase) -> list[Target]:
    """The objects of each image; where masks are learnt, each object is all of its box."""
    _, boxes, labels = images_and_boxes(case)
    masks = [_filled(each, case.size_hw) if case.architecture == "fpn_mask" else None for each in boxes]
    return [Target(box, label, torch.zeros(0, 4), masks=mask) for box, label, mask in zip(boxes, labels, masks, strict=True)]


def _filled(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """The pixels whose centres lie in each box: (G, 4) -> (G, H, W) bool."""
    y, x = (torch.arange(size) + 0.5 for size in size_hw)
    x1, y1, x2, y2 = (edge[:, None] for edge in boxes.unbind(1))
    return ((y >= y1) & (y < y2))[:, :, None] & ((x >= x1) & (x < x2))[:, None]


def our_work(case: DetectorCase) -> Work:
    """Training or inference of our detector, in a process that keeps freed memory, as the commands' does."""
    keep_freed_memory()
    model = our_detector(case)
    return our_training(model, model, case) if case.mode == "train" else our_inference(model, case)


def our_detector(case: DetectorCase) -> Detector:
    """Our detector with random weights, always the same, that sees the first class in about every second region: so there are
    as many detections as an image may have."""
    config = benchmark_config(case)
    torch.manual_seed(0)
    model = Detector(config)
    with torch.no_grad():
        model.roi_head.class_scores.bias[0] = math.log(NUM_CLASSES)
    return model.to(case.device)


def no_span(name: str) -> AbstractContextManager[None]:
    """A step that nobody times."""
    return nullcontext()


def our_training(model: Detector, parallel: nn.Module, case: DetectorCase, span: Span = no_span) -> Work:
    """A step of the model through `parallel`, the module that averages gradients over processes, or the model itself."""
    batch = Batch(images_and_boxes(case)[0], [case.size_hw] * case.batch, targets_of(case), [""] * case.batch)
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
    model = build_torchvision(our_detector(replace(case, device="cpu"))).to(case.device)
    floats = images_and_boxes(case)[0].float() / 255
    floats = floats.pin_memory() if case.device != "cpu" and case.mode == "train" else floats
    if case.mode == "infer":
        model.eval()

        @torch.inference_mode()
        def infer() -> None:
            with case.autocast():
                model(list(floats.to(case.device)))

        return infer

    targets = targets_of(case)

    def loss() -> Tensor:
        return total_loss(model(list(to_device(floats, case.device)), torchvision_targets(targets, case.device)))

    return _training_step(model, loss, case)


def _training_step(model: nn.Module, loss: Callable[[], Tensor], case: DetectorCase, span: Span = no_span) -> Work:
    """Forward, backward and SGD: ours is that of the training loop, torchvision's that of its reference scripts."""
    model.train()
    if isinstance(model, Detector):
        optimizer = build_optimizer(model, TrainConfig(learning_rate=1e-6))
    else:
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=1e-6, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with case.autocast():
            value = loss()
        with span("backward"):
            value.backward()
        with span("optimizer"):
            optimizer.step()

    return step
