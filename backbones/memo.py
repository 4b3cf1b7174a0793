"""What was computed from tensors that seldom change, kept until one of them does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from weakref import ref

import torch
from torch import Tensor

Value = TypeVar("Value")


class Memo(Generic[Value]):
    """One value and the tensors that it was computed from, which it does not keep alive. Copies and pickles of it are empty.

    A tensor has changed where it is another one, has other memory, or was written to in place; what is written by way of
    `tensor.data` is not noticed, as by autograd.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the value."""
        self._kept: tuple[list[_Seen], Any, Value] | None = None

    def get(self, sources: Sequence[Tensor], compute: Callable[[], Value], extra: Any = None) -> Value:
        """The kept value, or a new one if a source has changed or `extra`, which may be anything that compares, is another.

        Where a graph is being recorded for export or compilation, it is computed always: what happens once is not in a graph.
        """
        if torch.compiler.is_compiling():
            return compute()
        if self._kept is not None:
            seen, its_extra, value = self._kept
            if its_extra == extra and all(map(_Seen.is_same, seen, sources)):
                return value
        if any(source.is_inference() for source in sources):  # these do not tell of changes
            return compute()
        # Made in no inference mode, so that a training may use it later.
        with torch.inference_mode(False), torch.no_grad():
            value = compute()
        self._kept = [_Seen(source) for source in sources], extra, value
        return value

    def __reduce__(self) -> tuple[type[Memo[Value]], tuple[()]]:
        return type(self), ()


class _Seen:
    """A tensor as it was."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = ref(tensor)
        self.memory, self.version = _memory(tensor), tensor._version

    def is_same(self, tensor: Tensor) -> bool:
        """Whether it is this one, unchanged."""
        return self.tensor() is tensor and self.version == tensor._version and self.memory == _memory(tensor)


def _memory(tensor: Tensor) -> int:
    # Tensors of other classes, such as traced ones, may have no memory.
    return tensor.data_ptr() if type(tensor) in (Tensor, torch.nn.Parameter) else 0
