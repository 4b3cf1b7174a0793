"""Gradients as matrix products: those of F.conv2d up to rounding, at any size, and only where they pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from backbones import build_backbone, convolution
from backbones.convolution import Conv2d, conv2d, conv2d_with_products, products_pay

Pair = tuple[int, int]
ONE, TWO = (1, 1), (2, 2)


@pytest.fixture
def on_avx2(monkeypatch):
    """Any CPU counts as one with AVX2 only, and any convolution as large."""
    monkeypatch.setattr(convolution, "_dtype_of_products", lambda: torch.float32)
    monkeypatch.setattr(convolution, "MIN_CHANNELS", 1)
    monkeypatch.setattr(convolution, "MIN_CHANNELS_1X1", 1)
    monkeypatch.setattr(convolution, "MIN_MULTIPLY_ADDS", 0)


@pytest.fixture
def on_amx(monkeypatch):
    """Any CPU counts as one with AMX, and any convolution as having many channels and a small map."""
    monkeypatch.setattr(convolution, "_dtype_of_products", lambda: torch.bfloat16)
    monkeypatch.setattr(convolution, "MIN_CHANNELS_AMX", 1)
    monkeypatch.setattr(convolution, "MIN_CHANNELS_1X1_AMX", 1)
    monkeypatch.setattr(convolution, "MAX_PIXELS_AMX", 10**9)


def tensor(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(shape, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    kernel=pairs,
    stride=pairs,
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    sizes=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4)),
    needed=st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any),
    with_bias=st.booleans(),
    last=st.booleans(),
)
@example(kernel=ONE, stride=TWO, padding=(0, 0), extra=TWO, sizes=(0, 2, 3), needed=(True,) * 3, with_bias=True, last=True)
def test_gradients_are_those_of_torch(kernel, stride, padding, extra, sizes, needed, with_bias, last):
    """Of the input, the weight and the bias, as far as each is asked for; in float64, where only rounding is left to differ."""
    images, channels, outputs = sizes
    height, width = (max(1, k - 2 * p) + e for k, p, e in zip(kernel, padding, extra, strict=True))
    x, weight = tensor(images, channels, height, width), tensor(outputs, channels, *kernel)
    if not last:
        x, weight = x.contiguous(), weight.contiguous()
    values = [x, weight, tensor(outputs)] if with_bias else [x, weight]
    wanted = [value.requires_grad_() for value, need in zip(values, needed, strict=False) if need]
    bias = values[2] if with_bias else None
    expected, found = (f(x, weight, bias, stride, padding) for f in (F.conv2d, conv2d_with_products))
    assert torch.equal(found, expected) and found.requires_grad == bool(wanted)
    if not wanted:
        return
    direction = torch.randn_like(expected)
    for own, reference in zip(
        torch.autograd.grad(found, wanted, direction), torch.autograd.grad(expected, wanted, direction), strict=True
    ):
        assert own.shape == reference.shape
        torch.testing.assert_close(own, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((2, 64, 19, 27), 3, ONE, ONE),
        ((2, 64, 19, 27), 3, TWO, ONE),
        ((2, 128, 9, 13), 1, ONE, (0, 0)),
        ((2, 64, 19, 27), 1, TWO, (0, 0)),
    ],
)
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
def test_rounding_is_no_worse_than_torchs(shape, kernel, stride, padding, dtype, rounding):
    """Against float64: the error is that of a sum of a few hundred products, whoever adds them up, and of rounding it."""
    torch.manual_seed(0)
    x, weight = (value.to(dtype).double() for value in (tensor(*shape), tensor(96, shape[1], kernel, kernel)))
    direction = torch.randn_like(F.conv2d(x, weight, None, stride, padding)).to(dtype).double()

    def gradients(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        inputs = [value.to(dtype).requires_grad_() for value in (x, weight)]
        out = function(*inputs, None, stride, padding)
        return [each.double() for each in torch.autograd.grad(out, inputs, direction.to(dtype))]

    exact = gradients(F.conv2d, torch.float64)
    own, torchs = (
        [(each - true).square().mean().sqrt() for each, true in zip(gradients(f, dtype), exact, strict=True)]
        for f in (conv2d_with_products, F.conv2d)
    )
    for error, reference, true in zip(own, torchs, exact, strict=True):
        assert error < rounding * true.square().mean().sqrt() and error < 3 * reference + 1e-12


def test_second_derivatives_are_those_of_torch():
    x, weight = tensor(2, 3, 5, 4).requires_grad_(), tensor(4, 3, 3, 3).requires_grad_()

    def second(function: Callable[..., Tensor]) -> Sequence[Tensor]:
        first = torch.autograd.grad(function(x, weight, None, ONE, ONE).square().sum(), [x, weight], create_graph=True)
        return torch.autograd.grad(torch.stack([each.square().sum() for each in first]).sum(), [x, weight])

    for own, reference in zip(second(conv2d_with_products), second(F.conv2d), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-12, atol=1e-12)


def test_transforms_of_torch_func_go_through():
    x, weights = tensor(2, 3, 5, 4), torch.stack([tensor(4, 3, 3, 3) for _ in range(3)])

    def gradients(function: Callable[..., Tensor]) -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda weight: function(x, weight, None, ONE, ONE).square().sum()))(weights)

    torch.testing.assert_close(gradients(conv2d_with_products), gradients(F.conv2d), rtol=1e-12, atol=1e-12)


def graph_of(x: Tensor, weight: Tensor, **options: object) -> str:
    return type(conv2d(x, weight, None, **options).grad_fn).__name__  # type: ignore[arg-type]


def test_the_layer_takes_products(on_avx2):
    layer = Conv2d(4, 6, 3, padding=1)
    x = tensor(2, 4, 5, 7, dtype=torch.float32)
    assert "_Convolution" in type(layer(x).grad_fn).__name__
    plain = nn.Conv2d(4, 6, 3, padding=1)
    plain.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(layer(x), plain(x)) and str(layer) == str(plain)


@pytest.mark.parametrize("settings", [{"padding": "same"}, {"groups": 2}, {"dilation": 2}, {"padding": 1, "bias": False}])
def test_the_layer_is_torchs_with_all_settings(on_avx2, settings):
    layer, plain = Conv2d(4, 6, 3, **settings), nn.Conv2d(4, 6, 3, **settings)
    plain.load_state_dict(layer.state_dict(), strict=True)
    x = tensor(2, 4, 5, 7, dtype=torch.float32)
    assert torch.equal(layer(x), plain(x))


def test_only_where_they_pay(on_avx2, monkeypatch):
    x, weight = tensor(2, 4, 5, 7, dtype=torch.float32), nn.Parameter(tensor(6, 4, 3, 3, dtype=torch.float32))

    def pays(x: Tensor = x, weight: Tensor = weight) -> bool:
        return products_pay(x, weight, ONE, ONE)

    assert pays()
    assert not pays(x.contiguous()) and not pays(x.double(), weight.double()) and not pays(x, weight.detach())
    assert not pays(x.to("meta"), nn.Parameter(weight.to("meta")))
    with torch.no_grad():
        assert not pays()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not pays()
    assert "_Convolution" not in graph_of(x, weight, dilation=TWO)
    assert "_Convolution" not in graph_of(x, nn.Parameter(weight[:, :2].detach()), groups=2)
    monkeypatch.setattr(convolution, "_dtype_of_products", lambda: None)
    assert not pays()


def test_only_in_bf16_with_amx(on_amx):
    """In bf16 tensors, and under an autocast that makes them so; the results have torch's types."""
    x, weight = tensor(2, 4, 5, 7, dtype=torch.float32), nn.Parameter(tensor(6, 4, 3, 3, dtype=torch.float32))
    assert not products_pay(x, weight, ONE, ONE)
    assert not products_pay(x.bfloat16(), weight, ONE, ONE)
    assert products_pay(x.bfloat16(), nn.Parameter(weight.bfloat16()), ONE, ONE)
    with torch.autocast("cpu", dtype=torch.float16):
        assert not products_pay(x, weight, ONE, ONE)
    bias = nn.Parameter(torch.randn(6))
    found = {}
    for function in (conv2d, F.conv2d):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = function(x.requires_grad_(), weight, bias, ONE, ONE)
        found[function] = [out, *torch.autograd.grad(out.float().square().sum(), [x, weight, bias])]
    assert "_Convolution" in type(found[conv2d][0].grad_fn).__name__
    for own, reference in zip(*found.values(), strict=True):
        assert own.dtype == reference.dtype
        torch.testing.assert_close(own, reference, rtol=0.02, atol=0.02 * reference.abs().max().item())


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("size_hw", [(1, 1), (2, 1), (2, 2), (9, 1), (9, 2), (9, 3), (1, 9), (2, 9)])
def test_thin_maps_in_bf16(kernel, size_hw):
    """Some oneDNN errs, value and gradients, where a stride makes a map one column wide."""
    torch.manual_seed(0)
    x = tensor(2, 16, *size_hw, dtype=torch.bfloat16).requires_grad_()
    weight = tensor(32, 16, kernel, kernel, dtype=torch.bfloat16).requires_grad_()
    expected = F.conv2d(x.double(), weight.double(), None, 2, kernel // 2)
    found = conv2d(x, weight, None, TWO, (kernel // 2, kernel // 2))
    direction = torch.randn_like(found)
    own = [found, *torch.autograd.grad(found, [x, weight], direction)]
    for value, true in zip(own, [expected, *torch.autograd.grad(expected, [x, weight], direction.double())], strict=True):
        torch.testing.assert_close(value.double(), true.double(), rtol=2**-7, atol=2**-6 * true.abs().max().item())


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "side", "pays"),
    [
        (64, 64, 3, 1, 43, True),  # 1849 pixels, 68 million multiply-adds
        (64, 64, 3, 1, 42, False),
        (63, 64, 3, 1, 99, False),
        (64, 63, 3, 2, 99, False),
        (64, 64, 1, 2, 256, True),
        (64, 128, 1, 1, 256, False),
        (128, 128, 1, 1, 64, True),
        (128, 128, 1, 1, 63, False),
    ],
)
def test_sizes_that_pay(monkeypatch, channels, outputs, kernel, stride, side, pays):
    monkeypatch.setattr(convolution, "_dtype_of_products", lambda: torch.float32)
    assert pays_with(torch.float32, channels, outputs, kernel, stride, side) is pays


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "side", "pays"),
    [
        (64, 64, 1, 1, 256, True),
        (63, 64, 1, 1, 256, False),
        (64, 256, 1, 2, 7, True),
        (256, 256, 3, 1, 8, True),
        (256, 255, 3, 1, 8, False),
        (256, 256, 3, 1, 9, False),
        (256, 512, 3, 2, 16, True),
        (256, 512, 3, 2, 17, False),
    ],
)
def test_sizes_that_pay_with_amx(monkeypatch, channels, outputs, kernel, stride, side, pays):
    monkeypatch.setattr(convolution, "_dtype_of_products", lambda: torch.bfloat16)
    assert pays_with(torch.bfloat16, channels, outputs, kernel, stride, side) is pays


def pays_with(dtype: torch.dtype, channels: int, outputs: int, kernel: int, stride: int, side: int) -> bool:
    x = tensor(1, channels, side, side, dtype=dtype)
    weight = nn.Parameter(torch.zeros(outputs, channels, kernel, kernel, dtype=dtype))
    return products_pay(x, weight, (stride, stride), (kernel // 2, kernel // 2))


def test_recorded_graphs_keep_convolutions(on_avx2):
    layer, x = Conv2d(4, 6, 3, padding=1), tensor(2, 4, 5, 7, dtype=torch.float32)
    assert "aten::_convolution" in str(torch.jit.trace(layer, x).inlined_graph)
    exported = torch.export.export(layer, (x,))
    assert any("conv2d" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.parametrize(("name", "options"), [("resnet18", {"norm": "frozen_bn"}), ("resnet50", {}), ("vgg16", {})])
def test_networks_learn_the_same(on_avx2, monkeypatch, name, options):
    """The gradients of a whole network, a frozen stage among its own, are those of torch's operator."""
    torch.manual_seed(0)
    network = build_backbone(name, freeze_stages=1, **options).to(memory_format=torch.channels_last)
    images = tensor(2, 3, 40, 56, dtype=torch.float32)

    def gradients() -> dict[str, Tensor]:
        network.zero_grad()
        network(images)["c5"].square().mean().backward()
        return {key: value.grad.clone() for key, value in network.named_parameters() if value.grad is not None}

    calls: list[int] = []
    monkeypatch.setattr(convolution, "weight_gradient", spy(convolution.weight_gradient, calls))
    own = gradients()
    assert len(calls) == sum(key.endswith("weight") and value.dim() == 4 for key, value in own.items())
    monkeypatch.setattr(convolution, "_dtype_of_products", lambda: None)
    expected = gradients()
    assert own.keys() == expected.keys() and calls
    for key, value in own.items():
        scale = expected[key].abs().max().item()
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-4 * scale, msg=key)


def spy(function: Callable[..., Tensor], calls: list[int]) -> Callable[..., Tensor]:
    def called(*args: object) -> Tensor:
        calls.append(1)
        return function(*args)

    return called
