"""The head learns from its own boxes (`roi.refined_iou`): against a plain loop over RoIs, image by image."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detection.config import Config
from detection.modeling.boxes import decode_boxes, encode_boxes
from detection.modeling.matching import IGNORED
from detection.modeling.sampled_rois import SampledRois, refined_rois
from detection.structures import Batch, Target, pad_images
from tests.small_detector import detector, noise, pyramid

NOTHING = torch.zeros(0, 4)
BOXES = torch.tensor([[8.0, 8, 40, 40], [20, 10, 60, 30], [50, 34, 78, 62]])
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "c4": (detector, {}),
    "c4, max pooling, context": (detector, {"roi": {"pooling": "max", "context": True}}),
    "c4, masks, context": (detector, {"model": {"mask": True}, "roi": {"context": True, "unused_outputs": 2}}),
    "pyramid": (pyramid, {}),
    "pyramid, masks, context": (
        pyramid,
        {"model": {"mask": True}, "mask": {"channels": 8, "convs": 1}, "roi": {"context": True}},
    ),
}


def model_of(kind: str, refined_iou: float):
    """One whose boxes move, so that some are better than their RoIs, and some worse."""
    make, sections = KINDS[kind]
    torch.manual_seed(3)
    model = make(**{**sections, "roi": {"sample_size": 32, **sections.get("roi", {}), "refined_iou": refined_iou}})
    head = model.roi_head
    with torch.no_grad():
        vectors = head.vectors(model.extract(batch()), [BOXES, BOXES, BOXES])
    for layer, wanted in ((head.class_scores, 1.0), (head.box_deltas, 1.0)):
        nn.init.normal_(layer.weight, std=wanted / float(vectors.norm(dim=1).mean()))
    return model


def batch() -> Batch:
    """Three images: one that knows all classes, with an ignored region; one that knows no dogs; one without objects."""
    sizes = [(64, 80), (48, 64), (64, 64)]
    masks = torch.zeros(3, 64, 80, dtype=torch.bool)
    masks[:2, 12:28, 22:38] = True
    targets = [
        Target(BOXES, torch.tensor([0, 1, 1]), torch.tensor([[0.0, 0, 16, 64]]), masks=masks),
        Target(BOXES[:1], torch.tensor([0]), NOTHING, known=torch.tensor([True, False])),
        Target(NOTHING, torch.zeros(0, dtype=torch.long), NOTHING),
    ]
    torch.manual_seed(0)
    return Batch(pad_images([noise(*size) for size in sizes]), sizes, targets)


def losses_and_sample(model, monkeypatch) -> tuple[dict[str, Tensor], list[SampledRois]]:
    """Of one training step, always of the same sample."""
    samples: list[SampledRois] = []
    draw = model.roi_head.sample_rois

    def drawn(proposals, targets):
        # Proposals of a random network are much alike: these are everywhere, and around objects.
        boxes = torch.rand(30, 4) * 32
        everywhere = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] + 4], dim=1)
        around = (BOXES.repeat(5, 1) + torch.randint(-4, 5, (15, 4))).clamp(0, 64)
        first, *others = draw([torch.cat([everywhere, around])] * len(targets), targets)
        in_ignored = sample_of([0.0, 40, 12, 60], labels=[2])  # its box is there, too
        samples.extend([SampledRois(*(torch.cat(parts) for parts in zip(first, in_ignored, strict=True))), *others])
        return samples

    monkeypatch.setattr(model.roi_head, "sample_rois", drawn)
    torch.manual_seed(1)
    return model(batch()), samples


def iou(a: list[float], b: list[float]) -> float:
    width, height = (min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis]) for axis in (0, 1))
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def learnt_of(box: Tensor, target: Target, threshold: float) -> tuple[int, Tensor] | None:
    """The label of a box and the object it belongs to; None where it is not learnt from."""
    overlaps = [iou(box.tolist(), other) for other in target.boxes.tolist()]
    best = max(range(len(overlaps)), key=lambda index: overlaps[index], default=0)
    if overlaps and overlaps[best] >= threshold:
        return int(target.labels[best]), target.boxes[best]
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    for region in target.ignored:
        shared = (torch.minimum(box[2:], region[2:]) - torch.maximum(box[:2], region[:2])).clamp(min=0).prod()
        if float(shared) / area >= 0.5:
            return None
    return 2, box


def plain_losses(model, samples: list[SampledRois], threshold: float) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Both losses of the refined boxes, RoI by RoI, only those computed that count; and what was met."""
    images, head = batch(), model.roi_head
    features = model.extract(images)
    logits, deltas = head(features, [sample.rois for sample in samples], images.sizes_hw)
    rois: list[list[Tensor]] = [[] for _ in samples]
    learnt, rows = [], iter(zip(logits.detach(), deltas.detach(), strict=True))
    met = {"foreground": 0, "background": 0, "dropped": 0, "changed": 0}
    for number, (sample, (height, width), target) in enumerate(zip(samples, images.sizes_hw, images.targets, strict=True)):
        for roi, label in zip(sample.rois, sample.labels.tolist(), strict=True):
            own_logits, own_deltas = next(rows)
            chosen = label if label < 2 else int(own_logits[1] > own_logits[0])
            box = decode_boxes(own_deltas[chosen][None], roi[None], head.config.delta_std)[0]
            box = torch.stack(
                [box[0].clamp(0, width), box[1].clamp(0, height), box[2].clamp(0, width), box[3].clamp(0, height)]
            )
            found = learnt_of(box, target, threshold) if box[0] < box[2] and box[1] < box[3] else None
            met["dropped"] += found is None
            if found is not None:
                rois[number].append(box)
                learnt.append((*found, box, target.known))
                met["foreground" if found[0] < 2 else "background"] += 1
                met["changed"] += (found[0] < 2) != (label < 2)
    stacked = [torch.stack(own) if own else NOTHING for own in rois]
    logits, deltas = head(features, stacked, images.sizes_hw)
    class_loss, box_loss = logits.sum() * 0, deltas.sum() * 0
    for own_logits, own_deltas, (label, gt_box, box, known) in zip(logits, deltas, learnt, strict=True):
        counted = [k for k in range(len(own_logits)) if k >= 2 or label < 2 or known is None or bool(known[k])]
        class_loss = class_loss + own_logits[counted].logsumexp(0) - own_logits[label]
        if label < 2:
            away = (own_deltas[label] - encode_boxes(gt_box, box, head.config.delta_std)).abs()
            box_loss = box_loss + torch.where(away < 1, away**2 / 2, away - 0.5).sum()
    return class_loss / len(learnt), box_loss / len(learnt), met


@pytest.mark.parametrize("threshold", [0.5, 0.6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_loop_gives_the_same_losses_and_gradients(kind, threshold, monkeypatch):
    model = model_of(kind, threshold)
    losses, samples = losses_and_sample(model, monkeypatch)
    class_loss, box_loss, met = plain_losses(model, samples, threshold)
    assert all(met.values()), met
    torch.testing.assert_close(losses["loss_class_refined"], class_loss / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["loss_box_refined"], box_loss / 2, rtol=1e-4, atol=1e-5)
    weights = [model.roi_head.class_scores.weight, model.roi_head.box_deltas.weight, *model.roi_head.conv5.parameters()]
    weights = [weight for weight in weights if weight.requires_grad]
    found = torch.autograd.grad(losses["loss_class_refined"] + losses["loss_box_refined"], weights, allow_unused=True)
    expected = torch.autograd.grad((class_loss + box_loss) / 2, weights, allow_unused=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_pass_is_the_one_without_it_and_counts_half(kind, monkeypatch):
    plain, _ = losses_and_sample(model_of(kind, 0), monkeypatch)
    losses, _ = losses_and_sample(model_of(kind, 0.6), monkeypatch)
    assert losses.keys() - plain.keys() == {"loss_class_refined", "loss_box_refined"}
    halves = {"loss_class", "loss_box"}
    assert all(torch.equal(losses[name] * (1 + (name in halves)), value) for name, value in plain.items())


def test_all_layers_learn(monkeypatch):
    losses, _ = losses_and_sample(model := model_of("c4", 0.6), monkeypatch)
    torch.stack(list(losses.values())).sum().backward()
    missing = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert not missing


def sample_of(*boxes: list[float], labels: list[int]) -> SampledRois:
    rois = torch.tensor(boxes)
    return SampledRois(rois, torch.tensor(labels), rois, torch.zeros(len(rois), dtype=torch.long))


def test_by_hand():
    """Deltas of one class move by a quarter, those of the other one away; RoIs of 20 x 20 in an image of 40 x 100."""
    config = Config.model_validate({"roi": {"refined_iou": 0.6, "delta_std": [1, 1, 1, 1]}}).roi
    sample = sample_of([0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20], [60, 0, 80, 20], labels=[0, 0, 2, 2])
    deltas = torch.zeros(4, 2, 4)
    deltas[0, 0, 0], deltas[0, 1] = 0.25, 5  # the object's class, though the other one is likelier
    deltas[1, 0, 0] = -0.5  # from IoU 1 to 1 / 3
    deltas[2, 1, 0] = 2  # out of the image
    deltas[3, 1, 3] = math.log(2)  # the likelier class: 60, -10, 80, 30
    logits = torch.tensor([[0.0, 9, 0]] * 4)
    target = Target(torch.tensor([[0.0, 0, 20, 20], [40, 0, 60, 20]]), torch.tensor([0, 1]), NOTHING)
    [found] = refined_rois([sample], logits, deltas, [(40, 100)], [target], config)
    assert found.rois.tolist() == [[5, 0, 25, 20], [30, 0, 50, 20], [80, 0, 100, 20], [60, 0, 80, 30]]
    assert found.labels.tolist() == [0, 2, IGNORED, 2]  # 15 / 25 is 0.6
    assert found.gt_boxes[0].tolist() == [0, 0, 20, 20]
    covered = Target(target.boxes, target.labels, torch.tensor([[60.0, 0, 70, 40]]))
    [found] = refined_rois([sample], logits, deltas, [(40, 100)], [covered], config)
    assert found.labels.tolist() == [0, 2, IGNORED, IGNORED]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_not_finite_make_no_region(value):
    """The loss of the first pass says that they are not; until then nothing fails."""
    config = Config.model_validate({"roi": {"refined_iou": 0.5}}).roi
    sample = sample_of([0, 0, 20, 20], [10, 10, 30, 30], labels=[1, 2])
    target = Target(torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([1]), NOTHING)
    [found] = refined_rois([sample], torch.zeros(2, 3), torch.full((2, 2, 4), value), [(40, 40)], [target], config)
    assert found.rois.isfinite().all() and (found.rois[:, 2:] > found.rois[:, :2]).all()


@pytest.mark.parametrize("objects", [0, 1])
def test_without_rois_or_with_ignored_ones_alone(objects, monkeypatch):
    """Nothing counts: losses of zero, which have a gradient."""
    model = model_of("c4", 0.6)
    everything = torch.tensor([[0.0, 0, 80, 64]])
    target = Target(NOTHING, torch.zeros(0, dtype=torch.long), everything)
    sample = (
        sample_of(*[[0.0, 0, 20, 20]] * objects, labels=[2] * objects)
        if objects
        else SampledRois(NOTHING, target.labels, NOTHING, target.labels)
    )
    monkeypatch.setattr(model.roi_head, "sample_rois", lambda *_: [sample])
    losses = model(Batch(noise(64, 80)[None], [(64, 80)], [target]))
    assert losses["loss_class_refined"] == losses["loss_box_refined"] == 0
    (losses["loss_class_refined"] + losses["loss_box_refined"]).backward()
    assert model.roi_head.class_scores.weight.grad.abs().sum() == 0
