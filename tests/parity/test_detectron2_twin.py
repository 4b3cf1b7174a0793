"""A converted C4 detector of detectron2's gives the detections, masks and losses of detectron2's own definitions.

The twin is written from these definitions in plain functions, on the original state dict; nothing of ours computes in it.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.ops import batched_nms, box_iou, nms, roi_align

from detection import Detector
from detection.config import load_config
from detection.structures import Batch, Target
from detection.weights.conversion import convert
from detection.weights.detectron2_detectors import DETECTRON2_SETTINGS
from tests.foreign_weights import arrays_of, detectron2_detector, detectron2_mask_head
from tests.inference.test_pasting import by_grid
from tests.matching import same_masks
from tests.shapes import ellipses

CONFIGS = Path(__file__).parents[2] / "configs" / "detectron2"
SIZE_HW = (70, 105)
# Fewer proposals than the config's, to be quick, and so large samples that all is in them: nothing is left to chance.
SMALL = ["rpn.post_nms_test=24", "rpn.post_nms_train=24", "rpn.sample_size=9000", "roi.sample_size=9000"]
MEAN = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
NUM_CLASSES = 80


class Twin:
    """detectron2's GeneralizedRCNN with Res5ROIHeads: `STRIDE_IN_1X1`, FrozenBN, ROIAlignV2, plain L1."""

    def __init__(self, state):
        self.state = state

    def conv_norm(self, x, name, stride=1, padding=0):
        weight, bias, mean, var = (
            self.state[f"{name}.norm.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = F.conv2d(x, self.state[f"{name}.weight"], None, stride, padding)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)

    def stage(self, x, name, stride):
        block = 0
        while f"{name}.{block}.conv1.weight" in self.state:
            start, step = f"{name}.{block}", stride if block == 0 else 1
            out = F.relu(self.conv_norm(x, f"{start}.conv1", step))
            out = F.relu(self.conv_norm(out, f"{start}.conv2", 1, 1))
            out = self.conv_norm(out, f"{start}.conv3")
            x = F.relu(out + (self.conv_norm(x, f"{start}.shortcut", step) if block == 0 else x))
            block += 1
        return x

    def features(self, image_rgb):
        x = (image_rgb.flip(0).float() - MEAN)[None]
        x = F.max_pool2d(F.relu(self.conv_norm(x, "backbone.stem.conv1", 2, 3)), 3, 2, 1)
        for stage, stride in ((2, 1), (3, 2), (4, 2)):
            x = self.stage(x, f"backbone.res{stage}", stride)
        return x

    def rpn(self, features):
        def layer(x, name, padding=0):
            start = f"proposal_generator.rpn_head.{name}"
            return F.conv2d(x, self.state[f"{start}.weight"], self.state[f"{start}.bias"], padding=padding)

        hidden = F.relu(layer(features, "conv", 1))
        logits = layer(hidden, "objectness_logits").permute(0, 2, 3, 1).flatten()
        deltas = layer(hidden, "anchor_deltas")
        _, _, height, width = deltas.shape
        deltas = deltas.view(1, -1, 4, height, width).permute(0, 3, 4, 1, 2).reshape(-1, 4)
        cells = []
        for size in (32, 64, 128, 256, 512):
            for ratio in (0.5, 1.0, 2.0):
                w = math.sqrt(size**2 / ratio)
                h = ratio * w
                cells.append([-w / 2, -h / 2, w / 2, h / 2])
        y, x = torch.meshgrid(torch.arange(height) * 16.0, torch.arange(width) * 16.0, indexing="ij")
        shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
        return logits, deltas, (shifts + torch.tensor(cells)).reshape(-1, 4)

    def proposals(self, logits, deltas, anchors, pre_nms, post_nms):
        scores, best = logits.topk(min(pre_nms, len(logits)))
        boxes = clip(apply_deltas(deltas[best], anchors[best], (1, 1, 1, 1)))
        keep = (boxes[:, 2] - boxes[:, 0] > 0) & (boxes[:, 3] - boxes[:, 1] > 0)
        boxes, scores = boxes[keep], scores[keep]
        return boxes[nms(boxes, scores, 0.7)[:post_nms]]

    def maps(self, features, rois):
        indexed = torch.cat([torch.zeros(len(rois), 1), rois], dim=1)
        pooled = roi_align(features, indexed, (14, 14), 1 / 16, sampling_ratio=0, aligned=True)
        return self.stage(pooled, "roi_heads.res5", 2)

    def mask_logits(self, maps, labels):
        """MaskRCNNConvUpsampleHead, and of each region the mask of its class."""
        start, x, number = "roi_heads.mask_head", maps, 1
        while f"{start}.mask_fcn{number}.weight" in self.state:
            name = f"{start}.mask_fcn{number}"
            x = F.relu(F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], padding=1))
            number += 1
        x = F.conv_transpose2d(x, self.state[f"{start}.deconv.weight"], self.state[f"{start}.deconv.bias"], stride=2).relu()
        x = F.conv2d(x, self.state[f"{start}.predictor.weight"], self.state[f"{start}.predictor.bias"])
        return x[torch.arange(len(labels)), labels]

    def head(self, features, rois):
        vectors = self.maps(features, rois).mean(dim=[2, 3])
        start = "roi_heads.box_predictor"
        return (
            F.linear(vectors, self.state[f"{start}.cls_score.weight"], self.state[f"{start}.cls_score.bias"]),
            F.linear(vectors, self.state[f"{start}.bbox_pred.weight"], self.state[f"{start}.bbox_pred.bias"]),
        )

    def detect(self, image, post_nms):
        features = self.features(image)
        objectness, anchor_deltas, anchors = self.rpn(features)
        rois = self.proposals(objectness, anchor_deltas, anchors, 6000, post_nms)
        logits, deltas = self.head(features, rois)
        scores = logits.softmax(dim=1)[:, :-1]
        boxes = apply_deltas(deltas.view(-1, 4), rois.repeat_interleave(NUM_CLASSES, 0), (10, 10, 5, 5))
        boxes = clip(boxes).view(-1, NUM_CLASSES, 4)
        mask = scores > 0.05
        boxes, scores, labels = boxes[mask], scores[mask], mask.nonzero()[:, 1]
        keep = batched_nms(boxes, scores, labels, 0.5)[:100]
        # Its post-processing drops boxes that clipping left empty.
        keep = keep[(boxes[keep, 2:] > boxes[keep, :2]).all(dim=1)]
        return boxes[keep], scores[keep], labels[keep]

    def masks(self, image, boxes, labels):
        """Probabilities at the pixels' centres (D, H, W)."""
        probabilities = self.mask_logits(self.maps(self.features(image), boxes), labels).sigmoid()
        return by_grid(probabilities, boxes, *SIZE_HW)

    def losses(self, image, gt_boxes, gt_labels, gt_masks, post_nms, rpn_sample):
        features = self.features(image)
        logits, deltas, anchors = self.rpn(features)
        iou = box_iou(gt_boxes, anchors)
        best, matched = iou.max(dim=0)
        labels = torch.full((len(anchors),), -1)
        labels[best < 0.3] = 0
        labels[best >= 0.7] = 1
        labels[(iou == iou.max(dim=1).values[:, None]).any(dim=0)] = 1
        positive = labels == 1
        wanted = get_deltas(anchors[positive], gt_boxes[matched[positive]], (1, 1, 1, 1))
        valid = labels >= 0
        objectness = F.binary_cross_entropy_with_logits(logits[valid], labels[valid].float(), reduction="sum")
        rpn = objectness / rpn_sample, (deltas[positive] - wanted).abs().sum() / rpn_sample
        rois = torch.cat([self.proposals(logits, deltas, anchors, 12000, post_nms), gt_boxes])
        best, matched = box_iou(gt_boxes, rois).max(dim=0)
        classes = torch.where(best >= 0.5, gt_labels[matched], NUM_CLASSES)
        class_logits, box_deltas = self.head(features, rois)
        positive = (classes < NUM_CLASSES).nonzero()[:, 0]
        found = box_deltas.view(-1, NUM_CLASSES, 4)[positive, classes[positive]]
        wanted = get_deltas(rois[positive], gt_boxes[matched[positive]], (10, 10, 5, 5))
        # BitMasks.crop_and_resize
        indexed = torch.cat([matched[positive, None].float(), rois[positive]], dim=1)
        cells = roi_align(gt_masks[:, None].float(), indexed, (14, 14), 1.0, sampling_ratio=0, aligned=True)[:, 0] >= 0.5
        mask_logits = self.mask_logits(self.maps(features, rois[positive]), classes[positive])
        masks = F.binary_cross_entropy_with_logits(mask_logits, cells.float())
        return *rpn, F.cross_entropy(class_logits, classes), (found - wanted).abs().sum() / len(classes), masks


def clip(boxes):
    height, width = SIZE_HW
    return torch.stack(
        [boxes[:, 0].clamp(0, width), boxes[:, 1].clamp(0, height), boxes[:, 2].clamp(0, width), boxes[:, 3].clamp(0, height)],
        1,
    )


def centers(boxes):
    sizes = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + 0.5 * sizes, sizes


def apply_deltas(deltas, boxes, weights):
    center, sizes = centers(boxes)
    shift, log_ratio = deltas[:, :2] / torch.tensor(weights[:2]), deltas[:, 2:] / torch.tensor(weights[2:])
    center = shift * sizes + center
    sizes = log_ratio.clamp(max=math.log(1000 / 16)).exp() * sizes
    return torch.cat([center - 0.5 * sizes, center + 0.5 * sizes], dim=1)


def get_deltas(boxes, targets, weights):
    center, sizes = centers(boxes)
    target_center, target_sizes = centers(targets)
    return torch.cat([(target_center - center) / sizes, (target_sizes / sizes).log()], dim=1) * torch.tensor(weights)


@pytest.fixture(scope="module")
def twins():
    """detectron2's twin, and ours from the same tensors as a zoo file holds them."""
    torch.manual_seed(0)
    state = detectron2_detector(50, NUM_CLASSES)
    state |= detectron2_mask_head(2048, NUM_CLASSES, 0)
    contents = {"model": arrays_of(state, ["pixel_mean", "pixel_std"]), "__author__": "Detectron2"}
    conversion = convert(contents, "model_final.pkl", overrides=SMALL)
    checkpoint = conversion.checkpoint
    model, mask = (checkpoint.metadata.config[section] for section in ("model", "mask"))
    assert (model["mask"], mask["targets"], mask["pasting"]) == (True, "hard", "grid")
    side = min(SIZE_HW)
    config = load_config(CONFIGS / "coco_r50_c4_mask.yaml", [*SMALL, f"test.shorter_side={side}"])
    ours = Detector(config)
    ours.load_state_dict(checkpoint.state)
    ours.preprocessing = checkpoint.metadata.preprocessing
    return Twin(state), ours.eval()


@pytest.fixture(scope="module")
def image():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, *SIZE_HW), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_detections(twins, image):
    twin, ours = twins
    boxes, scores, labels = twin.detect(image, 24)
    assert len(scores) > 10
    (found,) = ours.predict([image])
    torch.testing.assert_close(found.labels, labels)
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.boxes, boxes, rtol=0, atol=1e-3)
    same_masks(found.masks.decode(), twin.masks(image, boxes, labels))


@torch.no_grad()
def test_detections_in_an_image_that_is_made_smaller(twins):
    """detectron2 resizes with Pillow, and gives boxes in the pixels of the image."""
    twin, ours = twins
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (2 * SIZE_HW[0], 2 * SIZE_HW[1], 3), dtype=torch.uint8, generator=generator).numpy()
    small = np.array(Image.fromarray(pixels).resize(SIZE_HW[::-1], Image.Resampling.BILINEAR))
    boxes, scores, labels = twin.detect(torch.from_numpy(small).permute(2, 0, 1), 24)
    assert len(scores) > 10
    (found,) = ours.predict([pixels])
    torch.testing.assert_close(found.labels, labels)
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.boxes, 2 * boxes, rtol=0, atol=1e-3)


@torch.no_grad()
def test_losses(twins, image):
    twin, ours = twins
    gt_boxes = torch.tensor([[5.0, 8.0, 60.0, 66.0], [40.0, 10.0, 100.0, 50.0], [70.0, 40.0, 95.0, 69.0]])
    gt_labels = torch.tensor([3, 79, 0])
    gt_masks = ellipses(gt_boxes, SIZE_HW)
    wanted = twin.losses(image, gt_boxes, gt_labels, gt_masks, 24, 9000)
    losses = ours(Batch(image[None], [SIZE_HW], [Target(gt_boxes, gt_labels, torch.zeros(0, 4), masks=gt_masks)]))
    names = ["loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box", "loss_mask"]
    assert all(loss > 1e-3 for loss in wanted)
    torch.testing.assert_close([losses[name] for name in names], list(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "backbone", "num_classes", "mask"),
    [
        ("coco_r50_c4", "resnet50", 80, False),
        ("coco_r101_c4", "resnet101", 80, False),
        ("voc_r50_c4", "resnet50", 20, False),
        ("coco_r50_c4_mask", "resnet50", 80, True),
    ],
)
def test_configs_say_what_the_conversion_says(name, backbone, num_classes, mask):
    config = load_config(CONFIGS / f"{name}.yaml")
    assert (config.model.backbone, len(config.data.class_names)) == (backbone, num_classes)
    assert (config.model.neck, config.model.mask) == ("none", mask)
    assert (config.model.stride_in_1x1, config.model.stem_pool, config.data.longer_side) == (True, "pad1", 1333)
    assert config.data.resizing == DETECTRON2_SETTINGS["data"]["resizing"] == "pillow"
    for section, values in DETECTRON2_SETTINGS.items():
        if section == "data":
            continue
        found = getattr(config, section).model_dump(mode="json")
        assert found == type(getattr(config, section)).model_validate(values).model_dump(mode="json")
