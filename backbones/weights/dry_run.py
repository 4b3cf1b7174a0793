"""Pickles and torch's archives of weights, gone through without making anything of them: what reading them would take.

A pickle is a program. It can call what copies a text 10^5 times, make a bytearray of 2^40 zeros, hash a tuple of 2^30
objects; a zip archive can hold gigabytes of zeros. Here its stack holds sizes in place of objects."""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from backbones.errors import shorten
from backbones.weights.limits import LONG_TEXT, MAX_DEPTH, MAX_OBJECTS, UnfitContentsError, max_bytes

_STORAGE_BYTES = {
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    "ComplexDoubleStorage": 16,
}  # of an element; of the others 1


@dataclass(frozen=True)
class _Tuple:
    """A tuple in a pickle, and the objects that its hash visits each time that it is a key."""

    items: tuple[Any, ...]
    objects: int = 1
    size: int = 0  # bytes of its texts, elements of its tensors
    depth: int = 1


@dataclass
class _Made:
    """A container, a long text, or what a call returned: what a copy of it would take."""

    objects: int = 1
    size: int = 0  # as of a tuple
    kind: Literal["", "text", "tensor"] = ""


@dataclass
class _DryRun:
    """A pickle's stack without its objects: short texts, numbers and names are kept, `_Tuple` and `_Made` stand for others."""

    file_size: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # heights of the stack
    memo: dict[int, Any] = field(default_factory=dict)
    opcodes: int = 0
    objects: int = 0
    copied: int = 0  # the bytes of the arguments of all calls
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
        elif name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        elif name == "DUP":
            self.push(self.stack[-1])
        elif name == "FRAME":
            if argument > self.file_size:
                raise UnfitContentsError(f"a part of {argument} bytes, though the file has {self.file_size}")
        elif not opcode.stack_before:
            if opcode.stack_after:
                self.push_constant(name, argument)
        else:
            self.change(name, argument, self.pop(opcode), has_result=bool(opcode.stack_after))

    def change(self, name: str, argument: Any, popped: list[Any], *, has_result: bool) -> None:
        """An opcode that takes `popped` off the stack."""
        if name in _TUPLES:
            self.push_tuple(popped)
        elif name in _ADDITIONS:
            container, *items = popped
            if isinstance(container, _Made):
                container.objects += sum(_extent(item)[0] for item in items)
                container.size += sum(_extent(item)[1] for item in items)
            self.push(container)
        elif name == "STACK_GLOBAL":
            self.push(f"{popped[0]} {popped[1]}")
        elif name in ("REDUCE", "NEWOBJ"):
            self.push(self.call(*popped))
        elif name in ("OBJ", "INST"):
            function, *items = [argument, *popped] if name == "INST" else popped
            self.push(self.call(function, _Tuple(tuple(items))))
        elif name == "BUILD":  # may leave the object as it is
            changed, state = popped
            if isinstance(changed, _Made) and changed.kind == "tensor":
                raise UnfitContentsError("a tensor that is changed after it was made")
            self.charge([state])
            self.push(changed)
        else:
            if name == "BINPERSID":
                self.note_storage(popped[0])
            if has_result:
                self.push(_Made(1 + sum(_extent(item)[0] for item in popped)))

    def push(self, value: Any) -> None:
        self.count(value.objects if isinstance(value, _Tuple) else 1)
        self.stack.append(value)

    def count(self, objects: int) -> None:
        self.objects += objects
        if self.objects > MAX_OBJECTS:
            raise UnfitContentsError(f"more than {MAX_OBJECTS} objects, counted as often as they are used")

    def push_constant(self, name: str, argument: Any) -> None:
        if name == "EMPTY_TUPLE":
            self.push(_Tuple(()))
        elif name.startswith("EMPTY"):
            self.push(_Made())
        elif isinstance(argument, _TEXT) and len(argument) > LONG_TEXT:
            self.push(_Made(size=len(argument), kind="text"))
        else:
            self.push(argument)

    def push_tuple(self, items: list[Any]) -> None:
        inner = [item for item in items if isinstance(item, _Tuple)]
        depth = 1 + max((item.depth for item in inner), default=0)
        if depth > MAX_DEPTH:
            raise UnfitContentsError(f"tuples nested more than {MAX_DEPTH} deep")
        objects = 1 + len(items) - len(inner) + sum(item.objects for item in inner)
        self.push(_Tuple(tuple(items), objects, sum(_extent(item)[1] for item in items), depth))

    def put(self, index: int) -> None:
        # The memo is a list as long as its greatest index, which only a forger makes greater than the number of objects.
        if index > self.opcodes:
            raise UnfitContentsError(f"place {shorten(index)} of a table, after {self.opcodes} objects at most")
        self.memo[index] = self.stack[-1]

    def pop(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """Take off the stack what the opcode does, the mark left out."""
        before = opcode.stack_before
        marked = pickletools.markobject in before
        place = self.marks.pop() - before.index(pickletools.markobject) if marked else len(self.stack) - len(before)
        if place < 0:
            raise IndexError("an empty stack")
        items = self.stack[place:]
        del self.stack[place:]
        return items

    def call(self, function: Any, arguments: Any) -> _Made:
        """What stands for the result: a copy of the arguments at most, or a tensor of a size that they say."""
        if not isinstance(arguments, _Tuple):
            raise UnfitContentsError("a call without a tuple of arguments")
        name, items = str(function), arguments.items
        if name == "torch._tensor _rebuild_from_type_v2" and len(items) > 2:  # a function, a class, and its arguments
            return self.call(items[0], items[2])
        is_rebuilt = name.startswith(("torch._utils _rebuild", "torch.nn.parameter "))
        if not is_rebuilt and any(isinstance(item, _Made) and item.kind == "tensor" for item in items):
            raise UnfitContentsError("a tensor that something else is made of")
        if name.startswith("torch") and name.endswith("Tensor"):
            raise UnfitContentsError("a tensor without a storage")
        if name.endswith(" bytearray") and not all(map(_is_text, items)):
            raise UnfitContentsError("a bytearray of something else than bytes")
        if name == "_codecs encode" and items[1:] not in ((), ("latin1",), ("latin-1",)):
            raise UnfitContentsError("bytes in another code than latin1")
        self.charge(items)
        extents = [_extent(item) for item in items]
        made = _Made(1 + sum(objects for objects, _ in extents), sum(size for _, size in extents))
        if is_rebuilt:
            made.kind = "tensor"
            sizes = items[2].items if len(items) > 2 and isinstance(items[2], _Tuple) else ()
            made.size += math.prod(size for size in sizes if isinstance(size, int))
        elif name in ("_codecs encode", "builtins bytearray"):
            made.kind = "text"
        return made

    def charge(self, arguments: Sequence[Any]) -> None:
        """Count what a call may copy, each time anew."""
        for objects, size in map(_extent, arguments):
            self.count(objects)
            self.copied += size
        if self.copied > max_bytes(self.file_size):
            raise UnfitContentsError(f"copies of {shorten(self.copied)} bytes, though the file has {self.file_size}")

    def note_storage(self, reference: Any) -> None:
        """The size that torch's reference states: ("storage", type, key, device, number of elements, ...)."""
        items = reference.items if isinstance(reference, _Tuple) else ()
        if len(items) >= 5 and items[0] == "storage" and isinstance(items[4], int):
            size = _STORAGE_BYTES.get(str(items[1]).rpartition(" ")[2], 1)
            self.storages[str(items[2])] = max(self.storages.get(str(items[2]), 0), items[4] * size)


def _extent(value: Any) -> tuple[int, int]:
    """The objects and bytes that a copy of what stands on the stack takes."""
    if isinstance(value, _Tuple | _Made):
        return value.objects, value.size
    return 1, len(value) if isinstance(value, _TEXT) else 0


def _is_text(value: Any) -> bool:
    return isinstance(value, _TEXT) or (isinstance(value, _Made) and value.kind == "text")


_TEXT = str | bytes | bytearray
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_ADDITIONS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}


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
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise UnfitContentsError("a TorchScript program in place of a state dict (torch.save(model.state_dict(), path))")
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
