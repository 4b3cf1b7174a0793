"""Frozen, folded and recomputed batch normalisation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones import FrozenBatchNorm2d, build_backbone, freeze_batch_norm, recompute_bn_statistics
from backbones.norm import conv_norm


def make_pair(bias=False):
    """A convolution and an evaluation-mode BatchNorm with arbitrary statistics."""
    conv, norm = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=bias), nn.BatchNorm2d(5)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    norm.get_buffer("running_mean").normal_()
    norm.get_buffer("running_var").uniform_(0.1, 3)
    return conv, norm.eval()


def test_frozen_norm_by_hand():
    norm = FrozenBatchNorm2d(1, eps=0.0)
    norm.load_state_dict(
        {
            "weight": torch.tensor([3.0]),
            "bias": torch.tensor([1.0]),
            "running_mean": torch.tensor([2.0]),
            "running_var": torch.tensor([4.0]),
        }
    )
    # (6 - 2) / sqrt(4) * 3 + 1
    torch.testing.assert_close(norm(torch.full((1, 1, 1, 1), 6.0)), torch.full((1, 1, 1, 1), 7.0))
    scale, shift = norm.scale_and_shift()
    assert (scale.item(), shift.item()) == (1.5, -2.0)


@pytest.mark.parametrize("bias", [False, True])
def test_fold_equals_evaluation_mode_in_value_and_gradient(bias):
    conv, norm = make_pair(bias)
    frozen = FrozenBatchNorm2d(5)
    frozen.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 9, 7, requires_grad=True)
    expected = norm(conv(x))
    folded = conv_norm(conv, frozen, x)
    torch.testing.assert_close(folded, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(frozen(conv(x)), expected, rtol=0, atol=0)
    direction = torch.randn_like(expected)
    wanted = [x, *conv.parameters()]
    gradients = torch.autograd.grad(folded, wanted, direction)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, wanted, direction), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-5)


def test_network_gradients_equal_those_of_evaluation_mode():
    torch.manual_seed(3)
    reference = build_backbone("resnet18").double().eval()
    frozen = build_backbone("resnet18", norm="frozen_bn").double()
    frozen.load_state_dict(reference.state_dict(), strict=True)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for model in (reference, frozen):
        model(images)["c5"].square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in frozen.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-10)


def test_state_dicts_go_both_ways_between_bn_and_frozen_bn():
    norm, frozen = nn.BatchNorm2d(4), FrozenBatchNorm2d(4)
    norm(torch.randn(2, 4, 3, 3))
    frozen.load_state_dict(norm.state_dict(), strict=True)
    torch.testing.assert_close(frozen.running_var, norm.running_var)
    nn.BatchNorm2d(4).load_state_dict(frozen.state_dict(), strict=True)
    assert set(norm.state_dict()) - set(frozen.state_dict()) == {"num_batches_tracked"}


def test_a_frozen_norm_refuses_keys_that_are_not_its_own():
    state = FrozenBatchNorm2d(4).state_dict()
    with pytest.raises(RuntimeError, match="Unexpected"):
        FrozenBatchNorm2d(4).load_state_dict(state | {"gain": torch.ones(4)})
    del state["running_var"]
    with pytest.raises(RuntimeError, match="Missing"):
        FrozenBatchNorm2d(4).load_state_dict(state)


def test_fold_under_autocast_computes_in_bfloat16():
    conv, norm = make_pair()
    frozen = freeze_batch_norm(norm)
    x = torch.randn(1, 3, 9, 7)
    expected = conv_norm(conv, frozen, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        folded = conv_norm(conv, frozen, x)
    assert folded.dtype == torch.bfloat16
    torch.testing.assert_close(folded.float(), expected, rtol=0.02, atol=0.05)
    folded.float().sum().backward()
    assert conv.weight.grad.dtype == torch.float32


def test_a_whole_bfloat16_network_runs():
    model = build_backbone("resnet18", norm="frozen_bn").to(torch.bfloat16)
    assert model(torch.randn(1, 3, 32, 32, dtype=torch.bfloat16))["c5"].dtype == torch.bfloat16


def test_freeze_batch_norm_replaces_every_layer_and_keeps_the_function():
    model = build_backbone("resnet18")
    model(torch.randn(2, 3, 64, 64))
    images = torch.randn(1, 3, 65, 97)
    expected = model.eval()(images)["c5"].detach()
    assert freeze_batch_norm(model) is model
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(model.train()(images)["c5"].detach(), expected, rtol=1e-4, atol=1e-4)


def test_recomputed_statistics_by_hand():
    norm = nn.BatchNorm2d(1)
    norm.get_buffer("running_mean").fill_(100.0)
    batches = [torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([5.0, 7.0, 9.0]).view(1, 1, 3, 1)]
    assert recompute_bn_statistics(norm, batches) == 1
    assert norm.get_buffer("running_mean").item() == 5.0
    assert norm.get_buffer("running_var").item() == 10.0  # unbiased variance of 1 3 5 7 9
    assert norm.momentum == 0.1


def test_recomputing_over_one_batch_equals_a_full_update_of_every_layer():
    torch.manual_seed(2)
    ours, reference = build_backbone("resnet18"), build_backbone("resnet18")
    reference.load_state_dict(ours.state_dict())
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = torch.randn(4, 3, 64, 64)
    reference(images)
    assert recompute_bn_statistics(ours.eval(), [images]) == 20
    assert not any(module.training for module in ours.modules())
    for name, value in ours.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(value, reference.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_recomputing_is_independent_of_the_batches_order_and_of_old_averages():
    model, other = (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)) for _ in range(2))
    other.load_state_dict(model.state_dict())
    other.get_buffer("2.running_mean").fill_(-5.0)
    batches = [torch.randn(size, 3, 4, 4) * size for size in (2, 5, 3)]
    recompute_bn_statistics(model, batches)
    recompute_bn_statistics(other, batches[::-1])
    everything = torch.cat(batches)
    torch.testing.assert_close(model[0].running_mean, everything.mean((0, 2, 3)))
    torch.testing.assert_close(model[0].running_var, everything.var((0, 2, 3)))
    torch.testing.assert_close(model[2].running_mean, other[2].running_mean)
    torch.testing.assert_close(model[2].running_var, other[2].running_var)


def test_recomputing_leaves_frozen_stages_and_dropout_alone():
    model = build_backbone("resnet18", freeze_stages=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert recompute_bn_statistics(model, [torch.randn(2, 3, 64, 64)]) == 15
    changed = {name for name, value in model.state_dict().items() if "running" in name and not value.equal(before[name])}
    assert len(changed) == 30
    assert not [name for name in changed if name.startswith(("bn1", "layer1"))]
    assert model.training
    dropout = nn.Sequential(nn.Dropout(1.0), nn.BatchNorm2d(2))
    recompute_bn_statistics(dropout, [torch.full((1, 2, 2, 2), 3.0)])
    torch.testing.assert_close(dropout[1].running_mean, torch.tensor([3.0, 3.0]))


def test_recomputing_without_batches_is_refused_and_changes_nothing():
    norm = nn.BatchNorm2d(2).eval()
    with pytest.raises(ValueError, match="at least one batch"):
        recompute_bn_statistics(norm, [])
    assert not norm.training
    assert norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, torch.zeros(2))


def test_a_failing_batch_leaves_the_model_as_it_was(hook_counts):
    norm = nn.BatchNorm2d(2)
    model = nn.Sequential(norm).eval()
    with pytest.raises(RuntimeError):
        recompute_bn_statistics(model, [torch.randn(3, 2, 2, 2) + 9, torch.zeros(1, 3, 2, 2)])
    assert (norm.momentum, norm.training) == (0.1, False) and hook_counts["registered"] == hook_counts["removed"] == 1
    torch.testing.assert_close(
        model(torch.ones(1, 2, 1, 1)), F.batch_norm(torch.ones(1, 2, 1, 1), torch.zeros(2), torch.ones(2))
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [2, 24])
def test_both_ways_to_apply_a_frozen_norm_agree(size, bias):
    """Few pixels: the output is scaled; many: the weight is. The plain module is the oracle."""
    conv = torch.nn.Conv2d(8, 6, 3, padding=1, bias=bias)
    norm = FrozenBatchNorm2d(6)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 2)
    x = torch.randn(2, 8, size, size, requires_grad=True)
    found, expected = conv_norm(conv, norm, x), norm(conv(x))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(expected)
    inputs = [x, *conv.parameters()]
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), inputs), torch.autograd.grad((expected * weight).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_network_without_batch_norm_needs_no_batches():
    def never():
        raise AssertionError("no batch is needed")
        yield

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    assert recompute_bn_statistics(model, never()) == 0 and not model.training
