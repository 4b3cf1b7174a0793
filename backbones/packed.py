"""Convolutions without gradients in bf16 on a CPU: the weight packed once in the order that oneDNN computes in, and the
addition and the ReLU after a convolution in the same pass over its output.

A convolution orders its weight anew at each call, which takes longer than the convolution itself where the map is small and the
processor has AMX. The operators are those that torch's own compiler puts into a CPU's inference; no compiler is needed here. In
float32 they are no faster.

N images, C channels of them, O of the output; H x W pixels and h x w of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from backbones.modes import is_eager, own_defaults


def takes(conv: nn.Conv2d, x: Tensor, training: bool) -> bool:
    """Whether `convolve` may compute this layer for x (N, C, H, W). In training mode it may not: a loss is the same with and
    without gradients."""
    if training or x.device.type != "cpu" or computed_dtype(x) != torch.bfloat16 or not is_eager():
        return False
    weight = conv.weight
    return (
        weight.device.type == "cpu"
        and computed_dtype(weight) == torch.bfloat16
        and x.dim() == 4
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        # Elsewhere the operators lack some cases, and are wrong in others.
        and not becomes_one_column(x, conv.stride)
        and conv.groups == 1
        and conv.dilation == (1, 1)
        and not isinstance(conv.padding, str)
        and conv.padding_mode == "zeros"
        and not (torch.is_grad_enabled() and (x.requires_grad or any(each.requires_grad for each in conv.parameters())))
        and _get_current_dispatch_mode() is None  # what counts operators knows torch's usual ones
        and _works()
    )


def computed_dtype(value: Tensor) -> torch.dtype:
    """What a convolution computes in with this input or weight; autocast leaves float64 alone."""
    kind = value.device.type
    casts = torch.is_autocast_enabled(kind) and value.dtype != torch.float64
    return torch.get_autocast_dtype(kind) if casts else value.dtype


def becomes_one_column(x: Tensor, stride: Sequence[int]) -> bool:
    """Whether a convolution that keeps the size but for its stride makes a map (N, C, H, W) one column wide."""
    return x.shape[-1] <= stride[1] and stride[1] > 1


def pack(conv: nn.Conv2d, weight: Tensor) -> Tensor:
    """A weight of the layer's shape (O, C, ., .) for `convolve`, in the type that it shall compute in."""
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, conv.padding, conv.stride, conv.dilation, conv.groups)
    return packed


def convolve(
    conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, *, shortcut: Tensor | None = None, relu: bool = False
) -> Tensor:
    """The layer with another weight, which is packed, and bias: (N, C, H, W) -> (N, O, h, w); then `shortcut` of that shape is
    added, and a ReLU follows, where asked for."""
    geometry = conv.padding, conv.stride, conv.dilation, conv.groups
    operator = torch.ops.mkldnn._convolution_pointwise
    x = x.to(computed_dtype(x))
    if shortcut is None:
        out: Tensor = operator(x, weight, bias, *geometry, "relu" if relu else "none", [], "")
        return out
    shortcut = shortcut.to(x.dtype).contiguous(memory_format=torch.channels_last)
    added: Tensor = operator.binary(x, shortcut, weight, bias, *geometry, "add", 1.0, "relu" if relu else None, [], None)
    return added


@cache
def _works() -> bool:
    """Whether torch's operators for this are here, which have private names and are for x86 processors, and do as they did."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    with own_defaults(), torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), torch.no_grad():
        conv = nn.Conv2d(8, 8, 3, padding=1).to(torch.bfloat16)
        x, shortcut = torch.randn(2, 1, 8, 4, 4).to(torch.bfloat16)
        try:
            found = convolve(conv, x, pack(conv, conv.weight), conv.bias, shortcut=shortcut, relu=True)
        except (AttributeError, RuntimeError, TypeError):
            return False
        return torch.allclose(found, (conv(x) + shortcut).relu(), rtol=0.02, atol=0.02)
