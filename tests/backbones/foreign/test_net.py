"""Networks of timm and torchvision as backbones: bit for bit those libraries' own numbers."""

from __future__ import annotations

import copy
import sys
from typing import Any, TypeVar

import pytest
import torch
from torch import fx, nn
from torchvision import models

from backbones import (
    IMAGENET_PREPROCESSING,
    BackboneError,
    CheckpointError,
    build_backbone,
    build_c4,
    load_c4,
    multiply_adds,
    save_checkpoint,
)
from backbones.foreign.tracing import subgraph, trace_feature_maps
from backbones.norm import FrozenBatchNorm2d
from detection.config import ClassifierModelConfig
from detection.pretraining.model import build_classifier, initialise_classifier, load_classifier
from tests.small_detector import detector, noise

timm = pytest.importorskip("timm")
IMAGES = (1, 3, 70, 97)
AnyNet = TypeVar("AnyNet", bound=nn.Module)


def shaken(net: AnyNet) -> AnyNet:
    """With BatchNorm statistics that leave a mark, in evaluation mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.get_buffer("running_mean"), -0.2, 0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def saved(net: nn.Module, folder) -> str:
    path = folder / "weights.pth"
    torch.save(net.state_dict(), path)
    return str(path)


def last_map(net: Any, images: torch.Tensor) -> torch.Tensor:
    """What a net computes before its pooling, c5 unless it goes on."""
    part = fx.GraphModule(net, subgraph(net.traced.graph, None, net.traced.last.node))
    return part.eval()(images)


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


# timm's test_* are nets of the real families with a few thousand parameters.
@pytest.mark.parametrize("name", ["resnet18", "test_resnet", "test_convnext", "test_byobnet", "test_nfnet"])
@torch.no_grad()
def test_maps_and_logits_are_timms(name, tmp_path):
    theirs = shaken(timm.create_model(name, num_classes=7))
    ours = build_backbone(f"timm/{name}", saved(theirs, tmp_path), num_classes=7).eval()
    images = torch.randn(IMAGES)
    maps = ours(images)
    assert list(maps) == ["c2", "c3", "c4", "c5"] and ours.strides == {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
    assert ours.channels == {key: value.shape[1] for key, value in maps.items()}
    final, intermediates = theirs.forward_intermediates(images)
    for mine, its in zip(list(maps.values())[:3], intermediates[-4:-1], strict=True):
        same(mine, its)
    same(maps["c5"], final)  # after the last block there may be one more convolution
    same(ours.logits(images), theirs(images))
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@torch.no_grad()
def test_features_only_is_the_same(tmp_path):
    theirs = shaken(timm.create_model("resnet18", features_only=True))
    ours = build_backbone("timm/resnet18").eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(IMAGES)
    for mine, its in zip(ours(images).values(), theirs(images)[1:], strict=True):
        same(mine, its)
    assert list(ours.channels.values()) == theirs.feature_info.channels()[1:]
    assert list(ours.strides.values()) == theirs.feature_info.reduction()[1:]


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("mobilenet_v3_small", ["features.1", "features.3", "features.8", "features.12"]),
        ("shufflenet_v2_x0_5", ["maxpool", "stage2", "stage3", "conv5"]),
        ("regnet_y_400mf", [f"trunk_output.block{number}" for number in range(1, 5)]),
        ("squeezenet1_1", ["features.4", "features.7", "features.12"]),
    ],
)
@torch.no_grad()
def test_maps_and_logits_are_torchvisions(name, nodes, tmp_path):
    theirs = shaken(models.get_model(name, weights=None, num_classes=7))
    ours = build_backbone(f"torchvision/{name}", saved(theirs, tmp_path), num_classes=7).eval()
    outputs = {}
    for node in nodes:
        theirs.get_submodule(node).register_forward_hook(lambda *call, node=node: outputs.update({node: call[-1]}))
    images = torch.randn(IMAGES)
    logits = theirs(images)
    for mine, node in zip(ours(images).values(), nodes, strict=True):
        same(mine, outputs[node])
    same(ours.logits(images), logits)
    assert ours.preprocessing == IMAGENET_PREPROCESSING


@pytest.mark.parametrize(
    "name",
    [
        "timm/test_resnet",
        "timm/test_efficientnet",
        "timm/shvit_s1",  # which goes on to stride 64
        "torchvision/mobilenet_v3_small",
        "torchvision/squeezenet1_1",
    ],
)
def test_the_halves_are_the_whole(name):
    whole = shaken(build_backbone(name, num_classes=4))
    trunk, head = build_c4(name)
    load_c4(trunk.eval(), head.eval(), whole.state_dict())
    images = torch.randn(IMAGES)
    maps, pooled = whole(images), trunk(images)
    same(pooled, maps["c4"])
    same(head(pooled), last_map(whole, images).mean((2, 3)))
    assert (trunk.channels, trunk.stride) == (whole.channels["c4"], 16)
    for count in (0, 3):
        assert head(torch.zeros(count, trunk.channels, 14, 14)).shape == (count, head.channels)


@pytest.mark.parametrize("name", ["timm/test_efficientnet", "torchvision/mobilenet_v3_small"])
@torch.no_grad()
def test_frozen_norms_are_constants_with_the_same_values(name):
    """timm's norms of such nets hold their activation."""
    free = shaken(build_backbone(name, num_classes=4))
    frozen = build_backbone(name, norm="frozen_bn", num_classes=4)
    frozen.load_state_dict({key: value for key, value in free.state_dict().items() if "num_batches" not in key})
    norms = [module for module in frozen.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert norms and not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    assert not any(list(module.parameters()) for module in norms)
    images = torch.randn(IMAGES)
    torch.testing.assert_close(frozen.eval().logits(images), free.logits(images))


def test_blocks_still_know_when_they_train():
    """Norms of timm, whose forward asks for the mode, and stochastic depth of torchvision."""
    net = build_backbone("timm/test_efficientnet")
    before = copy.deepcopy(net.state_dict())
    net(torch.randn(2, 3, 64, 64))
    changed = [key for key, value in net.state_dict().items() if "running_mean" in key and not torch.equal(value, before[key])]
    assert len(changed) == sum("running_mean" in key for key in before)
    tiny = build_backbone("torchvision/efficientnet_b0")
    depths = [module for module in tiny.modules() if isinstance(module, models.efficientnet.StochasticDepth)]
    assert depths and all(module.training for module in depths)
    assert not any(module.training for module in tiny.eval().modules())


@pytest.mark.parametrize(
    ("name", "stages", "frozen", "trained"),
    [
        ("timm/resnet18", 1, ("conv1", "bn1"), "layer1"),
        ("timm/resnet18", 3, ("conv1", "bn1", "layer1", "layer2"), "layer3"),
        ("timm/test_convnext", 1, (), "stem"),  # its first map has stride 4
        ("torchvision/mobilenet_v3_small", 2, ("features.0", "features.1"), "features.2"),
    ],
)
def test_frozen_stages_stay_so(name, stages, frozen, trained):
    trunk, head = build_c4(name, freeze_stages=stages)
    assert (trunk.frozen, head.frozen) == (frozen, ())
    for part in frozen:
        module = trunk.train().get_submodule(part)
        assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in trunk.get_submodule(trained).parameters())


def test_five_frozen_stages_are_all():
    trunk, head = build_c4("timm/resnet18", freeze_stages=5)
    assert not any(parameter.requires_grad for half in (trunk, head) for parameter in half.parameters())


def test_preprocessing_is_the_networks_own_unless_a_checkpoint_says_so(tmp_path):
    name = "timm/mobilenetv3_large_100.miil_in21k"
    small = "timm/test_vit"
    with pytest.raises(BackboneError, match="images of any size"):
        build_backbone(small)
    model = build_backbone(name)
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    whole = saved(timm.create_model(name.removeprefix("timm/")), tmp_path)
    trunk, _ = build_c4(name, whole)
    assert trunk.preprocessing == model.preprocessing == build_backbone(name, whole).preprocessing
    assert build_backbone("timm/resnet18").preprocessing == IMAGENET_PREPROCESSING


def test_weights_are_accounted_for(tmp_path):
    net = timm.create_model("test_resnet", num_classes=5)
    path = saved(net, tmp_path)
    with pytest.raises(CheckpointError, match="classifies 5 classes, the model 6"):
        build_backbone("timm/test_resnet", path, num_classes=6)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        build_backbone("timm/resnet18", path)
    state = net.state_dict() | {"stray": torch.ones(1)}
    torch.save(state, path)
    for build in (build_backbone, build_c4):
        with pytest.raises(CheckpointError, match="1 unexpected keys: .*stray"):
            build("timm/test_resnet", path)


def test_a_classifier_trains_and_its_checkpoint_reloads(tmp_path):
    config = ClassifierModelConfig(backbone="torchvision/mobilenet_v3_small")
    model = build_classifier(config, ["cat", "dog"])
    images = torch.stack([noise(64, 64), noise(64, 64)])
    model.logits(images).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    checkpoint = {
        "format": "resdet",
        "version": 1,
        "kind": "classifier",
        "model": model.state_dict(),
        "class_names": ["cat", "dog"],
        "preprocessing": model.backbone.preprocessing.to_dict(),
        "config": {"model": config.model_dump(mode="json")},
    }
    path = tmp_path / "model.pt"
    save_checkpoint(checkpoint, path)
    same(load_classifier(path, config, ["cat", "dog"]).logits(images), model.eval().logits(images))
    other = build_classifier(config, ["a", "b", "c"])
    assert "classes are others" in initialise_classifier(other, config, path)
    same(other.backbone.get_parameter("classifier.0.weight"), model.backbone.get_parameter("classifier.0.weight"))
    trunk, _ = build_c4(config.backbone, path)
    same(trunk.get_parameter("features.0.0.weight"), model.backbone.get_parameter("features.0.0.weight"))


def test_a_detector_on_a_foreign_trunk(tmp_path):
    model = detector(model={"backbone": "timm/test_efficientnet"})
    copied = copy.deepcopy(model)
    image = noise(64, 80)
    ours, theirs = model.predict([image])[0], copied.predict([image])[0]
    same(ours.boxes, theirs.boxes)
    vectors = model.roi_head.conv5(torch.randn(2, model.trunk.channels, 6, 6))
    vectors.sum().backward()
    assert all(parameter.grad is not None for parameter in model.roi_head.conv5.parameters())


def test_costs_are_counted():
    net, theirs = (build_backbone(name, num_classes=1000) for name in ("timm/resnet18", "resnet18"))
    assert multiply_adds(net, 64) == multiply_adds(theirs, 64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet50dd", "timm has no classification network 'resnet50dd'; did you mean 'timm/resnet50d'"),
        ("timm/resnet50.no_such_tag", "timm cannot build 'resnet50.no_such_tag': "),
        ("torchvision/mobilenet_v3_smal", "did you mean 'torchvision/mobilenet_v3_small'"),
        ("torchvision/fasterrcnn_resnet50_fpn", "no classification network"),
        ("torchvision/vit_b_32", "it cannot be traced or run on images of any size: Wrong image height"),
        ("torchvision/swin_t", r"no map \(N, C, H/16, W/16\) through which all passes; its strides are"),
        ("keras/resnet50", "unknown backbone 'keras/resnet50'"),
    ],
)
def test_what_cannot_be_a_backbone_is_one_line(name, message):
    with pytest.raises(BackboneError, match=message) as caught:
        build_backbone(name)
    assert "\n" not in str(caught.value)


def test_options_that_do_not_apply():
    with pytest.raises(BackboneError, match="stride_in_1x1 is for the ResNets"):
        build_backbone("timm/test_resnet", stride_in_1x1=True)
    with pytest.raises(BackboneError, match="freeze_stages must be 0..5"):
        build_backbone("timm/test_resnet", freeze_stages=6)
    with pytest.raises(BackboneError, match="no classifier"):
        build_backbone("timm/test_resnet").logits(torch.zeros(IMAGES))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_not_installed(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BackboneError, match=f"needs the package {library}: pip install"):
        build_backbone(f"{library}/resnet18")


class Branches(nn.Module):
    """Stride 16 only in one of two branches."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.fine, self.coarse = nn.Conv2d(4, 4, 4, stride=4), nn.Conv2d(4, 4, 8, stride=8)
        self.merge, self.fc = nn.Conv2d(4, 4, 2, stride=2), nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.fc((self.merge(self.fine(x)) + self.coarse(x)).mean((2, 3)))


class Wrapped(nn.Module):
    """All of it in one module, which has to be opened."""

    def __init__(self):
        super().__init__()
        convolutions = [nn.Conv2d(3 if index == 0 else 4, 4, 3, stride=2, padding=1) for index in range(5)]
        self.net = nn.Sequential(nn.Sequential(*convolutions), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x):
        return self.net(x)


class Constant(nn.Module):
    """Its code makes a tensor."""

    def __init__(self):
        super().__init__()
        self.net = Wrapped()

    def forward(self, x):
        return self.net(x) * torch.ones(1)


class WithoutLayers(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def test_how_far_a_network_is_opened():
    traced = trace_feature_maps("wrapped", Wrapped())
    assert (traced.c4.node.target, traced.last.node.target) == ("net.0.3", "net.0.4")
    assert sorted(traced.by_stride) == [1, 2, 4, 8, 16, 32]
    with pytest.raises(BackboneError, match=r"branches cannot be a backbone: .* its strides are \[1, 4, 16, 32\]"):
        trace_feature_maps("branches", Branches())
    with pytest.raises(BackboneError, match="its forward makes a constant"):
        trace_feature_maps("constant", Constant())
    with pytest.raises(BackboneError, match="nothing cannot be a backbone"):
        trace_feature_maps("nothing", WithoutLayers())
