"""Bounds for files of weights: how much a small file may grow into, found before anything walks, copies or prints it.

A pickle can name one object many times, and 28 doublings of a list are a few hundred bytes; a zip archive can hold gigabytes
of zeros; a tensor of one byte can claim 10^12 elements. What is counted here is what a walk would see: an object as often as
it is used."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

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

_LONG_TEXT = 100  # characters that count as one more object
_STORAGE_BYTES = {
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    "ComplexDoubleStorage": 16,
}  # of an element; of the others 1


class UnfitContentsError(ValueError):
    """What a file of weights does not need and what could cost too much. The message says what the file holds."""


def max_bytes(file_size: int) -> int:
    """The bytes that the contents of a file of that size may take."""
    return MAX_GROWTH * file_size + SLACK


@dataclass(frozen=True)
class _Tuple:
    """A tuple in a pickle, and the objects that its hash visits each time that it is a key."""

    items: tuple[Any, ...]
    objects: int
    depth: int


@dataclass
class _DryRun:
    """A pickle's stack without its objects: texts, numbers and tuples are kept, None stands for all else."""

    file_size: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # heights of the stack
    memo: dict[int, Any] = field(default_factory=dict)
    opcodes: int = 0
    objects: int = 0
    storages: dict[str, int] = field(default_factory=dict)  # the bytes that torch's storages are said to have, by key

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """What an opcode does to the stack and the memo."""
        self.opcodes += 1
        name = opcode.name
        if name in _PUTS:
            self.put(len(self.memo) if argument is None else argument)
        elif name in _GETS:
            self.push(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif not opcode.stack_before:
            if name == "FRAME" and argument > self.file_size:
                raise UnfitContentsError(f"a part of {argument} bytes, though the file has {self.file_size}")
            if opcode.stack_after:
                self.push(argument)
        elif name in _TUPLES:
            self.push_tuple(self.pop(opcode))
        elif name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        elif name == "DUP":
            self.push(self.stack[-1])
        elif name == "BUILD":  # may leave its first argument as it is
            self.push(self.pop(opcode)[0])
        else:
            self.check(name, self.pop(opcode))
            for _ in opcode.stack_after:
                self.push(None)

    def push(self, value: Any) -> None:
        self.objects += value.objects if isinstance(value, _Tuple) else 1
        if self.objects > MAX_OBJECTS:
            raise UnfitContentsError(f"more than {MAX_OBJECTS} objects, counted as often as they are used")
        self.stack.append(value)

    def push_tuple(self, items: list[Any]) -> None:
        inner = [item for item in items if isinstance(item, _Tuple)]
        depth = 1 + max((item.depth for item in inner), default=0)
        if depth > MAX_DEPTH:
            raise UnfitContentsError(f"tuples nested more than {MAX_DEPTH} deep")
        self.push(_Tuple(tuple(items), 1 + len(items) - len(inner) + sum(item.objects for item in inner), depth))

    def put(self, index: int) -> None:
        # The memo is a list as long as its greatest index, which only a forger makes greater than the number of objects.
        if index > self.opcodes:
            raise UnfitContentsError(f"place {shorten(index)} of a table, after {self.opcodes} objects at most")
        self.memo[index] = self.stack[-1]

    def pop(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """Take off the stack what the opcode does; where that goes down to a mark, only what is above it is returned."""
        before = opcode.stack_before
        marked = pickletools.markobject in before
        place = self.marks.pop() if marked else len(self.stack) - len(before)
        items = self.stack[place:]
        below = before.index(pickletools.markobject) if marked else 0
        if place < below:
            raise IndexError("an empty stack")
        del self.stack[place - below :]
        return items

    def check(self, name: str, popped: list[Any]) -> None:
        """Sizes that the pickle states, of what is made of them."""
        last = popped[-1] if popped else None
        items = last.items if isinstance(last, _Tuple) else ()
        if name == "REDUCE" and str(popped[0]).endswith("bytearray") and any(_is_above(item, self.file_size) for item in items):
            raise UnfitContentsError(f"a bytearray of {shorten(items[0])} bytes, though the file has {self.file_size}")
        # torch's: ("storage", type, key, device, number of elements, ...)
        if name == "BINPERSID" and len(items) >= 5 and items[0] == "storage" and isinstance(items[4], int):
            size = _STORAGE_BYTES.get(str(items[1]).rpartition(" ")[2], 1)
            self.storages[str(items[2])] = max(self.storages.get(str(items[2]), 0), items[4] * size)


_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}


def _is_above(value: Any, bound: int) -> bool:
    return isinstance(value, int) and value > bound


def check_pickle(file: BinaryIO, file_size: int) -> dict[str, int]:
    """Go through the pickle that begins at the file's position, up to its end, without making any of its objects.

    Returns the bytes that each of torch's storages is said to have. Raises UnfitContentsError where reading it could take
    more time or memory than the file justifies; where it is damaged, what `pickletools.genops` and an empty stack raise.
    """
    run = _DryRun(file_size)
    for opcode, argument, _ in pickletools.genops(file):
        run.step(opcode, argument)
    total = sum(run.storages.values())
    if total > max_bytes(file_size):
        raise UnfitContentsError(f"tensors of {shorten(total)} bytes, though the file has {file_size}")
    return run.storages


def check_archive(file: BinaryIO, file_size: int) -> None:
    """Raise UnfitContentsError where a zip archive of torch.save's unpacks to far more than its size, or says so.

    Where it is damaged, what `zipfile` raises."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if total > max_bytes(file_size):
            raise UnfitContentsError(f"files of {total} bytes packed into {file_size}")
        sizes = {entry.filename.lower(): entry.file_size for entry in entries}  # torch's reader ignores case
        if len(sizes) < len(entries):
            raise UnfitContentsError("two files of one name")
        for entry in entries:
            if entry.filename.lower().endswith("data.pkl"):
                folder = entry.filename.lower().removesuffix("data.pkl")
                for key, claimed in check_pickle(io.BytesIO(archive.read(entry)), file_size).items():
                    stored = sizes.get(f"{folder}data/{key.lower()}", 0)
                    if claimed > stored:
                        raise UnfitContentsError(f"{stored} bytes of a tensor of {shorten(claimed)}")


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
            return 1 + len(value) // _LONG_TEXT, 0, 0
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
