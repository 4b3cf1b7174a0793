"""Networks of other projects: every tensor has its place, and the converted network computes what theirs does."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from backbones import BACKBONES, BackboneOptions, FrozenBatchNorm2d, ResNet, build_backbone, build_c4
from backbones.blocks import stem
from backbones.errors import CheckpointError
from backbones.weights.conversion import backbone_format, checked_state, convert_backbone
from backbones.weights.files import load_checkpoint
from backbones.weights.renaming import RenameRule, rename
from tests.foreign_weights import msra_classifier


def zeros(name: str, num_classes: int = 10) -> dict[str, torch.Tensor]:
    """A torchvision network's state dict of zeros that take no memory."""
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)(num_classes=num_classes).state_dict()
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in shapes.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16"])
def test_torchvision(name):
    state = zeros(name)
    found = convert_backbone(state, "x.pth")
    assert (found.format, found.name, found.stride_in_1x1, found.stem_pool) == ("torchvision", name, False, "pad1")
    assert found.preprocessing.channel_order == "rgb"
    assert {entry.kind for entry in found.entries} == {"matched"}
    assert list(found.state) == list(state)


def test_timm_names_are_torchvisions_and_half_precision_becomes_float32():
    state = {f"module.{key}": value.half() for key, value in zeros("resnet18").items() if "fc" not in key}
    found = convert_backbone({"state_dict": state, "arch": "resnet18"}, "x.safetensors")
    assert found.name == "resnet18"
    assert found.state["conv1.weight"].dtype == torch.float32
    assert {entry.kind for entry in found.entries} == {"renamed"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1.weight": None, "conv1.0.weight": (32, 3, 3, 3)}, "'conv1.0.weight': a stem of several convolutions"),
        ({"layer1.0.se.fc1.weight": (8, 256, 1, 1)}, "squeeze-and-excitation or attention"),
        ({"layer1.0.downsample.2.weight": (256,)}, "average pooling in the shortcuts"),
        ({"layer2.0.aa.filt": (1,)}, "anti-aliased pooling"),
        ({"layer1.0.conv2.weight": (64, 2, 3, 3)}, r"'layer1.0.conv2.weight' has shape \(64, 2, 3, 3\)"),
        ({"layer3.5.conv1.weight": None}, "1 missing keys: 'layer3.5.conv1.weight'"),
        ({"layer1.3.conv1.weight": (64, 256, 1, 1)}, "4, 4, 6, 3 bottleneck blocks"),
        ({"extra.weight": (1,), "more": (1,)}, "2 of its 322 tensors have no place in that: 'extra.weight', 'more'"),
        ({"conv1.bias": (64,)}, "1 unexpected keys: 'conv1.bias'"),
        ({"fc.weight": (), "fc.bias": ()}, "'fc.weight' has shape"),
    ],
)
def test_other_networks_are_refused_with_the_reason(changes, message):
    state = zeros("resnet50")
    for key, shape in changes.items():
        state.pop(key, None)
        if shape is not None:
            state[key] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=f"^x.pth .*{message}"):
        convert_backbone(state, "x.pth")


@pytest.mark.parametrize(
    ("name", "message"), [("vgg19", "VGG of 16 conv"), ("vgg16_bn", "batch normal"), ("resnext50_32x4d", "shape")]
)
def test_other_architectures_of_torchvision(name, message):
    with pytest.raises(CheckpointError, match=message):
        convert_backbone(zeros(name), "x.pth")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_a_number(bad):
    state = zeros("resnet18")
    state["layer1.0.conv1.weight"] = torch.full((64, 64, 3, 3), bad)
    with pytest.raises(CheckpointError, match="'layer1.0.conv1.weight' holds NaN or infinity"):
        convert_backbone(state, "x.pth")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a": torch.ones(1), "b": torch.ones(1)}, r"in no format known here .*its keys are \['a', 'b'\]"),
        ({}, "its keys are"),
        ({"model": {"conv1_w": "text"}}, "'conv1_w' is a str, not a tensor"),
        ({"conv1_w": np.array([print], dtype=object)}, "'conv1_w' is a ndarray, not a tensor"),
        ({"model": {3: torch.ones(1)}}, "'3' is a Tensor"),
        ({"model": {"stem.conv1.weight": torch.ones(1)}, "__author__": "me"}, "author 'me'"),
    ],
)
def test_what_is_no_network(contents, message):
    with pytest.raises(CheckpointError, match=message):
        convert_backbone(contents, "x.pth")


def caffe_logits(arrays, images):
    """The authors' network from their tensors: an affine layer after each convolution, stride in the 1x1, ceil-mode pool."""
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}

    def layer(x, name, norm, stride=1, padding=0):
        x = F.conv2d(x, tensors[f"{name}_w"], tensors.get(f"{name}_b"), stride, padding)
        return x * tensors[f"{norm}_s"].view(-1, 1, 1) + tensors[f"{norm}_b"].view(-1, 1, 1)

    x = F.relu(layer(images, "conv1", "res_conv1_bn", 2, 3))
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        for block in range(count):
            start, stride = f"res{stage}_{block}_branch", 2 if stage > 2 and block == 0 else 1
            out = F.relu(layer(x, f"{start}2a", f"{start}2a_bn", stride))
            out = F.relu(layer(out, f"{start}2b", f"{start}2b_bn", 1, 1))
            out = layer(out, f"{start}2c", f"{start}2c_bn")
            x = F.relu(out + (layer(x, f"{start}1", f"{start}1_bn", stride) if block == 0 else x))
    return F.linear(x.mean(dim=(2, 3)), tensors["fc1000_w"], tensors["fc1000_b"])


@torch.no_grad()
@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_the_authors_models(norm):
    torch.manual_seed(0)
    arrays = msra_classifier(50, num_classes=12)
    arrays |= {"conv1_b": np.random.default_rng(0).normal(size=64).astype(np.float32), "conv1_w_momentum": np.ones(3)}
    found = convert_backbone({"blobs": arrays, "cfg": "text"}, "R-50.pkl")
    assert (found.format, found.name, found.stride_in_1x1, found.stem_pool) == ("msra", "resnet50", True, "ceil")
    assert found.preprocessing.to_dict() == {"channel_order": "bgr", "mean": [103.53, 116.28, 123.675], "std": [1.0] * 3}
    model = build_backbone("resnet50", norm=norm, num_classes=12, stride_in_1x1=True, stem_pool="ceil").eval()
    model.load_state_dict(found.state)
    images = torch.randn(1, 3, 75, 62)  # odd after conv1: the two pools differ
    expected = caffe_logits(arrays, images)
    torch.testing.assert_close(model.logits(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    kinds = {entry.source: entry.kind for entry in found.entries}
    assert (kinds["conv1_w_momentum"], kinds["res2_0_branch2a_bn_s"]) == ("dropped", "renamed")
    assert sum(entry.kind == "added" for entry in found.entries) == 2 * 53


def test_a_folded_scale_stays_exact():
    found = convert_backbone(msra_classifier(50, num_classes=2), "R-50.pkl")
    model = build_backbone("resnet50", norm="frozen_bn", num_classes=2)
    model.load_state_dict(found.state)
    bn1 = model.get_submodule("bn1")
    assert isinstance(bn1, FrozenBatchNorm2d)
    scale, shift = bn1.scale_and_shift()
    assert torch.equal(scale, found.state["bn1.weight"]) and torch.equal(shift, found.state["bn1.bias"])


def test_the_authors_models_with_statistics():
    """detectron2's copies are not folded; a bias of conv1 is the same as a smaller mean."""
    torch.manual_seed(0)
    arrays = {}
    for key, value in msra_classifier(18, num_classes=2).items():
        start, bn, part = key.rpartition("_bn_")
        if not bn:
            arrays[key] = value
        elif part == "s":
            arrays |= {f"{start}_bn_{name}": np.random.rand(len(value)) + 0.1 for name in ("running_mean", "running_var")}
            arrays[f"{start}_bn_gamma"] = value
        else:
            arrays[f"{start}_bn_beta"] = value
    arrays["conv1_b"] = np.random.rand(64).astype(np.float32)
    found = convert_backbone(arrays, "R-18.pkl")
    assert found.format == "msra" and not any(entry.kind == "added" for entry in found.entries)
    expected = {
        "bn1.running_mean": arrays["res_conv1_bn_running_mean"] - arrays["conv1_b"],
        "bn1.bias": arrays["res_conv1_bn_beta"],
        "layer1.0.bn1.running_var": arrays["res2_0_branch2a_bn_running_var"],
        "layer2.0.downsample.1.weight": arrays["res3_0_branch1_bn_gamma"],
    }
    for key, value in expected.items():
        torch.testing.assert_close(found.state[key], torch.from_numpy(value).float())


def test_torchvisions_network_in_detectron2s_names():
    torch.manual_seed(0)
    state = torchvision.models.resnet18(num_classes=3).state_dict()
    names = {}
    for key in state:
        name = key if "layer" in key else f"stem.{key}"
        for number in (1, 2, 3, 4):
            name = name.replace(f"layer{number}", f"res{number + 1}").replace(f"bn{number}", f"conv{number}.norm")
        names[key] = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    arrays = {names[key]: value.numpy() for key, value in state.items()}
    found = convert_backbone({"model": arrays, "__author__": "torchvision", "matching_heuristics": True}, "R-18.pkl")
    assert (found.format, found.name, found.stride_in_1x1) == ("detectron2-backbone", "resnet18", False)
    assert found.preprocessing.channel_order == "rgb"
    for key, value in state.items():
        torch.testing.assert_close(found.state[key], value, rtol=0, atol=0)


def test_caffe_weights_with_torchvisions_names_are_told_by_the_user():
    state = zeros("resnet50")
    assert backbone_format(state) == "torchvision"
    found = convert_backbone(state, "resnet50-caffe.pth", "caffe")
    assert (found.stride_in_1x1, found.stem_pool, found.preprocessing.mean[0]) == (True, "ceil", 102.9801)
    with pytest.raises(CheckpointError, match="is a vgg16"):
        convert_backbone(zeros("vgg16"), "vgg16.pth", "caffe")


def test_a_half_as_wide_network_is_recognised():
    with torch.device("meta"):
        shapes = build_backbone("resnet50_half", num_classes=2).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in shapes.items()}
    found = convert_backbone(state, "half.safetensors", "caffe-bvlc")
    assert (found.name, found.preprocessing.mean, found.stem_pool) == ("resnet50_half", (104.0, 117.0, 123.0), "ceil")
    assert convert_backbone(state, "half.pth").name == "resnet50_half"


def test_the_real_half_wide_network_is_converted_and_tells_images_apart(real_data):
    file = real_data / "weights" / "resnet50_half.safetensors"
    found = convert_backbone(load_checkpoint(file), str(file), "caffe-bvlc")
    network = build_backbone("resnet50_half", norm="frozen_bn", num_classes=2, stride_in_1x1=True, stem_pool="ceil").eval()
    network.load_state_dict(found.state)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        c5 = network(images)["c5"]
    assert c5.shape == (2, 1024, 2, 2) and c5.isfinite().all() and not torch.equal(c5[0], c5[1])


def test_rules():
    state = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    with pytest.raises(CheckpointError, match="gives 'x' more than once: 'a', 'b'"):
        rename(state, [RenameRule("[ab]", "x"), RenameRule("c")], "f", "a test")
    with pytest.raises(CheckpointError, match="has 'b': too odd"):
        rename(state, [RenameRule("b", note="too odd", refuse=True), RenameRule(".")], "f", "a test")
    renamed, entries = rename(
        state, [RenameRule("(a)", r"\1\1", "doubled", lambda x: 2 * x), RenameRule("b", "b"), RenameRule(".")], "f", "a test"
    )
    assert renamed["aa"].tolist() == [2, 2]
    assert [entry.kind for entry in entries] == ["renamed", "matched", "dropped"]


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (63, 75), (1, 1), (3, 9)])
def test_stem_pools(size):
    model = ResNet(18, BackboneOptions(stem_pool="ceil")).eval()
    images = torch.randn(1, 3, *size)
    x = F.relu(model.bn1(model.conv1(images)))
    found = stem(model.conv1, model.bn1, images, "ceil")
    if min(x.shape[2:]) >= 3:
        torch.testing.assert_close(found, F.max_pool2d(x, 3, 2, ceil_mode=True), rtol=0, atol=0)
    assert min(found.shape) > 0
    trunk, _ = build_c4("resnet18", stem_pool="ceil")
    trunk.load_state_dict({key: model.state_dict()[key] for key in trunk.state_dict()})
    torch.testing.assert_close(trunk.eval()(images), model(images)["c4"])


def test_stem_pool_is_checked():
    with pytest.raises(ValueError, match=r"stem_pool must be one of \['pad1', 'ceil'\], got 'none'"):
        build_backbone("resnet18", stem_pool="none")  # type: ignore[arg-type]
    assert "resnet18" in BACKBONES


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module.backbone.", "student.module."])
@pytest.mark.parametrize("wrapper", [(), ("state_dict",), ("model",), ("state", "model_state_dict")])
def test_what_wrappers_put_around_a_network_is_left_out(prefix, wrapper):
    contents: dict[str, Any] = {prefix + key: value for key, value in zeros("resnet18").items()}
    for key in reversed(wrapper):
        contents = {"epoch": 3, key: contents, "model_ema": {"conv1.weight": torch.ones(1)}}
    found = convert_backbone(contents, "x.pth")
    assert (found.format, found.name) == ("torchvision", "resnet18")
    assert list(found.state) == list(zeros("resnet18"))


@pytest.mark.parametrize("contents", [{}, {"state_dict": {}}, {"model": {}, "state_dict": {}}, {"model": []}])
def test_nothing_to_convert(contents):
    with pytest.raises(CheckpointError, match="its keys are|is no state dict"):
        convert_backbone(contents, "x.pth")


@pytest.mark.parametrize("depth", [120_002, 99_998])
def test_a_depth_that_cannot_be_built(depth):
    with pytest.raises(CheckpointError, match=rf"x\.pth is a cifar_resnet{depth}, which cannot be built"):
        checked_state({}, f"cifar_resnet{depth}", "x.pth")
