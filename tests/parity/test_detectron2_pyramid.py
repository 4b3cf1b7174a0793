"""A converted pyramid detector of detectron2's gives the detections and masks of detectron2's own definitions.

The twin is written from these definitions in plain functions, on the original state dict; nothing of ours computes in it.
"""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import batched_nms, roi_align

from detection import Detector
from detection.config import Config, load_config, parse_config
from detection.errors import CheckpointError
from detection.weights.conversion import convert
from tests.foreign_weights import arrays_of, detectron2_mask_head, detectron2_pyramid
from tests.inference.test_pasting import by_grid
from tests.matching import same_detections, same_masks
from tests.parity.test_detectron2_twin import CONFIGS, Twin, apply_deltas

SIZE_HW = (70, 105)
NUM_CLASSES = 20
MEAN = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
ANCHORS = "proposal_generator.anchor_generator.cell_anchors"


def cell_anchors(size):
    widths = [math.sqrt(size**2 / ratio) for ratio in (0.5, 1.0, 2.0)]
    heights = [ratio * width for ratio, width in zip((0.5, 1.0, 2.0), widths, strict=True)]
    return torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in zip(widths, heights, strict=True)])


class PyramidTwin(Twin):
    """detectron2's GeneralizedRCNN with FPN and StandardROIHeads: basic blocks, ROIAlignV2, FrozenBN."""

    def stage(self, x, name, stride):
        block = 0
        while f"{name}.{block}.conv1.weight" in self.state:
            start, step = f"{name}.{block}", stride if block == 0 else 1
            out = F.relu(self.conv_norm(x, f"{start}.conv1", step, 1))
            out = self.conv_norm(out, f"{start}.conv2", 1, 1)
            shortcut = f"{start}.shortcut"
            x = F.relu(out + (self.conv_norm(x, shortcut, step) if f"{shortcut}.weight" in self.state else x))
            block += 1
        return x

    def layer(self, x, name, padding=0):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], padding=padding)

    def pyramid(self, image):
        x = (image.flip(0).float() - MEAN)[None]
        height, width = x.shape[-2:]
        # Zeros after the mean is subtracted, up to multiples of 32.
        x = F.pad(x, (0, math.ceil(width / 32) * 32 - width, 0, math.ceil(height / 32) * 32 - height))
        x = F.max_pool2d(F.relu(self.conv_norm(x, "backbone.bottom_up.stem.conv1", 2, 3)), 3, 2, 1)
        maps = []
        for stage, stride in ((2, 1), (3, 2), (4, 2), (5, 2)):
            x = self.stage(x, f"backbone.bottom_up.res{stage}", stride)
            maps.append(x)
        above: Any = None
        levels: list[Any] = []
        for stage in (5, 4, 3, 2):
            lateral = self.layer(maps[stage - 2], f"backbone.fpn_lateral{stage}")
            above = lateral if above is None else lateral + F.interpolate(above, scale_factor=2.0, mode="nearest")
            levels.insert(0, self.layer(above, f"backbone.fpn_output{stage}", 1))
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2, padding=0)]

    def proposals(self, levels, pre_nms, post_nms):  # type: ignore[override]
        start = "proposal_generator.rpn_head"
        boxes, scores, numbers = [], [], []
        for number, (features, size) in enumerate(zip(levels, (32, 64, 128, 256, 512), strict=True)):
            hidden = F.relu(self.layer(features, f"{start}.conv", 1))
            logits = self.layer(hidden, f"{start}.objectness_logits").permute(0, 2, 3, 1).flatten()
            deltas = self.layer(hidden, f"{start}.anchor_deltas")
            _, _, height, width = deltas.shape
            deltas = deltas.view(1, -1, 4, height, width).permute(0, 3, 4, 1, 2).reshape(-1, 4)
            stride = 4 * 2**number
            y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij")
            anchors = (torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4) + cell_anchors(size)).reshape(-1, 4)
            top, best = logits.topk(min(pre_nms, len(logits)))
            boxes.append(apply_deltas(deltas[best], anchors[best], (1, 1, 1, 1)))
            scores.append(top)
            numbers.append(torch.full_like(best, number))
        boxes, scores, numbers = clip(torch.cat(boxes)), torch.cat(scores), torch.cat(numbers)  # type: ignore[assignment]
        keep = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
        boxes, scores, numbers = boxes[keep], scores[keep], numbers[keep]
        return boxes[batched_nms(boxes, scores, numbers, 0.7)[:post_nms]]

    def pooled(self, levels, rois, size):
        areas = (rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])
        chosen = (4 + torch.log2(areas.sqrt() / 224 + 1e-8)).floor().clamp(2, 5) - 2
        pooled = torch.zeros(len(rois), 256, size, size)
        for number in range(4):
            own = chosen == number
            indexed = torch.cat([torch.zeros(int(own.sum()), 1), rois[own]], dim=1)
            pooled[own] = roi_align(levels[number], indexed, (size, size), 1 / (4 * 2**number), sampling_ratio=0, aligned=True)
        return pooled

    def masks_in(self, image, boxes, labels):
        probabilities = self.mask_logits(self.pooled(self.pyramid(image), boxes, 14), labels).sigmoid()
        return by_grid(probabilities, boxes, *SIZE_HW)

    def detect_in(self, image, post_nms):
        levels = self.pyramid(image)
        rois = self.proposals(levels, 1000, post_nms)
        x = self.pooled(levels, rois, 7).flatten(1)
        for name in ("box_head.fc1", "box_head.fc2"):
            x = F.relu(F.linear(x, self.state[f"roi_heads.{name}.weight"], self.state[f"roi_heads.{name}.bias"]))
        logits, deltas = (
            F.linear(
                x, self.state[f"roi_heads.box_predictor.{name}.weight"], self.state[f"roi_heads.box_predictor.{name}.bias"]
            )
            for name in ("cls_score", "bbox_pred")
        )
        scores = logits.softmax(dim=1)[:, :-1]
        boxes = apply_deltas(deltas.view(-1, 4), rois.repeat_interleave(NUM_CLASSES, 0), (10, 10, 5, 5))
        boxes, mask = clip(boxes).view(-1, NUM_CLASSES, 4), scores > 0.05
        boxes, scores, labels = boxes[mask], scores[mask], mask.nonzero()[:, 1]
        keep = batched_nms(boxes, scores, labels, 0.5)[:100]
        keep = keep[(boxes[keep, 2:] > boxes[keep, :2]).all(dim=1)]
        return boxes[keep], scores[keep], labels[keep]


def clip(boxes):
    height, width = SIZE_HW
    return torch.stack([boxes[:, i].clamp(0, width if i % 2 == 0 else height) for i in range(4)], dim=1)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return detectron2_pyramid(18, NUM_CLASSES)


def converted(state):
    anchors = {f"{ANCHORS}.{number}": cell_anchors(32 * 2**number) for number in range(5)}
    found = convert({"model": arrays_of(state | anchors)}, "model.pkl", None, ["rpn.post_nms_test=40"])
    config = found.checkpoint.metadata.config
    assert found.counts["dropped"] == 0
    overrides = {"test": config["test"] | {"shorter_side": SIZE_HW[0], "longer_side": SIZE_HW[1]}}
    ours = Detector(parse_config(Config, {**config, **overrides}, "model.pkl"), found.checkpoint.metadata.preprocessing).eval()
    ours.load_state_dict(found.checkpoint.state)
    return ours


@torch.no_grad()
def test_detections(state):
    ours = converted(state)
    model, rpn = ours.config.model, ours.config.rpn
    assert (model.neck, model.stride_in_1x1, model.mask, ours.config.data.resizing) == ("fpn", True, False, "pillow")
    assert (rpn.pre_nms_train, rpn.post_nms_train) == (2000, 1000)
    image = torch.randint(0, 256, (3, *SIZE_HW), dtype=torch.uint8)
    (seen,) = ours.predict([image])
    expected = PyramidTwin(state).detect_in(image, 40)
    assert len(seen) > 10 and seen.masks is None
    same_detections((seen.boxes, seen.scores, seen.labels), expected)


@torch.no_grad()
def test_masks(state):
    state = state | detectron2_mask_head(256, NUM_CLASSES, 4)
    ours = converted(state)
    assert (ours.config.model.mask, ours.config.mask.targets, ours.config.mask.pasting) == (True, "hard", "grid")
    image = torch.randint(0, 256, (3, *SIZE_HW), dtype=torch.uint8)
    (seen,) = ours.predict([image])
    assert len(seen) > 10
    same_masks(seen.masks.decode(), PyramidTwin(state).masks_in(image, seen.boxes, seen.labels))


@pytest.mark.parametrize(
    ("name", "backbone", "mask", "steps"),
    [
        ("coco_r50_fpn", "resnet50", False, 90_000),
        ("coco_r101_fpn", "resnet101", False, 270_000),
        ("coco_r50_fpn_mask", "resnet50", True, 90_000),
    ],
)
def test_configs_say_what_the_conversion_says(state, name, backbone, mask, steps):
    config = load_config(CONFIGS / f"{name}.yaml")
    contents = state | (detectron2_mask_head(256, NUM_CLASSES, 4) if mask else {})
    found = parse_config(Config, convert(contents, "model.pkl").checkpoint.metadata.config, "model.pkl")
    assert config.model == found.model.model_copy(update={"backbone": backbone})
    for section in ("fpn", "rpn", "roi", "mask", "test"):
        assert getattr(config, section) == getattr(found, section), section
    assert (config.data.resizing, config.data.classes) == (found.data.resizing, "coco")
    assert (config.train.steps, config.train.batch_size, config.train.learning_rate) == (steps, 16, 0.02)


def test_anchors_that_are_others(state):
    anchors = {f"{ANCHORS}.{number}": cell_anchors(16 * 2**number) for number in range(5)}
    with pytest.raises(CheckpointError, match="model.pkl has 15 anchors, the first"):
        convert(state | anchors, "model.pkl")
