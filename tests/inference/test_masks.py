"""Masks of a detector's predictions: plain, in views, in tiles, by ensembles."""

import pytest
import torch
import torch.nn.functional as F

from detection import Ensemble
from detection.inference.detector import Detector, detect_plainly, views_of
from detection.inference.pasting import paste_masks
from detection.inference.tiling import merge_windows
from detection.inference.views import segment_in_views
from detection.masks import Masks
from detection.structures import Batch, Detections
from detection.tiles import Window
from tests.modeling.test_mask_head import C4, FORMS, PYRAMID
from tests.small_detector import detector, noise, select_one
from tests.there import there


def model_of(sections: dict, seed: int = 0, **test) -> Detector:
    """With masks of which about half of the pixels are the object's."""
    torch.manual_seed(seed)
    found = detector(**{**sections, "test": {"max_detections": 8, **test}}).eval()
    assert found.roi_head.mask_head is not None
    torch.nn.init.normal_(found.roi_head.mask_head.predictor.weight)
    return found


@pytest.fixture
def images() -> list:
    return [noise(64, 80).permute(1, 2, 0).numpy() for _ in range(2)]


@FORMS
def test_the_masks_of_the_final_boxes(sections, images):
    """Step by step: select, pool the boxes again, take the class's channel, paste."""
    model = model_of(sections)
    found = model.predict(images)
    assert all(each.masks is not None and len(each.masks) == len(each) == 8 for each in found)
    assert all(there(each.masks).size_hw == (64, 80) and there(each.masks).areas.sum() > 0 for each in found)
    with torch.inference_mode():
        (view,) = views_of([model], images)
        regions = view.classify(view.propose())
        features = view.extract(64, [1])
        chosen = select_one(regions.scores[1], regions.boxes[1], (64, 80), model.config.test, 0.0)
        logits = there(model.roi_head.mask_head)(model.roi_head.mask_maps(features, [chosen.boxes]))
        each = logits.sigmoid()[range(8), chosen.labels]
    assert paste_masks(each, chosen.boxes, (64, 80)) == found[1].masks


@pytest.mark.parametrize(
    ("sections", "test", "views"),
    [
        (C4, {}, 1),
        (C4, {"refinement_passes": 2}, 1),
        (C4, {"refinement_passes": 1, "flip": True}, 2),
        (PYRAMID, {"refinement_passes": 1}, 1),
    ],
)
def test_conv5_begins_once_for_each_map(sections, test, views, images, monkeypatch):
    """What comes before pooling is shared by all passes over the boxes and by the masks."""
    model = model_of(sections, batch_size=2, **test)
    conv5 = model.roi_head.conv5
    before_pooling, seen = conv5.before_pooling, []

    def counted(features):
        seen.append(features.shape)
        return before_pooling(features)

    monkeypatch.setattr(conv5, "before_pooling", counted)
    assert all(each.masks for each in model.predict(images))
    assert len(seen) == views * len(model.roi_head.strides)


@torch.inference_mode()
def test_what_has_begun_changes_no_bit():
    model = detector(model={"backbone": "resnet50", "mask": True}).eval()
    features = model.extract(Batch(torch.stack([noise(64, 80), noise(64, 80)]), [(64, 80)] * 2))
    boxes = [torch.tensor([[3.0, 5, 40, 30], [0, 0, 80, 64]]), torch.tensor([[20.0, 8, 70, 60]])]
    begun = model.roi_head.begin(features)
    assert begun is not None and len(begun) == 2, "a bottleneck's first convolution and its shortcut"
    assert torch.equal(model.roi_head.vectors(features, boxes, begun), model.roi_head.vectors(features, boxes))
    assert torch.equal(model.roi_head.mask_maps(features, boxes, begun), model.roi_head.mask_maps(features, boxes))


@FORMS
def test_batched_is_single(sections, images):
    model = model_of(sections, batch_size=2)
    together = model.predict(images)
    alone = [model.predict(image)[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)
        assert one.masks is not None and other.masks is not None
        assert (one.masks.decode() != other.masks.decode()).float().mean() < 1e-3, "but for pixels at the threshold"


@FORMS
def test_no_detection(sections, images):
    for found in model_of(sections, score_threshold=1.0).predict(images):
        assert len(found) == 0 and found.masks == Masks((64, 80))
    for found in model_of(sections, score_threshold=1.0, flip=True).predict(images):
        assert len(found) == 0 and found.masks == Masks((64, 80))


@FORMS
def test_one_view_gives_what_the_plain_way_gives(sections, images):
    model = model_of(sections)
    with torch.inference_mode():
        plain = detect_plainly(model, images)
        (view,) = views_of([model], images)
        chosen = [select_one(s, b, (64, 80), model.config.test, 0.0) for s, b in zip(*_parts(view), strict=True)]
        masks = segment_in_views([view], (64, 80), [each.boxes for each in chosen], [each.labels for each in chosen])
    for each, own, found in zip(chosen, masks, plain, strict=True):
        assert paste_masks(own, each.boxes, (64, 80)) == found.masks


def _parts(view):
    found = view.classify(view.propose())
    return found.scores, found.boxes


@FORMS
@pytest.mark.parametrize("scale_merge", ["pool", "conv5"])
def test_several_scales_mirrored_refined_and_voted(sections, scale_merge, images):
    model = model_of(sections, scales=[48, 64], scale_merge=scale_merge, flip=True, refinement_passes=1, voting=True)
    (found, _) = model.predict(images)
    assert found.masks is not None and len(found.masks) == len(found) == 8
    with torch.inference_mode():
        views = views_of([model], images)
        boxes, labels = [found.boxes, found.boxes[:0]], [found.labels, found.labels[:0]]
        parts = [view.segment(boxes, labels)[0] for view in views]
        assert paste_masks((parts[0] + parts[1]) / 2, found.boxes, (64, 80)) == found.masks


def test_a_mirrored_view_mirrors_the_masks_back(images):
    """The mirrored view of an image is the plain view of its mirror image."""
    model = model_of(C4)
    mirrored = [image[:, ::-1] for image in images]
    boxes, labels = torch.tensor([[5.0, 6, 40, 50]]), torch.tensor([1])
    with torch.inference_mode():
        _, back = views_of([model_of(C4, flip=True)], images)
        (plain,) = views_of([model], mirrored)
        expected = plain.segment([torch.tensor([[40.0, 6, 75, 50]])] * 2, [labels] * 2)[0].flip(2)
        torch.testing.assert_close(back.segment([boxes] * 2, [labels] * 2)[0], expected)


def test_an_ensemble_of_c4_and_a_pyramid(images):
    """Masks of 6 and of 10 cells: the means at 10."""
    members = [model_of(C4), model_of(PYRAMID, seed=1)]
    (found, _) = Ensemble(members).predict(images)
    with torch.inference_mode():
        boxes, labels = [found.boxes, found.boxes[:0]], [found.labels, found.labels[:0]]
        small, large = (view.segment(boxes, labels)[0] for view in views_of(members, images))
    resized = F.interpolate(small[:, None], (10, 10), mode="bilinear", align_corners=False)[:, 0]
    assert paste_masks((resized + large) / 2, found.boxes, (64, 80)) == found.masks


def test_members_without_masks_leave_them_to_the_others(images):
    plain, with_masks = detector(test={"max_detections": 8}).eval(), model_of(C4)
    (found, _) = Ensemble([plain, with_masks]).predict(images)
    assert found.masks is not None and len(found.masks) == 8
    assert all(each.masks is None for each in Ensemble([plain, plain]).predict(images))
    assert all(each.masks is None for each in plain.predict(images))


def test_masks_of_tiles_are_moved_to_the_image():
    windows = [Window(0, 0, 10, 8), Window(6, 0, 10, 8)]
    bitmaps = torch.zeros(2, 8, 10, dtype=torch.bool)
    bitmaps[0, 2:5, 1:4], bitmaps[1, 3:7, 6:9] = True, True
    boxes = [torch.tensor([[1.0, 2, 4, 5]]), torch.tensor([[6.0, 3, 9, 7]])]
    found = [
        Detections(box, torch.tensor([score]), torch.tensor([0]), masks=Masks.from_bitmaps(bitmap[None]))
        for box, score, bitmap in zip(boxes, (0.5, 0.9), bitmaps, strict=True)
    ]
    model = detector()
    merged = merge_windows(found, windows, (8, 16), model.config.test)
    assert merged.scores.tolist() == pytest.approx([0.9, 0.5]) and merged.masks is not None
    expected = torch.zeros(2, 8, 16, dtype=torch.bool)
    expected[0, 3:7, 12:15], expected[1, 2:5, 1:4] = True, True
    assert torch.equal(merged.masks.decode(), expected)
    assert merge_windows(found[:1], windows[:1], (8, 10), model.config.test) is found[0]
    without = [Detections(each.boxes, each.scores, each.labels) for each in found]
    assert merge_windows(without, windows, (8, 16), model.config.test).masks is None


@FORMS
def test_tiles_of_a_model(sections):
    model = model_of(sections, tile=48, voting=True)
    (found,) = model.predict(noise(70, 90))
    assert found.masks is not None and found.masks.size_hw == (70, 90) and len(found.masks) == len(found) > 0
    inside = found.masks.boxes()
    assert (inside[:, 2] <= 90).all() and (inside[:, 3] <= 70).all()


def test_masks_in_the_images_own_pixels(images):
    """Found at 64 x 80, in an image of twice the size."""
    model = model_of(C4)
    large = images[0].repeat(2, axis=0).repeat(2, axis=1)
    (found,) = model.predict(large)
    assert found.masks is not None and found.masks.size_hw == (128, 160)
    boxes = found.masks.boxes()
    assert (boxes[:, :2] >= found.boxes[:, :2] - 1).all() and (boxes[:, 2:] <= found.boxes[:, 2:] + 1).all()
