import math

import pytest
import torch
import torchvision
from torch import nn

from backbones import Preprocessing, build_backbone
from detection.config import ClassifierModelConfig
from detection.errors import CheckpointError
from detection.pretraining.data import ImageBatch
from detection.pretraining.model import ClassificationModel, build_classifier, initialise_classifier, load_classifier
from detection.pretraining.train import classifier_metadata
from detection.weights.checkpoint import write_checkpoint
from tests.pretraining.class_folders import make_config

CONFIG = ClassifierModelConfig(backbone="resnet18")
NAMES = ("apple", "berry", "clover")


def make_batch(count: int = 4) -> ImageBatch:
    return ImageBatch(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 3, ["a"] * count)


def save(model: ClassificationModel, path, **model_keys):
    config = make_config("x", model=model_keys)
    write_checkpoint(classifier_metadata(model, config), model.state_dict(), path)
    return path


def test_the_loss_of_equal_scores_is_the_logarithm_of_the_classes():
    model = build_classifier(CONFIG, NAMES)
    for name in ("fc.weight", "fc.bias"):
        nn.init.zeros_(model.backbone.get_parameter(name))
    losses = model(make_batch())
    assert list(losses) == ["loss_classification", "train_top1_error"]
    torch.testing.assert_close(losses["loss_classification"], torch.tensor(math.log(3)))


def test_images_are_normalised_by_the_backbones_preprocessing():
    model = build_classifier(CONFIG, NAMES).eval()
    model.backbone.preprocessing = Preprocessing("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    images = make_batch().images
    expected = model.backbone.logits(
        (images.flip(1).float() - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor([4.0, 5, 6]).view(3, 1, 1)
    )
    torch.testing.assert_close(model.logits(images), expected, rtol=1e-4, atol=1e-4)


def test_scores_are_float32_under_autocast():
    model = build_classifier(CONFIG, NAMES).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.logits(make_batch().images).dtype == torch.float32


def test_the_state_dict_is_torchvisions():
    ours = build_classifier(CONFIG, NAMES).eval()
    theirs = torchvision.models.resnet18(num_classes=3).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = make_batch().images
    torch.testing.assert_close(ours.logits(images), theirs(ours.backbone.preprocessing.normalize(images)), rtol=1e-4, atol=1e-4)


def test_the_state_dict_goes_in_and_out_of_a_larger_module():
    outer = nn.ModuleDict({"inner": build_classifier(CONFIG, NAMES)})
    state = outer.state_dict()
    assert "inner.conv1.weight" in state
    other = nn.ModuleDict({"inner": build_classifier(CONFIG, NAMES)})
    other.load_state_dict(state, strict=True)
    torch.testing.assert_close(other.state_dict(), state, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({key: value for key, value in state.items() if "layer3" not in key}, strict=True)


def test_loading_leaves_the_callers_state_dict_alone():
    model = build_classifier(CONFIG, NAMES)
    state = model.state_dict()
    keys = list(state)
    model.load_state_dict(state)
    assert list(state) == keys


def test_a_classifier_initialises_another_of_the_same_classes(tmp_path):
    ours = build_classifier(CONFIG, NAMES)
    ours.backbone.preprocessing = Preprocessing("bgr")
    other = build_classifier(CONFIG, NAMES)
    assert "all weights" in initialise_classifier(other, CONFIG, save(ours, tmp_path / "m.pt"))
    assert other.backbone.preprocessing == ours.backbone.preprocessing
    for key, value in ours.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_the_last_layer_is_left_out_for_other_classes(tmp_path):
    ours = build_classifier(CONFIG, NAMES)
    other = build_classifier(CONFIG, ("apple", "berry", "date"))
    last = other.backbone.get_parameter("fc.weight").clone()
    assert "last layer starts from random" in initialise_classifier(other, CONFIG, save(ours, tmp_path / "m.pt"))
    assert torch.equal(other.backbone.get_parameter("fc.weight"), last)
    assert torch.equal(other.backbone.get_parameter("conv1.weight"), ours.backbone.get_parameter("conv1.weight"))


@pytest.mark.parametrize(("num_classes", "taken"), [(3, True), (7, False), (None, False)])
def test_plain_weights_name_no_classes_so_that_their_number_decides(tmp_path, num_classes, taken):
    plain = build_backbone("resnet18", num_classes=num_classes)
    torch.save(plain.state_dict(), tmp_path / "m.pth")
    model = build_classifier(CONFIG, NAMES)
    assert ("all weights" in initialise_classifier(model, CONFIG, tmp_path / "m.pth")) == taken


def test_weights_of_another_network_are_refused(tmp_path):
    path = save(build_classifier(CONFIG, NAMES), tmp_path / "m.pt")
    for config in (ClassifierModelConfig(backbone="resnet34"), ClassifierModelConfig(backbone="resnet18", stride_in_1x1=True)):
        with pytest.raises(CheckpointError, match="m.pt"):
            initialise_classifier(build_classifier(config, NAMES), config, path)


def test_a_trained_classifier_is_loaded_for_its_own_classes_only(tmp_path):
    ours = build_classifier(CONFIG, NAMES).eval()
    path = save(ours, tmp_path / "m.pt")
    loaded = load_classifier(path, CONFIG, NAMES)
    images = make_batch().images
    assert not loaded.training and torch.equal(loaded.logits(images), ours.logits(images))
    with pytest.raises(CheckpointError, match="other classes than the data's 3 .*: apple, berry, clover"):
        load_classifier(path, CONFIG, ("apple", "berry", "date"))
    torch.save(build_backbone("resnet18").state_dict(), tmp_path / "features.pth")
    with pytest.raises(CheckpointError, match="features.pth"):
        load_classifier(tmp_path / "features.pth", CONFIG, NAMES)
