"""Bounds for files of weights: how much a small file may grow into, found before anything walks, copies or prints it.

A pickle can name one object many times, and 28 doublings of a list are a few hundred bytes; a tensor of one byte can claim
10^12 elements. What is counted here is what a walk would see: an object as often as it is used. `dry_run` looks at a file
before it is read, this module at what has been read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.errors import shorten

MAX_OBJECTS = 2_000_000
"""Objects in a pickle, and containers, numbers and texts in what it holds."""
MAX_TENSORS = 50_000
MAX_DEPTH = 100
MAX_GROWTH = 4
"""How many times the file's size what it holds may take, tensors that share memory counted one by one."""
SLACK = 64 * 2**20
"""Bytes beside that: of small files nothing is refused that costs nothing."""
MAX_SAFETENSORS_HEADER = 16 * 2**20

LONG_TEXT = 100  # characters that count as one more object


class UnfitContentsError(ValueError):
    """What a file of weights does not need and what could cost too much. The message says what the file holds."""


def max_bytes(file_size: int) -> int:
    """The bytes that the contents of a file of that size may take."""
    return MAX_GROWTH * file_size + SLACK


@dataclass
class _Walk:
    """A walk through plain containers. `totals` has what is in each container walked: objects, tensors, bytes of tensors."""

    bytes_allowed: int
    totals: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    place: list[Any] = field(default_factory=list)  # the keys that lead here

    def count(self, value: Any) -> tuple[int, int, int]:
        if isinstance(value, Tensor):
            return 1, 1, self.tensor_bytes(value)
        if isinstance(value, np.ndarray):
            return 1, 1, value.nbytes
        if isinstance(value, str | bytes | bytearray):
            return 1 + len(value) // LONG_TEXT, 0, 0
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return 1, 0, 0
        if id(value) in self.open:
            raise UnfitContentsError("a container that holds itself")
        if id(value) not in self.totals:
            self.open.add(id(value))
            self.totals[id(value)] = self.count_items(value)
            self.open.remove(id(value))
        return self.totals[id(value)]

    def count_items(self, container: Any) -> tuple[int, int, int]:
        if len(self.place) >= MAX_DEPTH:
            raise UnfitContentsError(f"containers nested more than {MAX_DEPTH} deep")
        is_mapping = isinstance(container, Mapping)
        objects, tensors, size = 1, 0, 0
        for key, item in container.items() if is_mapping else enumerate(container):
            self.place.append(key)
            more_objects, more_tensors, more_bytes = self.count(item)
            if is_mapping:
                more_objects += self.count(key)[0]
            self.place.pop()
            objects, tensors, size = objects + more_objects, tensors + more_tensors, size + more_bytes
        if objects > MAX_OBJECTS:
            raise UnfitContentsError(f"more than {MAX_OBJECTS} objects, counted as often as they are used")
        if tensors > MAX_TENSORS:
            raise UnfitContentsError(f"more than {MAX_TENSORS} tensors")
        if size > self.bytes_allowed:
            raise UnfitContentsError(
                f"tensors of {size} bytes, more than {self.bytes_allowed}, {MAX_GROWTH} times the file's size"
            )
        return objects, tensors, size

    def tensor_bytes(self, tensor: Tensor) -> int:
        if (fault := tensor_fault(tensor)) is not None:
            name = ".".join(key if isinstance(key, str) else shorten(key) for key in self.place)
            raise UnfitContentsError(f"{fault}, {shorten(name)}")
        return tensor.numel() * tensor.element_size()


def check_contents(contents: Any, file_size: int) -> None:
    """Raise UnfitContentsError where plain containers, tensors and arrays are too many, too deep, circular or of another kind.

    What passes can be walked, copied and printed in a time and memory that fit a file of that size.
    """
    _Walk(max_bytes(file_size)).count(contents)


def tensor_fault(tensor: Tensor) -> str | None:
    """Why a tensor cannot be weights, as in "a sparse tensor"; None for a plain one."""
    if tensor.is_quantized:
        return "a quantised tensor"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "a sparse or nested tensor"
    if tensor.is_meta or (tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0):
        return "a tensor without values"
    return None if type(tensor) in (Tensor, torch.nn.Parameter) else f"a tensor of the class {type(tensor).__name__}"
