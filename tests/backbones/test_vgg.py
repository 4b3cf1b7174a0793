"""VGG-16 as features and as the two halves of a detector. A narrow one stands in for its 138 million parameters."""

from functools import partial

import pytest
import torch

from backbones import (
    BACKBONES,
    IMAGENET_PREPROCESSING,
    VGG16,
    BackboneError,
    BackboneOptions,
    CheckpointError,
    Preprocessing,
    build_backbone,
    build_c4,
    load_c4,
    save_checkpoint,
)
from detection.config import Config
from detection.errors import USER_ERRORS
from detection.modeling import FasterRCNN
from detection.structures import Batch, Target

CAFFE = Preprocessing("bgr", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
FC = [f"classifier.{index}.{kind}" for index in (0, 3) for kind in ("weight", "bias")]


def narrow(**options):
    return VGG16(BackboneOptions(**options), width=4, fc_channels=10)


@pytest.fixture
def small_vgg16(monkeypatch):
    """The name "vgg16" stands for a narrow one."""

    monkeypatch.setitem(BACKBONES, "vgg16", partial(VGG16, width=4, fc_channels=10))


@pytest.fixture
def state():
    """Weights of a narrow one with seven classes."""
    return narrow(num_classes=7).state_dict()


def trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("size_hw", [(64, 48), (65, 47), (16, 31)])
def test_maps_have_the_channels_and_strides_that_are_stated(size_hw):
    model = narrow()
    maps = model(torch.randn(2, 3, *size_hw))
    assert model.strides == {"c2": 2, "c3": 4, "c4": 8, "c5": 16}
    for name, feature in maps.items():
        assert feature.shape == (2, model.channels[name], *(side // model.strides[name] for side in size_hw))
        assert (feature >= 0).all()
    assert list(maps) == ["c2", "c3", "c4", "c5"]


def test_the_registered_one_has_the_papers_widths():
    with torch.device("meta"):
        model = build_backbone("vgg16")
        trunk, head = build_c4("vgg16")
    assert model.channels == {"c2": 128, "c3": 256, "c4": 512, "c5": 512}
    assert sum(parameter.numel() for parameter in model.parameters()) == 14_714_688
    assert sum(parameter.numel() for parameter in head.parameters()) == (25088 + 1) * 4096 + (4096 + 1) * 4096
    assert (trunk.channels, trunk.stride, head.channels, head.pool_size) == (512, 16, 4096, 7)
    assert model.preprocessing == trunk.preprocessing == IMAGENET_PREPROCESSING


def test_initialisation():
    model = VGG16(BackboneOptions(num_classes=50), width=16, fc_channels=200)
    weight = model.get_parameter("features.28.weight")
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert model.get_parameter("classifier.0.weight").std().item() == pytest.approx(0.01, rel=0.02)
    assert all((value == 0).all() for name, value in model.named_parameters() if name.endswith("bias"))


def test_too_small_images_are_refused_but_padded_by_the_trunk():
    model = narrow(num_classes=3).eval()
    trunk, _ = model.split_c4()
    with pytest.raises(BackboneError, match="needs 16 pixels a side here, got images of 40 x 15"):
        model(torch.zeros(1, 3, 15, 40))
    with pytest.raises(BackboneError, match="needs 32 pixels"):
        model.logits(torch.zeros(1, 3, 31, 40))
    image = torch.randn(1, 3, 5, 40)
    padded = torch.cat([image, torch.zeros(1, 3, 11, 40)], dim=2)
    torch.testing.assert_close(trunk(image), model(padded)["c5"], rtol=0, atol=0)
    assert trunk(torch.zeros(1, 3, 1, 1)).shape == (1, 32, 1, 1)


def test_halves_share_the_whole_networks_modules():
    model = narrow(num_classes=7).eval()
    trunk, head = model.split_c4()
    assert set(trunk.state_dict()) | set(head.state_dict()) | set(model.classifier_keys) == set(model.state_dict())
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features = trunk(image)
        torch.testing.assert_close(features, model(image)["c5"], rtol=0, atol=0)
        vectors = head(torch.nn.functional.max_pool2d(features, 2))
        torch.testing.assert_close(model.classifier[6](vectors), model.logits(image))


def test_without_a_classifier_there_are_no_fully_connected_layers():
    model = narrow()
    assert not [name for name, _ in model.named_parameters() if name.startswith("classifier")]
    with pytest.raises(BackboneError, match="build it with num_classes"):
        model.logits(torch.zeros(1, 3, 32, 32))
    _, head = model.split_c4()
    assert list(head.state_dict()) == FC


@pytest.mark.parametrize("count", [0, 1, 3])
def test_head_takes_any_number_of_regions(count):
    _, head = narrow().split_c4()
    pooled = torch.randn(count, 32, 7, 7, requires_grad=True)
    vectors = head(pooled)
    assert vectors.shape == (count, head.channels)
    vectors.sum().backward()
    assert pooled.grad is not None and pooled.grad.shape == pooled.shape
    assert head.classifier[0].weight.grad is not None


def test_dropout_is_for_training_only():
    _, head = narrow().split_c4()
    pooled = 100 * torch.randn(4, 32, 7, 7)
    assert not torch.equal(head(pooled), head(pooled))
    head.eval()
    assert torch.equal(head(pooled), head(pooled))


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
@pytest.mark.parametrize(
    ("stages", "first_trained"), [(0, "features.0"), (1, "features.5"), (2, "features.10"), (4, "features.24")]
)
def test_stages_are_frozen_by_conv_block(norm, stages, first_trained):
    model = narrow(norm=norm, freeze_stages=stages)
    trunk, head = model.split_c4()
    assert trained(model)[0] == trained(trunk)[0] == f"{first_trained}.weight"
    assert trained(head) == FC


def test_all_convolutions_can_be_frozen_but_not_the_head():
    trunk, head = narrow(freeze_stages=5).split_c4()
    assert not trained(trunk) and trained(head) == FC
    assert not trunk.train()(torch.randn(1, 3, 32, 32)).requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "gn"}, "norm must be one of"),
        ({"freeze_stages": 6}, "freeze_stages must be 0..5, got 6"),
        ({"num_classes": 0}, "num_classes must be 1..100000, or None"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(BackboneError, match=message):
        build_backbone("vgg16", **options)


def checkpoint(state):
    """A classifier's checkpoint of ours."""
    return {
        "format": "resdet",
        "version": 1,
        "kind": "classifier",
        "model": dict(state),
        "class_names": [str(label) for label in range(7)],
        "preprocessing": CAFFE.to_dict(),
        "config": {"model": {"backbone": "vgg16", "stride_in_1x1": False}},
        "versions": {},
    }


@pytest.mark.parametrize("ours", [True, False], ids=["our checkpoint", "plain state dict"])
def test_one_file_serves_features_classifier_and_detector(tmp_path, state, small_vgg16, ours):
    save_checkpoint(checkpoint(state) if ours else state, tmp_path / "vgg16.pth")
    features = build_backbone("vgg16", tmp_path / "vgg16.pth")
    classifier = build_backbone("vgg16", tmp_path / "vgg16.pth", num_classes=7)
    trunk, head = build_c4("vgg16", tmp_path / "vgg16.pth", norm="frozen_bn", freeze_stages=2)
    for part in (features, classifier, trunk, head):
        for name, value in part.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    for part in (features, classifier, trunk):
        assert part.preprocessing == (CAFFE if ours else IMAGENET_PREPROCESSING)


def test_files_without_what_is_needed(tmp_path, state, small_vgg16):
    save_checkpoint({key: value for key, value in state.items() if key.startswith("features")}, tmp_path / "features.pth")
    build_backbone("vgg16", tmp_path / "features.pth")
    with pytest.raises(CheckpointError, match=r"features\.pth .*4 missing keys: 'head.classifier.0.weight'"):
        build_c4("vgg16", tmp_path / "features.pth")
    with pytest.raises(CheckpointError, match="classifies 7 classes, the model 3"):
        save_checkpoint(state, tmp_path / "seven.pth")
        build_backbone("vgg16", tmp_path / "seven.pth", num_classes=3)


def test_load_c4_refuses_what_does_not_fit(state):
    trunk, head = narrow().split_c4()
    with pytest.raises(CheckpointError, match="1 unexpected keys: 'head.classifier.7.weight'"):
        load_c4(trunk, head, state | {"classifier.7.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match="missing keys: 'trunk.features.0.weight'"):
        load_c4(trunk, head, build_backbone("resnet18").state_dict())
    with pytest.raises(CheckpointError, match=r"'head.classifier.0.weight' has shape \(10, 1568\)"):
        load_c4(*VGG16(width=4, fc_channels=11).split_c4(), state)


def detector(**roi):
    """A small detector on the backbone "vgg16"."""
    config = {
        "model": {"backbone": "vgg16", "freeze_stages": 2},
        "rpn": {"channels": 8, "anchor_sizes": [16, 32], "min_size": 4, "post_nms_train": 20, "post_nms_test": 5},
        "roi": {"pool_size": 7, "sample_size": 8, "negative_iou": [0, 0.5]} | roi,
        "data": {"classes": ["cat", "dog"]},
    }
    return FasterRCNN(Config.model_validate(config))


def a_batch(*size_hw):
    target = Target(torch.tensor([[8.0, 8, 40, 40]]), torch.zeros(1, dtype=torch.long), torch.zeros(0, 4))
    return Batch(torch.randint(0, 256, (1, 3, *size_hw), dtype=torch.uint8), [size_hw], [target])


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_a_detector_trains_all_but_its_frozen_stages(small_vgg16, pooling):
    model = detector(pooling=pooling).train()
    losses = model(a_batch(64, 80))
    assert len(losses) == 4 and all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    frozen = {f"trunk.features.{index}.{kind}" for index in (0, 2, 5, 7) for kind in ("weight", "bias")}
    parameters = dict(model.named_parameters())
    assert {name for name, parameter in parameters.items() if parameter.grad is None} == frozen
    for name in ("trunk.features.10.weight", "roi_head.conv5.classifier.0.weight", "roi_head.conv5.classifier.3.weight"):
        assert parameters[name].grad.isfinite().all() and parameters[name].grad.any(), name


def test_a_detector_starts_from_a_classifier(small_vgg16, state):
    model = detector()
    model.load_backbone(state, CAFFE)
    torch.testing.assert_close(model.trunk.features[28].weight, state["features.28.weight"])
    torch.testing.assert_close(model.roi_head.conv5.classifier[3].bias, state["classifier.3.bias"])
    assert model.preprocessing == CAFFE


@torch.no_grad()
def test_a_detector_takes_an_image_smaller_than_its_stride(small_vgg16):
    model = detector().eval()
    batch = a_batch(5, 40)
    features = model.extract(batch)
    assert features[0].shape == (1, 32, 1, 2)
    proposals = model.propose(features, batch.sizes_hw)
    found = model.classify(features, proposals, batch.sizes_hw)
    assert found.scores[0].shape == (len(proposals[0]), 2) and found.boxes[0].shape == (len(proposals[0]), 2, 4)


def test_a_detector_needs_the_pool_size_that_fc6_takes(small_vgg16):
    with pytest.raises(USER_ERRORS, match=r"roi.pool_size is 14, but .* vgg16 takes 7 only: set roi.pool_size=7") as caught:
        detector(pool_size=14)
    assert "\n" not in str(caught.value)
