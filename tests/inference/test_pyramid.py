"""Every way of predicting with a pyramid equals a plain loop over images and regions, and C4 and pyramid work together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from detection import Detector
from detection.config import Config
from detection.inference.ensemble import Ensemble
from detection.inference.refinement import likeliest_boxes
from detection.inference.views import View
from detection.modeling.boxes import clip_boxes, nonempty_boxes
from detection.modeling.levels import levels_of
from detection.modeling.roi_head import pool_rois
from detection.structures import Batch, Detections
from tests.small_detector import detector, noise, pyramid, select_one

SIZE_HW = (70, 90)
AS_IT_IS: dict[str, Any] = {"shorter_side": 70, "longer_side": 100, "max_detections": 30}


def pooled_one_by_one(model: Detector, features: tuple[torch.Tensor, ...], boxes: torch.Tensor) -> torch.Tensor:
    """The head's vectors of one image's regions, each by itself from the map of its size."""
    roi, vectors = model.config.roi, []
    for box in boxes:
        level = int(levels_of(box[None], model.roi_head.strides)[0])
        stride = model.roi_head.strides[level]
        cells = pool_rois(features[level], [box[None]], roi.pool_size, stride, roi.pooling, roi.sampling_ratio)
        vectors.append(model.roi_head.conv5(cells))
    return torch.cat(vectors)


def plain_classify(model: Detector, features: tuple[torch.Tensor, ...], boxes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    vectors = pooled_one_by_one(model, features, boxes)
    context = None
    if model.config.roi.context:
        whole = torch.tensor([[0.0, 0, SIZE_HW[1], SIZE_HW[0]]])
        context = pooled_one_by_one(model, features, whole).expand(len(boxes), -1)
    return model.roi_head.decode(*model.roi_head.logits_and_deltas(vectors, context), boxes)


def plain_loop(model: Detector, image: torch.Tensor) -> Detections:
    """One image through the network's layers: proposals, and as many passes as the config asks for."""
    features = model.extract(Batch(image[None], [SIZE_HW]))
    (regions,) = model.propose(features, [SIZE_HW])
    rounds = []
    for _ in range(model.config.test.refinement_passes + 1):
        scores, boxes = plain_classify(model, features, regions)
        rounds.append((scores, boxes))
        regions = clip_boxes(likeliest_boxes(scores, boxes), SIZE_HW)
        regions = regions[nonempty_boxes(regions)]
    all_scores, all_boxes = (torch.cat(parts) for parts in zip(*rounds, strict=True))
    return select_one(all_scores, all_boxes, SIZE_HW, model.config.test, model.score_threshold)


def assert_same(found: Detections, expected: Detections) -> None:
    assert len(found) == len(expected) > 0 and found.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("test", "roi"),
    [
        ({}, {}),
        ({"refinement_passes": 1}, {}),
        ({"voting": True}, {}),
        ({"refinement_passes": 2, "voting": True}, {"context": True, "pooling": "max"}),
    ],
)
@torch.inference_mode()
def test_predict_equals_a_plain_loop(test: dict[str, Any], roi: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = pyramid(test={**AS_IT_IS, **test}, roi=roi).eval()
    images = [noise(*SIZE_HW) for _ in range(2)]
    for found, image in zip(model.predict(images), images, strict=True):
        assert_same(found, plain_loop(model, image))


@torch.inference_mode()
def test_a_mirrored_view_is_the_mean_of_both() -> None:
    model = pyramid(test=AS_IT_IS).eval()
    image = noise(*SIZE_HW)
    array = image.permute(1, 2, 0).numpy()
    plain, mirrored = View(model, [array]), View(model, [array], mirrored=True)
    regions = plain.propose()
    flipped = View(model, [array[:, ::-1]])
    other = regions[0][:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1]) + torch.tensor([90.0, 0, 90, 0])
    torch.testing.assert_close(mirrored.classify(regions).scores[0], flipped.classify([other]).scores[0])
    model.use_test_config(model.config.test.model_copy(update={"flip": True}))
    assert len(model.predict([image])[0])


@pytest.mark.parametrize("order", [(detector, pyramid), (pyramid, detector)])
@torch.inference_mode()
def test_an_ensemble_of_c4_and_pyramid(order: tuple[Callable[..., Detector], ...]) -> None:
    members = [build(test=AS_IT_IS).eval() for build in order]
    image = noise(*SIZE_HW)
    features = [member.extract(Batch(image[None], [SIZE_HW])) for member in members]
    proposals = torch.cat([member.propose(maps, [SIZE_HW])[0] for member, maps in zip(members, features, strict=True)])
    scores, boxes = [], []
    for member, maps in zip(members, features, strict=True):
        found = member.classify(maps, [proposals], [SIZE_HW])
        scores.append(found.scores[0])
        boxes.append(found.boxes[0])
    config: Config = members[0].config
    expected = select_one(
        torch.stack(scores).mean(dim=0), torch.stack(boxes).mean(dim=0), SIZE_HW, config.test, members[0].score_threshold
    )
    assert_same(Ensemble(members).predict([image])[0], expected)
