"""A GPU for machines without one: tensors of the CPU that say they are on "cuda:0".

Every operator computes on the CPU, so that masks, NMS and whatever sizes depend on take their true course, along the branches
that CUDA takes. Tensors of both devices in one operator are an error, as on a GPU; where a GPU would make the host wait for it,
and what would be launched there, is counted by the line of our code. Nothing here has a gradient: autograd asks the CUDA
runtime for a stream. Networks are moved inside `pretended_gpu()`, after `requires_grad_(False)`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torchvision  # noqa: F401  its Python half registers operators, which no mode should see
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from backbones import constants

GPU = torch.device("cuda", 0)
PACKAGES = tuple(f"{Path(__file__).parents[1] / name}/" for name in ("backbones", "detection"))

# Operators whose result's size, or whose result in Python, only the data decide.
DATA_DEPENDENT = frozenset(
    {"_local_scalar_dense", "bincount", "equal", "is_nonzero", "masked_select", "nms", "nonzero"}
    | {"_unique2", "unique_consecutive", "unique_dim"}
)
# Methods that ask the CUDA runtime for the device before any operator is called: they are met one level above.
READERS: frozenset[Callable[..., Any]] = frozenset(
    {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.nonzero}
)
COPIERS: frozenset[Callable[..., Any]] = frozenset({Tensor.copy_, Tensor.new_tensor})
PLAIN: frozenset[Callable[..., Any]] = frozenset({Tensor.contiguous, Tensor.__invert__})
INDEXING: frozenset[Callable[..., Any]] = frozenset({Tensor.__getitem__, Tensor.__setitem__})


class GpuTensor(Tensor):
    """A tensor of the pretended GPU; `host` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> GpuTensor:
        made: GpuTensor = Tensor._make_wrapper_subclass(
            cls, host.shape, strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype, device=GPU
        )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{operator}: a tensor of a pretended GPU is used outside of it")


def to_host(values: Any) -> Any:
    """The same nested values with plain tensors."""
    return tree_map_only(GpuTensor, lambda tensor: tensor.host, values)


def to_gpu(values: Any) -> Any:
    """The same nested values with tensors of the GPU."""
    return tree_map_only(Tensor, lambda tensor: tensor if isinstance(tensor, GpuTensor) else GpuTensor(tensor), values)


def on_gpu(values: Any) -> bool:
    """Whether some of the nested values are tensors of the GPU."""
    return any(isinstance(value, GpuTensor) for value in tree_leaves(values))


class Counts(TorchDispatchMode):
    """Computes all operators, and counts by place, "file:line" of this project, what they would cost on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()

    def restart(self) -> None:
        """Forget what was counted."""
        self.waits.clear()
        self.launches.clear()

    def note(self, *, waits: bool, launches: bool) -> None:
        """Count for the line of this project that runs."""
        if waits or launches:
            place = _place()
            self.waits[place] += waits
            self.launches[place] += launches
            self.waits += Counter()  # without the zeros

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options, name = dict(kwargs or {}), operator._schema.name.split("::")[1]
        composite = torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd")
        if composite and not name.startswith("upsample_"):  # whose parts are Python, and ask for a device
            with self:  # in inference mode operators arrive whole that are several of others
                return operator.decompose(*args, **options)
        device = options.pop("device", None)
        result_on_gpu = on_gpu((args, options)) if device is None else torch.device(device).type == GPU.type
        crosses = name in ("_to_copy", "copy_") and _mixed((args, options), result_on_gpu)
        if name not in ("_to_copy", "copy_"):
            require_one_device(operator, (args, options))
        if "device" in (argument.name for argument in operator._schema.arguments):
            options["device"] = torch.device("cpu")
        options.pop("pin_memory", None)
        copy_waits = crosses and not (result_on_gpu and options.get("non_blocking"))
        sized = name in DATA_DEPENDENT or (name == "repeat_interleave" and options.get("output_size") is None)
        masked = name in ("index", "index_put_", "index_put") and _has_mask(args[1])
        gpu = on_gpu((args, options))
        self.note(waits=copy_waits or (gpu and (sized or masked)), launches=(gpu or crosses) and not operator.is_view)
        found = operator(*to_host(args), **to_host(options))
        if operator._schema.is_mutable and isinstance(found, Tensor):
            return args[0]  # what was written to, itself
        if not result_on_gpu:
            return found
        # In inference mode a view of a tensor that was made outside is none of its tensors.
        with torch.inference_mode(torch.is_inference_mode_enabled() and not (operator.is_view and not args[0].is_inference())):
            return to_gpu(found)


class Methods(TorchFunctionMode):
    """Computes the methods of the GPU's tensors that ask for a device before they call an operator."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        met = function in READERS or function in COPIERS or function in PLAIN or function in INDEXING
        if not met or not on_gpu(args[:2]):
            return function(*args, **options)
        if function is Tensor.copy_ and not isinstance(args[0], GpuTensor):
            self.counts.note(waits=True, launches=True)
            return args[0].copy_(args[1].host)
        waits, launches = self._cost(function, args)
        self.counts.note(waits=waits, launches=launches)
        found = function(*to_host(args), **to_host(options))
        return args[0] if function is Tensor.copy_ else to_gpu(found)

    @staticmethod
    def _cost(function: Callable[..., Any], args: Sequence[Any]) -> tuple[bool, bool]:
        """Whether the host waits, and whether anything is launched."""
        if function in READERS or function is Tensor.new_tensor:
            return True, True
        foreign = len(args) > 1 and isinstance(args[-1], Tensor) and not isinstance(args[-1], GpuTensor) and args[-1].dim() > 0
        if function is Tensor.copy_:
            return foreign, True
        if function in PLAIN:
            return False, function is Tensor.__invert__
        index = [each for each in tree_leaves(args[1]) if isinstance(each, Tensor)]
        # A mask that selects what is set to one number is no list of places: nothing is counted for it.
        fills = function is Tensor.__setitem__ and not isinstance(args[2], Tensor)
        listed = _has_mask(index) and not fills
        keys = args[1] if isinstance(args[1], tuple) else (args[1],)
        copied = foreign or any(not isinstance(each, GpuTensor) for each in index) or any(isinstance(key, list) for key in keys)
        return listed or copied, bool(index) or function is Tensor.__setitem__


def require_one_device(operator: Any, values: Any) -> None:
    """Raise RuntimeError, as a GPU does, where tensors of both devices meet; a single number of the CPU may."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    if on_gpu(tensors) and any(not isinstance(value, GpuTensor) and value.dim() for value in tensors):
        raise RuntimeError(f"{operator}: expected all tensors on one device, found cuda:0 and cpu, at {_place()}")


def _mixed(values: Any, result_on_gpu: bool) -> bool:
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    return any(isinstance(value, GpuTensor) != result_on_gpu for value in tensors)


def _has_mask(index: Any) -> bool:
    return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in tree_leaves(index))


def _place() -> str:
    frame = sys._getframe(1)
    while not frame.f_code.co_filename.startswith(PACKAGES):
        if frame.f_back is None:
            return "elsewhere"
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


@contextmanager
def pretended_gpu() -> Iterator[Counts]:
    """Inside, "cuda:0" is there; what is counted is the result. Tensors of it are of no use afterwards."""
    counts = Counts()
    with ExitStack() as stack:
        stack.enter_context(patch("torch.cuda._lazy_init"))
        stack.enter_context(patch("torch.cuda.get_device_capability", lambda *_: (8, 0)))
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(torch.no_grad())
        stack.callback(constants.forget)
        stack.enter_context(counts)
        stack.enter_context(Methods(counts))
        # `torch.tensor(..., device=)` then makes a tensor of the CPU and copies it, where the copy is seen.
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # weights get other tensors, not other contents
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        yield counts
