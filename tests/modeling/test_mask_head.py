"""The mask head: its targets and loss by hand and against torchvision's, its two forms, and what it leaves alone."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.base import RegionHead
from backbones.errors import BackboneError
from detection.inference.pasting import paste_masks
from detection.masks import Masks, mask_iou
from detection.modeling.mask_head import mask_loss, mask_probabilities, mask_targets
from detection.modeling.parts import build_mask_head
from detection.structures import Batch, Target
from tests.small_detector import detector, noise

PYRAMID: dict[str, dict[str, Any]] = {
    "model": {"neck": "fpn", "mask": True},
    "rpn": {"anchor_sizes": [8, 16, 32, 64, 128]},
    "roi": {"pool_size": 3},
    "fpn": {"channels": 16, "head_channels": 16},
    "mask": {"channels": 8, "pool_size": 5, "convs": 1},
}
C4: dict[str, dict[str, Any]] = {"model": {"mask": True}, "mask": {"channels": 8}}
FORMS = pytest.mark.parametrize("sections", [C4, PYRAMID], ids=["c4", "fpn"])
BOXES = torch.tensor([[10.0, 10, 40, 40], [30.0, 20, 70, 60]])


def target(masks: Tensor | None, boxes: Tensor = BOXES) -> Target:
    return Target(boxes, torch.arange(len(boxes)) % 2, torch.zeros(0, 4), None, masks)


def two_masks() -> Tensor:
    masks = torch.zeros(2, 64, 80, dtype=torch.bool)
    masks[0, 10:40, 10:25] = True
    masks[1, 20:40, 30:70] = True
    return masks


def test_loss_and_gradient_by_hand():
    """Two RoIs of two cells' sides, one of which is not known: sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4."""
    logits = torch.zeros(2, 2, 2, 2)
    logits[0, 1] = torch.tensor([[0.0, math.log(3)], [0, 0]])
    logits[1, 0] = 7
    logits.requires_grad_()
    targets = torch.tensor([[[1.0, 1], [0, 0]]]).expand(2, 2, 2)
    loss = mask_loss(logits, torch.tensor([1, 0]), targets, torch.tensor([True, False]))
    torch.testing.assert_close(loss, torch.tensor((3 * math.log(2) + math.log(4 / 3)) / 4))
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0, 1], torch.tensor([[-1 / 2, -1 / 4], [1 / 2, 1 / 2]]) / 4)
    assert logits.grad[0, 0].abs().max() == 0 and logits.grad[1].abs().max() == 0


@pytest.mark.parametrize("known", [torch.zeros(0, dtype=torch.bool), torch.tensor([False, False])], ids=["none", "unknown"])
def test_without_a_known_mask_a_zero_with_a_gradient(known):
    logits = torch.full((len(known), 3, 2, 2), torch.inf, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(len(known), dtype=torch.long), torch.zeros(len(known), 2, 2), known)
    loss.backward()
    assert loss == 0 and logits.grad is not None and not logits.grad.isnan().any()


def test_targets_by_hand():
    """The left half of a box of 4 x 4 pixels in 2 x 2 cells."""
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 2:6, 2:4] = True
    roi = torch.tensor([[2.0, 2, 6, 6]])
    targets, known = mask_targets(masks, roi, torch.tensor([0]), 2, "hard")
    assert targets.tolist() == [[[1, 0], [1, 0]]] and known.tolist() == [True]
    # Half a pixel farther: the samples of the first cell's columns are at 2 and 3 (1, 1 and at 3.5 a half), ...
    soft, _ = mask_targets(masks, roi, torch.tensor([0]), 2, "soft")
    assert soft[0, 0].tolist() == [0.75, 0.0]


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_targets_as_torchvisions(kind):
    from torchvision.ops import roi_align

    masks = torch.rand(3, 50, 60) < 0.5
    masks[1] = False
    rois = torch.tensor([[3.0, 4, 44.5, 30], [10.2, 0, 59, 49], [20, 20, 20.4, 20.3], [0, 0, 60, 50]])
    matched = torch.tensor([2, 0, 1, 2])
    found, known = mask_targets(masks, rois, matched, 14, kind)
    rows = torch.cat([matched[:, None].float(), rois], dim=1)
    expected = roi_align(masks[:, None].float(), rows, (14, 14), 1.0, aligned=kind == "hard")[:, 0]
    assert torch.equal(found, (expected >= 0.5).float() if kind == "hard" else expected)
    assert known.tolist() == [True, True, False, True]


def test_images_without_masks_objects_or_rois():
    roi = torch.tensor([[0.0, 0, 4, 4]])
    for masks in (None, torch.zeros(0, 8, 8, dtype=torch.bool)):
        targets, known = mask_targets(masks, roi, torch.tensor([0]), 2, "hard")
        assert targets.shape == (1, 2, 2) and known.tolist() == [False]
    targets, known = mask_targets(two_masks(), roi[:0], torch.zeros(0, dtype=torch.long), 2, "hard")
    assert targets.shape == (0, 2, 2) and known.shape == (0,)


def test_loss_and_probabilities_as_torchvisions():
    from torchvision.models.detection.roi_heads import maskrcnn_inference, maskrcnn_loss

    masks, rois, matched = two_masks(), torch.cat([BOXES, BOXES + 3]), torch.tensor([0, 1, 0, 1])
    logits, labels = torch.randn(4, 3, 14, 14), torch.tensor([2, 1])
    expected = maskrcnn_loss(logits, [rois], [masks], [labels], [matched])
    targets, known = mask_targets(masks, rois, matched, 14, "soft")
    torch.testing.assert_close(mask_loss(logits, labels[matched], targets, known), expected)
    torch.testing.assert_close(
        mask_probabilities(logits, labels[matched]), maskrcnn_inference(logits, [labels[matched]])[0][:, 0]
    )


@FORMS
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_five_losses_and_their_gradients(sections, precision):
    model = detector(**sections)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        losses = model(Batch(noise(64, 80)[None], [(64, 80)], [target(two_masks())]))
    assert list(losses)[-1] == "loss_mask" and all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert losses["loss_mask"].item() == pytest.approx(math.log(2), abs=0.05), "of small random weights"
    losses["loss_mask"].backward()
    mask_head = model.roi_head.mask_head
    assert mask_head is not None
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in mask_head.parameters())
    assert next(model.trunk.parameters()).grad is None, "frozen"


@FORMS
@pytest.mark.parametrize(
    "empty", [target(None), target(torch.zeros(2, 64, 80, dtype=torch.bool)), target(None, torch.zeros(0, 4))]
)
def test_images_without_a_known_mask(sections, empty):
    losses = detector(**sections)(Batch(noise(64, 80)[None], [(64, 80)], [empty]))
    assert losses["loss_mask"] == 0
    sum(losses.values()).backward()


@FORMS
def test_the_other_losses_are_those_without_masks(sections):
    """The mask head is built last and sees what the others saw; C4's box losses, from the averages of maps, are equal to the
    bit."""
    batch = Batch(noise(64, 80)[None], [(64, 80)], [target(two_masks())])
    found = []
    model = detector(**sections)
    plain = detector(**{**sections, "model": {**sections["model"], "mask": False}})
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if "mask_head" not in key})
    for each in (plain, model):
        torch.manual_seed(1)
        found.append(each(batch))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert found[1].keys() - found[0].keys() == {"loss_mask"}


def test_c4_training_needs_no_second_pass(monkeypatch):
    model = detector(**C4)
    passes: list[int] = []
    conv5 = model.roi_head.conv5
    maps = conv5.maps

    def counted(cells):
        passes.append(len(cells))
        return maps(cells)

    monkeypatch.setattr(conv5, "maps", counted)
    model(Batch(noise(64, 80)[None], [(64, 80)], [target(two_masks())]))
    assert len(passes) == 1


def test_sizes():
    for sections, cells in ((C4, 6), (PYRAMID, 10)):
        model = detector(**sections)
        features = model.extract(Batch(noise(64, 96)[None], [(64, 96)]))
        masks = model.segment(features, [BOXES], [torch.tensor([1, 0])])
        assert [each.shape for each in masks] == [(2, cells, cells)]


def test_a_backbone_without_maps_is_refused():
    model = detector(**C4)
    with pytest.raises(BackboneError, match=r"resnet18 cannot predict masks \(model.mask=true\).*model.neck=fpn"):
        build_mask_head(model.config, model.trunk, RegionHead())
    with pytest.raises(BackboneError, match="RegionHead makes no maps"):
        RegionHead().maps(torch.zeros(1))


@FORMS
def test_two_discs_are_learnt(sections):
    """From features that stay as they are the head alone learns both masks; pasted they are the discs."""
    boxes = torch.tensor([[4.0, 6, 40, 42], [44.0, 20, 76, 52]])
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    discs = torch.stack([(x - 22) ** 2 + (y - 24) ** 2 < 18**2, (x - 60) ** 2 + (y - 36) ** 2 < 16**2])
    model = detector(**{**sections, "roi": {**sections.get("roi", {}), "pool_size": 10}})
    head = model.roi_head.mask_head
    assert head is not None
    labels, matched = torch.tensor([0, 1]), torch.tensor([0, 1])
    with torch.no_grad():
        features = model.extract(Batch(noise(64, 80)[None], [(64, 80)]))
        maps = model.roi_head.mask_maps(features, [boxes])
    maps = maps / maps.std()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        logits = head(maps)
        wanted, known = mask_targets(discs, boxes, matched, logits.shape[-1], "hard")
        loss = mask_loss(logits, labels, wanted, known)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pasted = paste_masks(mask_probabilities(head(maps), labels).detach(), boxes, (64, 80))
    assert (mask_iou(pasted, Masks.from_bitmaps(discs)).diagonal() > 0.8).all()
