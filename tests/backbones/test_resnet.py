"""Residual and plain networks: shapes, shortcuts, strides, freezing."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from backbones import BackboneError, BackboneOptions, FrozenBatchNorm2d, ResNet, build_backbone
from backbones.blocks import Projection, ZeroPadding


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def names(model):
    return [(name, value.shape) for name, value in model.state_dict().items()]


def test_stride_in_1x1_moves_the_stride_and_nothing_else():
    ours, authors = (build_backbone("resnet50", stride_in_1x1=flag).eval() for flag in (False, True))
    assert names(ours) == names(authors)
    assert [ours.get_submodule(f"layer3.0.conv{number}").stride for number in (1, 2)] == [(1, 1), (2, 2)]
    assert [authors.get_submodule(f"layer3.0.conv{number}").stride for number in (1, 2)] == [(2, 2), (1, 1)]
    assert authors.get_submodule("layer1.0.conv1").stride == (1, 1)
    authors.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        first, second = ours(images), authors(images)
    assert [value.shape for value in first.values()] == [value.shape for value in second.values()]
    torch.testing.assert_close(first["c2"], second["c2"], rtol=0, atol=0)
    assert not torch.allclose(first["c3"], second["c3"])


def test_plain_nets_have_no_shortcut():
    plain, residual = build_backbone("plain18"), build_backbone("resnet18")
    assert not [name for name, _ in plain.named_parameters() if "downsample" in name]
    projections = sum(num_parameters(module) for module in residual.modules() if isinstance(module, Projection))
    assert num_parameters(plain) == num_parameters(residual) - projections
    # With all convolutions zero, a residual block passes its input on and a plain one does not.
    x = torch.rand(1, 64, 8, 8)
    for model, expected in ((plain, torch.zeros_like(x)), (residual, x)):
        block = model.get_submodule("layer1.0").eval()
        nn.init.zeros_(block.get_parameter("conv2.weight"))
        torch.testing.assert_close(block(x), expected)


def test_option_a_adds_no_parameters_and_pads_with_zeros():
    option_a, plain = ResNet(18, shortcut="A"), build_backbone("plain18")
    assert names(option_a) == names(plain)
    x = torch.arange(2 * 5 * 3, dtype=torch.float32).view(1, 2, 5, 3)
    out = ZeroPadding(3, stride=2)(x)
    assert out.shape == (1, 5, 3, 2)
    torch.testing.assert_close(out[0, 0], torch.tensor([[0.0, 2.0], [6.0, 8.0], [12.0, 14.0]]))
    assert out[:, 2:].abs().max() == 0
    assert option_a(torch.randn(2, 3, 65, 97))["c5"].shape == (2, 512, 3, 4)


def test_option_c_projects_every_shortcut():
    model = ResNet(34, shortcut="C")
    blocks = [block for layer in (model.layer1, model.layer2, model.layer3, model.layer4) for block in layer]
    assert len(blocks) == 16
    assert all(isinstance(block.downsample, Projection) for block in blocks)
    assert [
        isinstance(block.downsample, Projection) for block in build_backbone("resnet34").get_submodule("layer2").children()
    ] == [
        True,
        False,
        False,
        False,
    ]


def test_option_a_on_bottlenecks_grows_channels_without_stride():
    assert ResNet(50, shortcut="A")(torch.randn(2, 3, 64, 64))["c2"].shape == (2, 256, 16, 16)


def test_he_initialisation():
    weight = build_backbone("resnet18").get_parameter("layer4.1.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
@pytest.mark.parametrize("stages", range(6))
def test_frozen_stages_have_no_gradients_and_stay_in_evaluation_mode(stages, norm):
    model = build_backbone("resnet18", norm=norm, freeze_stages=stages)
    order = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    before = copy.deepcopy(model.state_dict())
    for mode in (True, False, True):
        model.train(mode)
    loss = model(torch.randn(2, 3, 64, 64))["c5"].square().mean()
    assert loss.requires_grad == (stages < 5)
    if stages < 5:
        loss.backward()
    for number, group in enumerate(order, start=1):
        for name in group:
            module = getattr(model, name)
            frozen = number <= stages
            assert module.training != frozen
            assert all((parameter.grad is None) == frozen for parameter in module.parameters())
            if frozen:
                for key, value in module.state_dict().items():
                    torch.testing.assert_close(value, before[f"{name}.{key}"], rtol=0, atol=0)


def test_frozen_bn_has_no_norm_parameters():
    model = build_backbone("resnet18", norm="frozen_bn")
    assert not [name for name, _ in model.named_parameters() if "bn" in name or "downsample.1" in name]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in model.modules()) == 20


def test_a_copy_freezes_like_its_model():
    model = copy.deepcopy(build_backbone("resnet18", freeze_stages=2)).train()
    assert not model.get_submodule("layer1").training
    assert model.get_submodule("layer2").training


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_channels_last_is_kept_and_changes_no_value(norm):
    model = build_backbone("resnet18", norm=norm).eval()
    images = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        expected = model(images)
        features = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    for name, feature in features.items():
        assert feature.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(feature, expected[name], rtol=1e-4, atol=1e-4 * expected[name].abs().max().item())


def test_logits_need_num_classes():
    assert build_backbone("resnet18", num_classes=7).logits(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    with pytest.raises(BackboneError, match="build it with num_classes"):
        build_backbone("resnet18").logits(torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize(
    "options",
    [{"norm": "gn"}, {"freeze_stages": 6}, {"freeze_stages": -1}, {"num_classes": 0}, {"stem_pool": "none"}],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(options):
    message = f"{next(iter(options))} must be .* got {next(iter(options.values()))!r}"
    for build in (BackboneOptions, partial(build_backbone, "resnet18")):
        with pytest.raises(BackboneError, match=message):
            build(**options)


def test_a_depth_or_shortcut_that_there_is_not():
    with pytest.raises(BackboneError, match="depth must be .* got 20"):
        ResNet(20)
    with pytest.raises(BackboneError, match="shortcut must be .* got 'D'"):
        ResNet(18, shortcut="D")  # type: ignore[arg-type]
