"""What is computed once is computed again as soon as a source has changed, and only then."""

import copy
import pickle
from collections.abc import Callable
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from backbones import build_backbone
from backbones.memo import Memo
from backbones.norm import FrozenBatchNorm2d, conv_norm


def replace_data(tensor: Tensor) -> None:
    tensor.data = tensor.data + 1


def write(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.add_(1)


def test_computed_once():
    memo: Memo[Tensor] = Memo()
    source, calls = torch.ones(3), []

    def compute() -> Tensor:
        calls.append(1)
        return source * 2

    for extra in ("a", "a", "b", "b"):
        memo.get([source], compute, extra)
    assert len(calls) == 2
    memo.clear()
    memo.get([source], compute, "b")
    memo.get([source.clone()], compute, "b")
    assert len(calls) == 4


@pytest.mark.parametrize("change", [write, replace_data])
def test_computed_anew_after_a_change(change: Callable[[Tensor], None]):
    memo: Memo[Tensor] = Memo()
    source = nn.Parameter(torch.ones(3))
    for expected in (2.0, 4.0, 6.0):
        for _ in range(2):
            assert memo.get([source], lambda: source * 2).tolist() == [expected] * 3
        change(source)


def test_no_tensor_is_kept_alive_and_copies_are_empty():
    memo: Memo[Tensor] = Memo()
    source = torch.ones(3)
    memo.get([source], lambda: torch.zeros(1))
    for copied in (copy.deepcopy(memo), pickle.loads(pickle.dumps(memo))):
        assert copied.get([source], lambda: torch.ones(1)).item() == 1
    seen = ref(source)
    del source
    assert seen() is None


def make_pair() -> tuple[nn.Conv2d, FrozenBatchNorm2d]:
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d(5)
    for values in norm.buffers():
        values.uniform_(0.5, 2)
    return nn.Conv2d(3, 5, 3), norm


CHANGES: dict[str, Callable[[nn.Conv2d, FrozenBatchNorm2d], object]] = {
    "the norm's state": lambda conv, norm: norm.load_state_dict({key: value + 1 for key, value in norm.state_dict().items()}),
    "a step of the weight": lambda conv, norm: write(conv.weight),
    "another bias": lambda conv, norm: setattr(conv, "bias", nn.Parameter(torch.ones(5))),
    "another type and back": lambda conv, norm: nn.ModuleList([conv, norm]).double().float(),
    "nothing": lambda conv, norm: None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_folded_norm_follows_its_weights(change):
    conv, norm = make_pair()
    x = torch.randn(2, 3, 6, 7)
    with torch.inference_mode():
        conv_norm(conv, norm, x)
    change(conv, norm)
    with torch.no_grad():
        torch.testing.assert_close(conv_norm(conv, norm, x), norm(conv(x)), rtol=1e-5, atol=1e-5)


def test_what_inference_computed_serves_training():
    conv, norm = make_pair()
    x = torch.randn(2, 3, 6, 7)
    with torch.inference_mode():
        expected = conv_norm(conv, norm, x)
    for frozen in (True, False):
        conv.requires_grad_(not frozen)
        inputs = x.clone().requires_grad_()
        found = conv_norm(conv, norm, inputs)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        found.sum().backward()
        assert inputs.grad is not None and (conv.weight.grad is None) == frozen


def test_precisions_do_not_mix():
    conv, norm = make_pair()
    x = torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        exact = conv_norm(conv, norm, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert conv_norm(conv, norm, x).dtype == torch.bfloat16
        assert torch.equal(conv_norm(conv, norm, x), exact)


def test_a_prediction_computes_no_constant_twice():
    model = build_backbone("resnet18", norm="frozen_bn").eval()
    images = torch.randn(1, 3, 64, 64)

    def operators() -> int:
        with torch.inference_mode(), torch.profiler.profile() as profile:
            model(images)
        return sum(event.name in ("aten::rsqrt", "aten::mul") for event in profile.events())

    assert operators() > 0 and operators() == 0
