"""Global context: one more vector an image, trained with everything else."""

import pytest
import torch

from detection.structures import Batch, Target, pad_images
from tests.small_detector import detector, noise


def test_the_context_is_the_vector_of_the_whole_image_without_its_padding():
    model = detector(roi={"context": True}).eval()
    small, large = noise(32, 48), noise(64, 96)
    batch = Batch(pad_images([small, large]), [(32, 48), (64, 96)])
    with torch.inference_mode():
        features = model.extract(batch)
        vectors = model.roi_head.context(features, batch.sizes_hw)
        boxes = [torch.tensor([[0.0, 0, 48, 32]]), torch.tensor([[0.0, 0, 96, 64]])]
        expected = model.roi_head.conv5(model.roi_head.pool(features, boxes))
    torch.testing.assert_close(vectors, expected)


def test_each_region_gets_its_own_images_context():
    model = detector(roi={"context": True}).eval()
    head = model.roi_head
    width = head.conv5.channels
    regions = [torch.zeros(2, 4), torch.zeros(0, 4), torch.zeros(1, 4)]
    vectors, context = torch.rand(3, width), torch.rand(3, width)
    with torch.inference_mode():
        logits, deltas = head.logits_and_deltas(vectors, head.context_per_roi(context, regions))
        joined = torch.cat([vectors, context[[0, 0, 2]]], dim=1)
        torch.testing.assert_close(logits, head.class_scores(joined))
        torch.testing.assert_close(deltas, head.box_deltas(joined).reshape(3, 2, 4))


def test_without_it_there_is_none():
    model = detector()
    assert model.roi_head.context([torch.zeros(1, 256, 4, 4)], [(64, 64)]) is None


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_it_is_trained_end_to_end(pooling):
    model = detector(roi={"context": True, "pooling": pooling})
    target = Target(torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([0]), torch.zeros(0, 4))
    losses = model(Batch(noise(64, 80)[None], [(64, 80)], [target]))
    (losses["loss_class"] + losses["loss_box"]).backward()
    width = model.roi_head.conv5.channels
    assert model.roi_head.class_scores.weight.shape == (3, 2 * width)
    for layer in (model.roi_head.class_scores, model.roi_head.box_deltas):
        gradient = layer.weight.grad
        assert gradient is not None and gradient[:, width:].abs().max() > 0
