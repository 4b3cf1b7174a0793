"""Ten crops, whole images at several scales, ensembles: what is averaged, and that one view is one view."""

import numpy as np
import pytest
import torch

from backbones import BackboneOptions
from backbones.vgg import VGG16
from detection.config import ClassifierTestConfig
from detection.pretraining import train_classifier
from detection.pretraining.data import load_splits, mean_image, training_splits
from detection.pretraining.evaluate import _scores, evaluate_checkpoints, evaluate_classifiers
from detection.pretraining.model import build_classifier
from detection.pretraining.views import make_views, resize_shorter_side, ten_crops, view_loader
from tests.pretraining.class_folders import make_config, write_data, write_image


def test_ten_crops_are_corners_centre_and_their_mirror_images():
    image = np.arange(8 * 11 * 3, dtype=np.uint8).reshape(8, 11, 3)
    crops = ten_crops(image, 7)  # 256/224 of 7 is 8: nothing is resized
    assert crops.shape == (10, 7, 7, 3)
    assert (crops[0] == image[:7, :7]).all() and (crops[3] == image[1:, 4:]).all() and (crops[4] == image[:7, 2:9]).all()
    assert (crops[5:] == crops[:5, :, ::-1]).all()


@pytest.mark.parametrize(
    ("size_hw", "expected"), [((10, 20), (5, 10)), ((20, 10), (10, 5)), ((5, 9), (5, 9)), ((400, 1), (2000, 5))]
)
def test_the_shorter_side_is_met(size_hw, expected):
    assert resize_shorter_side(np.zeros((*size_hw, 3), np.uint8), 5).shape[:2] == expected


def test_each_scale_is_a_group_of_views():
    image = np.zeros((10, 20, 3), np.uint8)
    groups = make_views(image, ClassifierTestConfig(views="full", scales=(5, 10), flip=True), 32)
    assert [views.shape for views in groups] == [(2, 5, 10, 3), (2, 10, 20, 3)]


def test_the_whole_image_at_the_training_size_equals_the_centre_crop(tmp_path):
    """Square images: nothing is cut, and the fully convolutional network sees what the classifier saw."""
    config = make_config(write_data(tmp_path), test={"views": "full"})
    (val,) = load_splits(config.data, "val")
    model = build_classifier(config.model, val.class_names).eval()
    (views,) = view_loader(val, config)
    with torch.no_grad():
        dense = _scores(model, views, None)
        centre = model.logits(torch.stack([torch.from_numpy(val.image(n)).permute(2, 0, 1) for n in range(len(val))])).softmax(
            1
        )
    torch.testing.assert_close(dense, centre, rtol=0, atol=0)


def test_views_of_different_sizes_are_averaged_for_their_own_image(tmp_path):
    """One image at a time, view by view, by hand; images of two shapes in one batch."""
    write_image(tmp_path / "val/apple/a.png", (0, 0, 255), 1, (40, 60))
    write_image(tmp_path / "val/berry/b.png", (255, 0, 0), 2, (50, 36))
    write_image(tmp_path / "val/berry/c.png", (255, 0, 0), 3, (40, 60))
    config = make_config(tmp_path, test={"views": "full", "scales": [32, 48], "flip": True})
    (val,) = load_splits(config.data, "val")
    model = build_classifier(config.model, val.class_names).eval()
    (batch,) = view_loader(val, config)
    with torch.no_grad():
        together = _scores(model, batch, None)
        for index in range(3):
            views = [view for group in make_views(val.image(index), config.test, 32) for view in group]
            alone = [model.logits(torch.from_numpy(view.copy()).permute(2, 0, 1)[None]).softmax(1)[0] for view in views]
            torch.testing.assert_close(together[index], torch.stack(alone).mean(0), rtol=0, atol=1e-5)


def test_a_model_in_ensemble_with_itself_is_itself(tmp_path):
    config = make_config(write_data(tmp_path), test={"views": "ten_crop"})
    (val,) = load_splits(config.data, "val")
    model = build_classifier(config.model, val.class_names)
    alone, twice = (evaluate_classifiers([model] * n, view_loader(val, config)) for n in (1, 2))
    assert alone == twice


def test_an_ensemble_may_have_members_of_different_depths(tmp_path):
    config = make_config(write_data(tmp_path), tmp_path / "run18", train={"steps": 1})
    other = make_config(tmp_path, tmp_path / "run34", model={"backbone": "plain18"}, train={"steps": 1})
    paths = [train_classifier(each).weights for each in (config, other)]
    assert 0 <= evaluate_checkpoints(paths, config)["top1_error"] <= 1


def test_vgg_slides_its_classifier_over_a_larger_image():
    """At 256 px the last map is 8 x 8: four places for the 7x7 of fc6."""
    vgg = VGG16(BackboneOptions(num_classes=3)).eval()
    assert vgg.classifier is not None
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        features = vgg.features(images)
        places = [vgg.classifier(features[:, :, y : y + 7, x : x + 7].flatten(1)) for y in (0, 1) for x in (0, 1)]
        torch.testing.assert_close(vgg.dense_logits(images), torch.stack(places).mean(0), rtol=1e-4, atol=1e-5)
        small = torch.randn(1, 3, 224, 224)
        torch.testing.assert_close(vgg.dense_logits(small), vgg.logits(small), rtol=0, atol=0)


def test_held_out_images_are_not_trained_on(tmp_path):
    config = make_config(write_data(tmp_path), data={"hold_out": 3})
    train, val = training_splits(config)
    assert len(train) == 5 and len(val) == 3 and not set(train.files) & set(val.files)
    assert training_splits(config)[1].files == val.files


def test_the_mean_image_is_subtracted_and_travels_with_the_weights(tmp_path):
    config = make_config(write_data(tmp_path), tmp_path / "run", data={"mean_image": True}, train={"steps": 1})
    (train,) = load_splits(config.data, "train")
    pixels = torch.stack([torch.from_numpy(train.image(n)).permute(2, 0, 1) for n in range(len(train))]).double()
    expected = pixels.mean(0) - pixels.mean((0, 2, 3)).view(3, 1, 1)
    torch.testing.assert_close(mean_image(train, config), expected.float(), rtol=0, atol=1e-4)
    weights = train_classifier(config).weights
    torch.testing.assert_close(torch.load(weights)["mean_image"], expected.float(), rtol=0, atol=1e-4)
    model = build_classifier(config.model, train.class_names).eval()
    plain = model.logits(pixels.to(torch.uint8))
    model.mean_image = expected.float()
    torch.testing.assert_close(model.logits((pixels + expected).float()), plain, rtol=1e-3, atol=1e-3)
    assert evaluate_checkpoints([weights], config) == train_classifier(config, resume=True).metrics
