"""Batch normalisation: frozen (appendix A: constant scales and offsets), folded into the convolution before it, and
recomputed after training by a strict average (section 3.4).

N images, C channels, H x W feature cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import packed
from backbones.convolution import conv2d
from backbones.memo import Memo
from backbones.modes import restored_modes

TrainableNorm = nn.BatchNorm2d | nn.SyncBatchNorm


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm as a constant scale and offset per channel: four buffers with BatchNorm2d's names, no parameters.

    State dicts go both ways between the two: BatchNorm2d's step count is dropped here and starts at zero there.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self._constants: Memo[tuple[Tensor, Tensor]] = Memo()
        self._folded: Memo[tuple[Tensor, Tensor]] = Memo()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The two (C,) constants, at least in float32: norm(x) = x * scale + shift. Computed once; not to be written to."""
        buffers = self.weight, self.bias, self.running_mean, self.running_var
        return self._constants.get(buffers, lambda: self._compute_constants(*buffers))

    def _compute_constants(self, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(weight.dtype, torch.float32)
        scale = weight.to(dtype) * (var.to(dtype) + self.eps).rsqrt()
        return scale, bias.to(dtype) - mean.to(dtype) * scale

    def fold_into(self, conv: nn.Conv2d, *, pack: bool = False) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that computes norm(conv(x)), in the type of the convolution's weight.

        Where no gradient is asked for they are in autocast's type, computed once, and not to be written to. With `pack` the
        weight is one for `packed.convolve`.
        """
        if _needs_gradient(conv):
            self._folded.clear()
            return _fold(conv, *self.scale_and_shift())
        dtype = packed.computed_dtype(conv.weight)

        def compute() -> tuple[Tensor, Tensor]:
            weight, bias = (value.to(dtype) for value in _fold(conv, *self.scale_and_shift()))
            return packed.pack(conv, weight) if pack else weight, bias

        sources = [conv.weight, self.weight, self.bias, self.running_mean, self.running_var]
        return self._folded.get(sources if conv.bias is None else [*sources, conv.bias], compute, (dtype, pack))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"{len(self.weight)}, eps={self.eps}"


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor, *, shortcut: Tensor | None = None, relu: bool = False) -> Tensor:
    """norm(conv(x)), then the shortcut added and a ReLU, where asked for. A frozen norm is folded into the weight, which saves
    a pass over the activations both ways.

    The fold is computed in float32 and cast afterwards, by autocast or to the weight's own type. Forward hooks of the
    two modules fire only where the norm is not frozen.
    """
    if isinstance(norm, FrozenBatchNorm2d) and packed.takes(conv, x, norm.training):
        weight, bias = norm.fold_into(conv, pack=True)
        return packed.convolve(conv, x, weight, bias, shortcut=shortcut, relu=relu)
    out = _conv_norm(conv, norm, x)
    if shortcut is not None:
        out += shortcut
    return F.relu(out, inplace=True) if relu else out


def _conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(conv(x))
    # By the mode, not by whether gradients are asked for: a loss is the same with and without them.
    if norm.training and _has_fewer_pixels_than_weights(conv, x):
        scale, shift = norm.scale_and_shift()
        if conv.bias is not None:
            shift = shift + conv.bias * scale
        out = conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        return torch.addcmul(_by_channel(shift, out), out, _by_channel(scale, out))
    weight, bias = norm.fold_into(conv)
    return conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def conv1x1_before_pooling(conv: nn.Conv2d, norm: nn.Module, features: Tensor) -> Tensor:
    """A 1x1 convolution without bias on the whole map, (N, C, H, W) -> (N, D, H, W): once, not on every RoI.

    A linear pooling such as RoIAlign may follow, and then `norm_after_pooling`. The convolution's stride is left to the
    pooling; the scale of a frozen norm is in the weight.
    """
    return conv2d(features, norm.fold_into(conv)[0] if isinstance(norm, FrozenBatchNorm2d) else conv.weight)


def norm_after_pooling(norm: nn.Module, cells: Tensor) -> Tensor:
    """The rest of norm(conv(...)) on the cells of each RoI, (R, D, S, S), after `conv1x1_before_pooling` and the pooling."""
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(cells)
    # A shift does not commute with the pooling: beyond the map's border there is nothing to shift.
    _, shift = norm.scale_and_shift()
    return cells + _by_channel(shift, cells)


def _needs_gradient(conv: nn.Conv2d) -> bool:
    return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in conv.parameters())


def _fold(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    return (conv.weight * scale.view(-1, 1, 1, 1)).to(conv.weight.dtype), shift.to(conv.weight.dtype)


def _has_fewer_pixels_than_weights(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether a pass over the output is cheaper than one over the weight, as for conv5 on a few small regions."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3] // (conv.stride[0] * conv.stride[1])
    return pixels < conv.weight[0].numel()


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    """(C,) constants in the shape and type in which they apply to `like`, (N, C, H, W)."""
    return values.to(like.dtype).view(1, -1, 1, 1)


def freeze_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d in the module, in place, by a frozen one of the same values; returns the module."""
    if isinstance(module, TrainableNorm):
        frozen = FrozenBatchNorm2d(module.num_features, module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen.to(next(module.buffers()).device)
    for name, child in module.named_children():
        setattr(module, name, freeze_batch_norm(child))
    return module


class _Statistics:
    """Mean and sum of squared deviations of all values of each channel so far (Chan's formula), in float64."""

    def __init__(self, num_features: int) -> None:
        self.count = 0
        self.mean = torch.zeros(num_features, dtype=torch.float64, device="cpu")
        self.squared_deviations = torch.zeros(num_features, dtype=torch.float64, device="cpu")

    def add(self, x: Tensor) -> None:
        """Add one batch of (N, C, H, W) values."""
        var, mean = (value.cpu().double() for value in torch.var_mean(x.detach().float(), (0, 2, 3), correction=0))
        count = x.numel() // x.shape[1]
        total = self.count + count
        delta = mean - self.mean
        self.squared_deviations += var * count + delta.square() * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    def variance(self) -> Tensor:
        """(C,) unbiased variance, which is what BatchNorm2d keeps."""
        return self.squared_deviations / max(self.count - 1, 1)


@torch.no_grad()
def recompute_bn_statistics(model: nn.Module, batches: Iterable[Any]) -> int:
    """Replace the moving averages of BatchNorm by a strict average over a large training batch (section 3.4).

    Each of `batches` is handed to `model`; their union is the large batch. One pass: every BatchNorm normalises a
    mini-batch by that mini-batch's own statistics, as in training, so that later layers see what they were trained on;
    what it keeps are the mean and unbiased variance of all values it saw in all batches (mean of the variances plus variance
    of the means). Layers of frozen stages keep theirs. Modes are restored. Returns the number of layers renewed.
    Raises ValueError if there is no batch.
    """
    with restored_modes(model):
        model.train()
        norms = [module for module in model.modules() if isinstance(module, TrainableNorm)]
        layers = [norm for norm in norms if norm.training and norm.track_running_stats]
        if not layers:
            return 0  # no norm whose statistics could be computed
        model.eval()
        statistics = _observe(model, layers, batches)
    for layer, seen in zip(layers, statistics, strict=True):
        if seen.count == 0:
            raise ValueError("recomputing BatchNorm statistics needs at least one batch that reaches every layer")
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean.copy_(seen.mean)
        layer.running_var.copy_(seen.variance())
    return len(layers)


def _observe(model: nn.Module, layers: Sequence[TrainableNorm], batches: Iterable[Any]) -> list[_Statistics]:
    """Run the batches with `layers` in training mode, their moving averages untouched."""
    statistics = [_Statistics(layer.num_features) for layer in layers]
    momenta = [layer.momentum for layer in layers]
    hooks = []
    try:
        for layer, seen in zip(layers, statistics, strict=True):
            layer.train().momentum = 0.0
            hooks.append(layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.add(inputs[0])))
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    return statistics
