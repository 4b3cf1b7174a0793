"""Pickles of other projects: numpy arrays in plain containers, and nothing else.

A pickle is a program; an ordinary unpickler runs whatever it names. This one knows the few names that arrays are made with,
and has stand-ins of its own for them: numpy's trust a pickle's numbers, and a tampered one can crash them.
"""

from __future__ import annotations

import collections
import math
import pickle
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from backbones.weights.dry_run import check_pickle
from backbones.weights.limits import UnfitContentsError, check_contents

# Protocol 2 and torch's magic number: what torch.save wrote before it wrote zip archives.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    ImportError,
    NotImplementedError,
    MemoryError,
    struct.error,
)


class ForbiddenPickleError(ValueError):
    """A pickle names a class or function that could run code."""


class DamagedPickleError(ValueError):
    """Not a pickle, or one that is cut short or damaged."""


def load_pickle(file: BinaryIO, file_size: int) -> Any:
    """The plain containers, strings, numbers and numpy arrays of a pickle, Python 2's too. Runs none of its code.

    Raises ForbiddenPickleError for anything else in it, UnfitContentsError for what would grow beyond bounds,
    DamagedPickleError where it cannot be read.
    """
    try:
        check_pickle(file, file_size)
        file.seek(0)
        contents = _Unpickler(file, encoding="latin1").load()
        check_contents(contents, file_size)
        return _without_stand_ins(contents)
    except (ForbiddenPickleError, DamagedPickleError, UnfitContentsError):
        raise
    except _DAMAGE as error:
        raise DamagedPickleError(f"{type(error).__name__}: {error}") from None


class _SafeCallable:
    """A callable that a pickle can call but not alter."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ForbiddenPickleError("a change of what makes arrays")


class _Dtype:
    """In place of numpy.dtype: plain numbers and strings only."""

    def __init__(self, code: str | bytes, align: bool = False, copy: bool = False) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248]|[SU]\d{1,6})", text):
            raise ForbiddenPickleError(f"an array of type {text!r}")
        self.value = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *compound = state
        text: Any = order.decode("ascii") if isinstance(order, bytes) else order
        if text not in ("<", ">", "|", "=") or any(part is not None for part in compound[:3]):
            raise DamagedPickleError(f"a number type of state {state!r}")
        self.value = self.value.newbyteorder(text)


class _Array:
    """In place of numpy.ndarray: its contents come with the state that follows."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """The array, if its data has just the size that the shape says."""
    if isinstance(data, str):  # Python 2's bytes
        data = data.encode("latin1")
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
        raise DamagedPickleError("an array without a type or data")
    if any(not isinstance(size, int) or size < 0 for size in shape) or len(data) != math.prod(shape) * dtype.value.itemsize:
        raise DamagedPickleError(f"an array of shape {shape!r} from {len(data)} bytes")
    return np.frombuffer(data, dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 pickles bytes for Python 2; other codecs, such as the decompressing ones, are left out."""
    if encoding != "latin1":
        raise ForbiddenPickleError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise ForbiddenPickleError("an array of another class")
    return _Array()


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (), "C")[()]


def _without_stand_ins(value: Any) -> Any:
    """The same containers with arrays in place of their stand-ins."""
    if isinstance(value, dict):
        return type(value)((_without_stand_ins(key), _without_stand_ins(part)) for key, part in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_without_stand_ins(part) for part in value)
    if isinstance(value, _SafeCallable):
        raise DamagedPickleError("a maker of arrays, not an array")
    return value.value if isinstance(value, _Array | _Dtype) else value


_NDARRAY = _SafeCallable(_Array)
# numpy 2 moved `numpy.core` to `numpy._core`; both names stand in pickles.
_ALLOWED_NAMES = {
    ("collections", "OrderedDict"): _SafeCallable(collections.OrderedDict),
    ("_codecs", "encode"): _SafeCallable(_encode),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _SafeCallable(_Dtype),
    **{
        (f"{core}.{name}", maker): _SafeCallable(make)
        for core in ("numpy.core", "numpy._core")
        for name, maker, make in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _array),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What stands in for that name, if it is one of those that make arrays and plain containers."""
        if (module, name) not in _ALLOWED_NAMES:
            raise ForbiddenPickleError(f"{module}.{name}")
        return _ALLOWED_NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuses references to objects outside the pickle."""
        raise ForbiddenPickleError("an object outside the file")
