"""Convolutions whose gradients are matrix products where these are faster than torch's own operator.

On a CPU with AVX2 only, the operator takes twice as long for the gradient of a weight as for the convolution itself, and for
one large image up to seven times as long; matrix products take about as long as the convolution. With AMX it takes three times
as long in bf16, and products half of that where they need few copies: for 1x1 convolutions, and on the small maps of RoIs.

N images, C channels of them, O of the output; H x W pixels and h x w of the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import packed
from backbones.memo import Memo
from backbones.modes import is_eager
from backbones.packed import becomes_one_column, computed_dtype

# Beyond these the operator is as fast, measured with one thread and two.
# In float32 with AVX2; the first is for 1x1 convolutions of stride 1.
MIN_CHANNELS_1X1 = 128
MIN_CHANNELS = 64
MIN_MULTIPLY_ADDS = 2**26
# In bf16 with AMX: channels of 1x1 convolutions, and of others, which need maps of few pixels, too.
MIN_CHANNELS_1X1_AMX = 64
MIN_CHANNELS_AMX = 256
MAX_PIXELS_AMX = 64


class Conv2d(nn.Conv2d):
    """torch's layer with the gradients of `conv2d`, and where none are asked for with a packed weight."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._packed: Memo[tuple[Tensor, Tensor | None]] = Memo()

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """(N, C, H, W) -> (N, O, h, w), with a ReLU where asked for."""
        if packed.takes(self, x, self.training):
            dtype = computed_dtype(self.weight)
            weight, bias = self._packed.get(list(self.parameters()), lambda: self._pack(dtype), dtype)
            return packed.convolve(self, x, weight, bias, relu=relu)
        out = conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return F.relu(out, inplace=True) if relu else out

    def _pack(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        return packed.pack(self, self.weight.to(dtype)), None if self.bias is None else self.bias.to(dtype)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: str | Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """`F.conv2d`: (N, C, H, W) and (O, C, ., .) -> (N, O, h, w). Where its gradients are products they differ by rounding."""
    if is_eager() and becomes_one_column(x, stride) and x.device.type == "cpu" and computed_dtype(x) == torch.bfloat16:
        # oneDNN errs there with AMX, in the gradient too. A column of zeros more makes two, of which the first is the same.
        return conv2d(F.pad(x, (0, stride[1])), weight, bias, stride, padding, dilation, groups)[..., :1]
    plain = groups == 1 and tuple(dilation) == (1, 1)
    if plain and not isinstance(padding, str) and products_pay(x, weight, stride, padding):
        # As autocast would: it does not look into a function that has its own gradients.
        dtype = computed_dtype(weight)
        own_bias = None if bias is None else bias.to(dtype)
        return conv2d_with_products(x.to(dtype), weight.to(dtype), own_bias, stride, padding)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def conv2d_with_products(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """`F.conv2d` with gradients that are matrix products, whether that pays or not. For second derivatives, that is with
    `create_graph`, they are the operator's."""
    out: Tensor = _Convolution.apply(x, weight, bias, tuple(stride), tuple(padding))
    return out


def products_pay(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether a gradient is asked for that matrix products give faster."""
    if not is_eager():  # in a recorded graph a convolution stays one node
        return False
    return (
        weight.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and computed_dtype(x) == computed_dtype(weight) == _dtype_of_products()
        and _is_large(x, weight, stride, padding)
    )


@cache
def _dtype_of_products() -> torch.dtype | None:
    """The type in which products can be faster on this CPU, None if none."""
    if getattr(torch.cpu, "_is_amx_tile_supported", bool)():  # a private name; absent counts as no
        return torch.bfloat16
    return torch.float32 if torch.backends.cpu.get_cpu_capability() == "AVX2" else None


def _is_large(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether the sizes are such that products are faster in the type of `_dtype_of_products`."""
    kernel, channels = tuple(weight.shape[2:]), min(weight.shape[:2])
    pixels = _num_pixels(x, kernel, stride, padding)
    if _dtype_of_products() == torch.bfloat16:
        return (
            channels >= MIN_CHANNELS_1X1_AMX if kernel == (1, 1) else channels >= MIN_CHANNELS_AMX and pixels <= MAX_PIXELS_AMX
        )
    least = MIN_CHANNELS_1X1 if kernel == tuple(stride) == (1, 1) else MIN_CHANNELS
    return channels >= least and len(x) * pixels * weight.numel() >= MIN_MULTIPLY_ADDS


def _num_pixels(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> int:
    """Of each image's output."""
    sides = zip(x.shape[2:], kernel, stride, padding, strict=True)
    return math.prod((size + 2 * border - width) // step + 1 for size, width, step, border in sides)


class _Convolution(torch.autograd.Function):
    """The operator, and its gradients: those of the weight, and of the input of a 1x1 convolution, as matrix products."""

    generate_vmap_rule = True  # torch.func goes through it as through the operator

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        """(N, C, H, W) -> (N, O, h, w)."""
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what `backward` takes."""
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """(N, O, h, w) -> those of the input, the weight and the bias that are needed."""
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # with a graph, for second derivatives: the operator has them
            return *_operators(gradient, x, weight, stride, padding, (of_x, of_weight, of_bias)), None, None
        return (
            _input_gradient(gradient, x, weight, stride, padding) if of_x else None,
            weight_gradient(gradient, x, (weight.shape[2], weight.shape[3]), stride, padding) if of_weight else None,
            gradient.sum(dim=(0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def _operators(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The operator's gradients of the input, the weight and the bias, None for those that are not wanted."""
    found: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, x, weight, [len(weight)], stride, padding, [1, 1], False, [0, 0], 1, wanted
    )
    return found


def _input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor | None:
    if weight.shape[2:] != (1, 1) or padding != (0, 0):
        return _operators(gradient, x, weight, stride, padding, (True, False, False))[0]
    pixels = gradient.permute(0, 2, 3, 1)
    product = (pixels.flatten(0, 2) @ weight.flatten(1)).view(*pixels.shape[:3], x.shape[1])
    if stride != (1, 1):
        spread = product.new_zeros((x.shape[0], x.shape[2], x.shape[3], x.shape[1]))
        spread[:, :: stride[0], :: stride[1]] = product
        product = spread
    return product.permute(0, 3, 1, 2)


def weight_gradient(
    gradient: Tensor, x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient of a convolution's weight, one product per place: (N, O, h, w) and (N, C, H, W) -> (O, C, *kernel).

    At each place it is the sum over those pixels of the output for which the place is on the image. Faster with channels last.
    """
    if kernel == (1, 1) and padding == (0, 0):
        x = x[:, :, :: stride[0], :: stride[1]]
        return _product(gradient.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1))[:, :, None, None]
    # Rows of all images together first: any number of successive ones is then one piece of memory.
    output_rows, input_rows = gradient.permute(2, 0, 3, 1), x.permute(2, 0, 3, 1)
    found = {}
    for column in range(kernel[1]):
        to, of = _overlap(column, x.shape[3], gradient.shape[3], stride[1], padding[1])
        outputs, inputs = output_rows[:, :, to].contiguous(), input_rows[:, :, of].contiguous()
        for row in range(kernel[0]):
            to, of = _overlap(row, x.shape[2], gradient.shape[2], stride[0], padding[0])
            found[row, column] = _product(outputs[to], inputs[of])
    places = [found[row, column] for row in range(kernel[0]) for column in range(kernel[1])]
    return torch.stack(places, dim=1).unflatten(1, kernel).permute(0, 3, 1, 2)


def _overlap(place: int, size: int, output_size: int, stride: int, padding: int) -> tuple[slice, slice]:
    """Along one axis, which outputs take this place of the weight to an input and not to the padding, and which inputs."""
    first = max(0, -(-(padding - place) // stride))
    end = max(first, min(output_size, (size - 1 + padding - place) // stride + 1))
    start = first * stride + place - padding
    return slice(first, end), slice(start, start + (end - first) * stride, stride)


def _product(outputs: Tensor, inputs: Tensor) -> Tensor:
    """(..., O) and (..., C) -> (O, C), the sum over all else."""
    return outputs.flatten(0, 2).T @ inputs.flatten(0, 2)
