"""The R-CNN's scores and boxes of proposals, against a plain loop over them."""

import pytest
import torch

from backbones import Preprocessing
from detection.config import LocTestConfig
from detection.errors import CheckpointError
from detection.localisation.merging import best_box
from detection.localisation.rescoring import rescore, warp_rois
from detection.localisation.warping import mean_colour, warp_region
from tests.localisation.small_localiser import make_rcnn, noise

TEST = LocTestConfig(batch_size=2)
IMAGE_HW = (75, 101)
PROPOSALS = [
    torch.tensor([[10.0, 5, 60, 70], [0, 0, 101, 75], [90.5, 60.25, 101, 75]]),
    torch.zeros(0, 4),
    torch.tensor([[30.0, 30, 40, 35]]),
]
CLASSES = torch.tensor([2, 1, 0])


def literal(model, image, box, label):
    """One region: its score, and its box clipped to the image."""
    fill = mean_colour(model.preprocessing)
    array = warp_region(image.permute(1, 2, 0).numpy(), box.tolist(), 64, model.config.rcnn.padding, fill)
    (score,), (moved,) = model.predict(torch.from_numpy(array).permute(2, 0, 1)[None], box[None], torch.tensor([label]))
    limits = torch.tensor([101.0, 75, 101, 75])
    return score, torch.minimum(moved.clamp(min=0), limits)


@pytest.mark.parametrize("padding", [0, 8])
def test_each_region_is_rescored_for_its_own_class(padding):
    model, image = make_rcnn(rcnn={"padding": padding}), noise(*IMAGE_HW)
    found = rescore([model], image, PROPOSALS, CLASSES, TEST)
    assert (found.scores.shape, found.boxes.shape, found.size_hw) == ((3, 3), (3, 3, 4), IMAGE_HW)
    for row, (boxes, label) in enumerate(zip(PROPOSALS, CLASSES.tolist(), strict=True)):
        for place, box in enumerate(boxes):
            score, moved = literal(model, image, box, label)
            torch.testing.assert_close(found.scores[row, place], score)
            torch.testing.assert_close(found.boxes[row, place], moved, rtol=1e-4, atol=1e-3)
        # Filled up with empty boxes.
        assert found.scores[row, len(boxes) :].eq(0).all() and found.boxes[row, len(boxes) :].eq(0).all()
    boxes, scores = best_box(found, TEST)
    assert boxes[1].tolist() == [0, 0, 101, 75] and scores[1] == 0


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_size_of_batches_changes_nothing(batch_size):
    model, image = make_rcnn(), noise(*IMAGE_HW)
    found, expected = (rescore([model], image, PROPOSALS, CLASSES, LocTestConfig(batch_size=size)) for size in (batch_size, 2))
    torch.testing.assert_close((found.scores, found.boxes), (expected.scores, expected.boxes), rtol=1e-4, atol=1e-3)


def test_an_ensemble_averages_scores_and_boxes_however_its_networks_warp():
    models = [make_rcnn(), make_rcnn(rcnn={"padding": 5, "delta_std": (1, 1, 1, 1)}, data={"image_size": 96})]
    # Well inside the image, so that nothing is clipped: the mean of clipped boxes would be another.
    image, boxes = noise(*IMAGE_HW), [torch.tensor([[40.0, 30, 60, 50]])]
    together = rescore(models, image, boxes, torch.tensor([1]), TEST)
    alone = [rescore([model], image, boxes, torch.tensor([1]), TEST) for model in models]
    torch.testing.assert_close(together.scores, (alone[0].scores + alone[1].scores) / 2)
    torch.testing.assert_close(together.boxes, (alone[0].boxes + alone[1].boxes) / 2, rtol=1e-4, atol=1e-3)
    of_one = rescore([models[0], models[0]], image, PROPOSALS, CLASSES, TEST)
    expected = rescore(models[:1], image, PROPOSALS, CLASSES, TEST)
    torch.testing.assert_close((of_one.scores, of_one.boxes), (expected.scores, expected.boxes))


@pytest.mark.parametrize("num_classes", [0, 2])
def test_nothing_to_rescore(num_classes):
    found = rescore([make_rcnn()], noise(*IMAGE_HW), [torch.zeros(0, 4)] * num_classes, CLASSES[:num_classes], TEST)
    assert (found.scores.shape, found.boxes.shape) == ((num_classes, 0), (num_classes, 0, 4))
    assert best_box(found, TEST)[0].tolist() == [[0, 0, 101, 75]] * num_classes


def test_what_lies_outside_the_image_is_zero_for_the_network():
    model = make_rcnn()
    model.backbone.preprocessing = Preprocessing("bgr", (10.0, 20.0, 30.0), (1.0, 1.0, 1.0))
    image = torch.full((3, 20, 20), 200, dtype=torch.uint8)
    seen = warp_rois(image.permute(1, 2, 0).numpy(), torch.tensor([[-20.0, 0, 20, 20]]), model)
    assert model.preprocessing.normalize(seen)[:, :, :, :30].abs().max() == 0
    assert seen[:, :, :, 34:].eq(200).all()


def test_networks_of_other_classes_are_no_ensemble():
    with pytest.raises(CheckpointError, match="network 2 of the ensemble has other classes"):
        rescore([make_rcnn(), make_rcnn(("a", "b", "c"))], noise(*IMAGE_HW), PROPOSALS, CLASSES, TEST)
