"""The layers of a network in the order in which they run, and their multiply-adds: to compare it with papers and other
projects' files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from backbones.base import Backbone
from backbones.errors import BackboneError
from backbones.modes import restored_modes

LayerKind = Literal["conv", "max_pool", "linear"]


@dataclass(frozen=True)
class Layer:
    """A convolution, max-pool or linear layer and its sizes. Windows are square: one side stands for both.

    `name` is the module's in the network, empty for a pool. `norm` is the name of the BatchNorm after it, or None. A linear
    layer has kernel and stride 1. `ceil`: the last window of a pool may stand over the edge.
    """

    kind: LayerKind
    name: str
    kernel: int
    stride: int
    padding: int
    in_channels: int
    out_channels: int
    bias: bool = False
    norm: str | None = None
    ceil: bool = False


def layer_list(network: Backbone, image_size: int = 64) -> list[Layer]:
    """The layers in the order in which they run on an image, with the classifier if the network has one.

    The network may be on the meta device. Raises BackboneError for frozen norms, which are not layers of their own.
    """
    recorder = _Recorder({id(value): name for name, value in network.named_parameters()})
    _run(network, image_size, recorder)
    if any(layer.kind == "conv" and not layer.name for layer in recorder.layers):
        raise BackboneError('frozen norms are folded into the convolutions: build the network with norm="bn"')
    return recorder.layers


def multiply_adds(network: Backbone, image_size: int) -> int:
    """Multiply-adds of the convolutions and linear layers on one image, which the paper calls FLOPs."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import, and needed only here

    counter = FlopCounterMode(display=False)
    _run(network, image_size, counter)
    return counter.get_total_flops() // 2


@torch.no_grad()
def _run(network: Backbone, image_size: int, observer: AbstractContextManager[Any]) -> None:
    """Run the network on a black image inside `observer`, in evaluation mode. The network's own modes are restored."""
    parameters = dict(network.named_parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=next(iter(parameters.values())).device)
    with restored_modes(network):
        network.eval()
        with observer:
            if parameters.keys() & set(network.classifier_keys):
                network.logits(image)
            else:
                network(image)


class _Recorder(TorchFunctionMode):
    """Records the calls of torch's functions that are layers."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names  # of the parameters, by identity
        self.layers: list[Layer] = []
        self.last_output: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is F.conv2d:
            self._add("conv", output, args[1], args[2], _side(args[3]), _side(args[4]))
        elif func is F.linear:
            self._add("linear", output, args[1], args[2], 1, 0)
        elif func is F.max_pool2d:
            kernel, stride, padding = _side(args[1]), _side(kwargs["stride"]), _side(kwargs["padding"])
            channels = output.shape[1]
            self.layers.append(Layer("max_pool", "", kernel, stride, padding, channels, channels, ceil=kwargs["ceil_mode"]))
        elif func is F.batch_norm and args[0] is self.last_output:
            self.layers[-1] = replace(self.layers[-1], norm=self._name(kwargs["weight"]))
        return output

    def _add(self, kind: LayerKind, output: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> None:
        kernel = weight.shape[-1] if kind == "conv" else 1
        self.layers.append(
            Layer(kind, self._name(weight), kernel, stride, padding, weight.shape[1], weight.shape[0], bias is not None)
        )
        self.last_output = output

    def _name(self, weight: Tensor) -> str:
        return self.names.get(id(weight), "").removesuffix(".weight")


def _side(sizes: int | Sequence[int]) -> int:
    """The one number of a square: 3 or (3, 3) -> 3."""
    return sizes if isinstance(sizes, int) else sizes[0]
