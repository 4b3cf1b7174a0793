"""The C4 split: the two halves compute what the whole network computes."""

import pytest
import torch
from torchvision.ops import roi_align

from backbones import BackboneOptions, CheckpointError, build_backbone, build_c4, load_c4
from backbones.norm import FrozenBatchNorm2d
from backbones.resnet import ResNet


def test_trunk_then_head_is_the_whole_network():
    whole = build_backbone("resnet50", norm="frozen_bn")
    trunk, head = build_c4("resnet50", norm="frozen_bn")
    load_c4(trunk, head, whole.state_dict())
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        expected, features = whole(images), trunk(images)
        torch.testing.assert_close(features, expected["c4"], rtol=0, atol=0)
        torch.testing.assert_close(head(features), expected["c5"].mean((2, 3)), rtol=1e-5, atol=1e-5)
    assert (trunk.channels, trunk.stride, head.channels) == (1024, 16, 2048)


def test_state_dict_keys_are_the_backbones_own():
    whole = build_backbone("resnet18").state_dict()
    trunk, head = build_c4("resnet18")
    assert {key.partition(".")[0] for key in trunk.state_dict()} == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    assert {key.partition(".")[0] for key in head.state_dict()} == {"layer4"}
    assert set(trunk.state_dict()) | set(head.state_dict()) == set(whole)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_head_takes_any_number_of_regions(count):
    _, head = build_c4("resnet18", norm="frozen_bn")
    pooled = torch.randn(count, 256, 14, 14, requires_grad=True)
    vectors = head(pooled)
    assert vectors.shape == (count, 512)
    vectors.sum().backward()
    assert pooled.grad is not None and pooled.grad.shape == pooled.shape


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_a_head_that_pools_late_computes_the_same(norm, stride_in_1x1, shortcut):
    _, head = ResNet(50, BackboneOptions(norm, stride_in_1x1=stride_in_1x1), shortcut=shortcut).split_c4()
    head.double().eval()
    for module in head.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, FrozenBatchNorm2d)):
            values = module.state_dict(keep_vars=True)
            for name in ("weight", "running_var"):
                torch.nn.init.uniform_(values[name], 0.5, 2)
            for name in ("bias", "running_mean"):
                torch.nn.init.normal_(values[name])
    features = torch.randn(2, 1024, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = [torch.tensor([[0.0, 0, 80, 64], [20, 8, 70, 50]]), torch.tensor([[-90.0, -50, 20, 30]])]  # the last one juts out

    def pool(maps, cell_stride=1):
        cells = roi_align(maps, [boxes.double() for boxes in rois], 6, 1 / 16, 2, aligned=True)
        return cells[:, :, ::cell_stride, ::cell_stride]

    at_once = head(pool(features))
    late = head.after_pooling([pool(each.features, each.cell_stride) for each in head.before_pooling(features)])
    torch.testing.assert_close(late, at_once)
    weights = torch.randn_like(at_once)
    wanted = torch.autograd.grad((at_once * weights).sum(), [features, *head.parameters()])
    found = torch.autograd.grad((late * weights).sum(), [features, *head.parameters()])
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_a_head_without_an_early_1x1_pools_first(name):
    _, head = build_c4(name)
    head.eval()
    regions = torch.randn(2, 256 if name == "resnet18" else 512, 7, 7)
    with torch.no_grad():
        (whole,) = head.before_pooling(regions)
        assert whole.features is regions and whole.cell_stride == 1
        torch.testing.assert_close(head.after_pooling([regions]), head(regions), rtol=0, atol=0)


@pytest.mark.parametrize(("stages", "trunk_frozen", "head_frozen"), [(0, 0, False), (2, 2, False), (4, 4, False), (5, 4, True)])
def test_freezing_survives_the_split(stages, trunk_frozen, head_frozen):
    trunk, head = build_c4("resnet18", norm="bn", freeze_stages=stages)
    trunk.train()
    head.train()
    frozen = [not trunk.get_submodule(name).training for name in ("conv1", "layer1", "layer2", "layer3")]
    assert frozen == [index < trunk_frozen for index in range(4)]
    assert head.get_submodule("layer4").training != head_frozen
    assert all(parameter.requires_grad != head_frozen for parameter in head.parameters())
    assert trunk(torch.randn(2, 3, 64, 64)).requires_grad == (stages < 4)


def test_load_c4_leaves_the_classifier_out():
    whole = build_backbone("resnet18", num_classes=5)
    trunk, head = build_c4("resnet18", norm="frozen_bn")
    load_c4(trunk, head, whole.state_dict())
    for half, name in ((trunk, "conv1.weight"), (head, "layer4.1.conv2.weight")):
        torch.testing.assert_close(half.get_parameter(name), whole.get_parameter(name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer4.0.conv1.weight"), "1 missing keys: 'head.layer4.0.conv1.weight'"),
        (lambda state: state.pop("layer1.0.conv1.weight"), "1 missing keys: 'trunk.layer1.0.conv1.weight'"),
        (lambda state: state.update(extra=torch.ones(1)), "1 unexpected keys: 'trunk.extra'"),
        (lambda state: state.update({"conv1.weight": torch.ones(64, 1, 7, 7)}), r"shape \(64, 1, 7, 7\)"),
    ],
)
def test_load_c4_refuses_what_does_not_fit(change, message):
    state = dict(build_backbone("resnet18").state_dict())
    change(state)
    trunk, head = build_c4("resnet18")
    before = trunk.get_parameter("conv1.weight").clone()
    with pytest.raises(CheckpointError, match=message) as caught:
        load_c4(trunk, head, state, source="weights.pth")
    assert str(caught.value).startswith("weights.pth")
    torch.testing.assert_close(trunk.get_parameter("conv1.weight"), before)
