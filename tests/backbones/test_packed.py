"""Packed convolutions: torch's own up to one rounding, wherever nobody asks for gradients, and nowhere else."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from backbones import build_backbone, packed
from backbones.convolution import Conv2d

needs_operators = pytest.mark.skipif(not packed._works(), reason="torch has no packed convolutions on this processor")


def in_bf16(*shape):
    x = torch.randn(shape).bfloat16()
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


@pytest.fixture
def bf16():
    """As inference runs: no gradients, bf16 autocast."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@pytest.fixture
def calls(monkeypatch):
    """The layers that were computed by packed convolutions."""
    layers = []
    convolve = packed.convolve

    def spy(conv, *args, **options):
        layers.append(conv)
        return convolve(conv, *args, **options)

    monkeypatch.setattr(packed, "convolve", spy)
    return layers


@needs_operators
@given(
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.integers(1, 2),
    sizes=st.tuples(st.integers(1, 2), st.integers(1, 70), st.integers(1, 70)),
    size_hw=st.tuples(st.integers(1, 20), st.integers(3, 20)),
    bias=st.booleans(),
    relu=st.booleans(),
    with_shortcut=st.booleans(),
)
def test_the_layers_of_networks(kernel, stride, sizes, size_hw, bias, relu, with_shortcut):
    """Against float32 on the same numbers: a result is rounded once, or twice where a shortcut is added.

    Not all geometries: with AMX oneDNN errs, in torch's own operator too, where a stride makes a map one column wide, or leaves
    columns over and none are padded.
    """
    images, channels, outputs = sizes
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, bias=bias).bfloat16()
    x = in_bf16(images, channels, *size_hw)
    with torch.no_grad():
        expected = copy.deepcopy(conv).float()(x.float())
        shortcut = in_bf16(*expected.shape) if with_shortcut else None
        before = copy.deepcopy(shortcut)
        assert packed.takes(conv, x, training=False)
        found = packed.convolve(conv, x, packed.pack(conv, conv.weight), conv.bias, shortcut=shortcut, relu=relu)
    size = expected.abs()
    if shortcut is not None and before is not None:
        expected = expected + shortcut.float()
        assert torch.equal(shortcut, before)
    expected = expected.relu() if relu else expected
    assert found.dtype == torch.bfloat16 and found.shape == expected.shape
    assert ((found.float() - expected).abs() <= 2**-8 * (size + expected.abs()) + 2**-12).all()


def test_only_without_gradients_in_bf16(monkeypatch):
    conv, x = Conv2d(4, 6, 3, padding=1).bfloat16(), in_bf16(2, 4, 5, 7)
    monkeypatch.setattr(packed, "_works", lambda: True)
    with torch.no_grad():
        assert packed.takes(conv, x, training=False)
        assert not packed.takes(conv, x, training=True)
        assert not packed.takes(conv, x.contiguous(), training=False)
        assert not packed.takes(conv, x[:0], training=False) and not packed.takes(conv, x[0], training=False)
        assert not packed.takes(conv, x.to("meta"), training=False)
        for settings in ({"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}, {"groups": 2}, {"dilation": 2}):
            assert not packed.takes(Conv2d(4, 6, 3, **settings).bfloat16(), x, training=False), settings
        halving = Conv2d(4, 6, 3, stride=2, padding=1).bfloat16()
        assert packed.takes(halving, x, training=False) and not packed.takes(halving, x[..., :2], training=False)
        assert not packed.takes(conv.float(), x.float(), training=False)
        assert not packed.takes(conv, x, training=False)  # float32 and bf16
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert packed.takes(conv, x.float(), training=False)
            assert not packed.takes(conv, x.double(), training=False)
        with torch.autocast("cpu", dtype=torch.float16):
            assert not packed.takes(conv, x, training=False)
        conv.bfloat16()
    assert not packed.takes(conv, x, training=False)
    conv.requires_grad_(False)
    assert packed.takes(conv, x, training=False) and not packed.takes(conv, x.requires_grad_(), training=False)
    monkeypatch.setattr(packed, "_works", lambda: False)
    assert not packed.takes(conv, x.detach(), training=False)


@pytest.mark.parametrize("fault", [AttributeError, RuntimeError, TypeError])
def test_operators_that_are_not_there_are_not_used(monkeypatch, fault):
    """Another version of torch may have dropped them, or changed what they take or give."""

    def fails(*args, **options):
        raise fault("as another torch would")

    for broken in (fails, lambda conv, x, *args, **options: torch.zeros_like(x)):
        packed._works.cache_clear()
        monkeypatch.setattr(packed, "convolve", broken)
        try:
            assert not packed._works()
        finally:
            packed._works.cache_clear()


def test_the_trial_leaves_random_numbers_alone():
    packed._works.cache_clear()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.device("meta"):
        works = packed._works()
    assert torch.equal(torch.rand(3), expected)
    packed._works.cache_clear()
    assert packed._works() == works


@needs_operators
@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [("resnet18", {"norm": "frozen_bn"}, 20), ("resnet50", {"norm": "frozen_bn"}, 53), ("resnet18", {"norm": "bn"}, 19)],
)
def test_networks_give_the_same(calls, monkeypatch, name, options, layers):
    """Every convolution but the stem's own, if it has a norm that learns, and no further from float32 than torch's are."""
    torch.manual_seed(0)
    network = build_backbone(name, **options).to(memory_format=torch.channels_last).eval()
    images = torch.randn(2, 3, 75, 91).contiguous(memory_format=torch.channels_last)

    def maps(dtype=torch.bfloat16):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            return {key: value.float() for key, value in network(images).items()}

    found = maps()
    assert len(calls) == layers
    exact = maps(torch.float32)
    monkeypatch.setattr(packed, "_works", lambda: False)
    plain = maps()
    assert len(calls) == layers
    for key, true in exact.items():
        own, torchs = ((each[key] - true).norm() / true.norm() for each in (found, plain))
        assert own < 1.1 * torchs and torchs < 0.05, key


@needs_operators
def test_a_block_leaves_its_input_alone(bf16):
    block = build_backbone("resnet50", norm="frozen_bn").to(memory_format=torch.channels_last).eval().get_submodule("layer1.1")
    x = in_bf16(1, 256, 9, 7)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


@needs_operators
def test_weights_that_change_are_packed_again(calls):
    """Written to in place, loaded, of another type, or copied."""
    conv, x = Conv2d(8, 8, 3, padding=1).to(memory_format=torch.channels_last).eval(), in_bf16(1, 8, 6, 5)

    def check(layer):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            expected = F.conv2d(x.float(), layer.weight.float(), layer.bias.float(), padding=1, stride=layer.stride).bfloat16()
            torch.testing.assert_close(layer(x), expected, rtol=0.02, atol=0.02)

    check(conv)
    with torch.no_grad():
        conv.weight.mul_(-1)
    check(conv)
    conv.load_state_dict({"weight": torch.randn(8, 8, 3, 3), "bias": torch.randn(8)})
    check(conv)
    check(pickle.loads(pickle.dumps(conv)))
    check(copy.deepcopy(conv))
    check(conv.bfloat16())
    assert len(calls) == 6 and set(conv.state_dict()) == {"weight", "bias"}


@needs_operators
def test_what_records_or_counts_sees_torchs_operators(calls):
    conv, x = Conv2d(8, 8, 3, padding=1).bfloat16().to(memory_format=torch.channels_last).eval(), in_bf16(1, 8, 6, 5)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            conv(x)
        assert counter.get_total_flops() == 2 * 8 * 8 * 9 * 30
        assert "aten::_convolution" in str(torch.jit.trace(conv, x, check_trace=False).inlined_graph)
        exported = torch.export.export(conv, (x,))
        assert torch.func.vmap(conv)(torch.stack([x, x])).shape == (2, 1, 8, 6, 5)
        assert not calls
        conv(x)
    assert any("conv2d" in str(node.target) for node in exported.graph.nodes)
    assert len(calls) == 1
    assert torch.func.grad(lambda image: conv(image).float().sum())(x).shape == x.shape
    assert torch.func.vmap(conv)(torch.stack([x, x])).requires_grad
    assert len(calls) == 1
