"""Pickles of other projects: numpy arrays in plain containers, and nothing else.

A pickle is a program; an ordinary unpickler runs whatever it names. This one knows the few names that arrays are made with.
"""

from __future__ import annotations

import collections
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

# Protocol 2 and torch's magic number: what torch.save wrote before it wrote zip archives.
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
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


def is_plain_pickle(path: Path) -> bool:
    """Whether a readable file looks like a pickle that torch.save did not write."""
    with path.open("rb") as file:
        start = file.read(len(_LEGACY_TORCH))
    if start == _LEGACY_TORCH or start[:2] == b"PK":  # torch.save's two formats
        return False
    return start[:1] == b"\x80" or path.suffix == ".pkl"


def load_pickle(path: Path) -> Any:
    """The plain containers, strings, numbers and numpy arrays of a pickle, Python 2's too. Runs none of its code.

    Raises ForbiddenPickleError for anything else in it, DamagedPickleError where it cannot be read.
    """
    with path.open("rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except ForbiddenPickleError:
            raise
        except _DAMAGE as error:
            raise DamagedPickleError(f"{type(error).__name__}: {error}") from None


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 pickles bytes for Python 2; other codecs, such as the decompressing ones, are left out."""
    if encoding != "latin1":
        raise ForbiddenPickleError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes | str) -> np.ndarray:
    """What numpy's own _reconstruct gives: an array that takes its contents from the state that follows."""
    if kind is not np.ndarray:
        raise ForbiddenPickleError(f"an array of class {kind!r}")
    return np.ndarray((0,), "b")


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise ForbiddenPickleError(f"a numpy scalar of type {dtype!r}")
    return np.frombuffer(data, dtype, count=1)[0]


def _array_of_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise ForbiddenPickleError(f"an array of type {dtype!r}")
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


# numpy 2 moved `numpy.core` to `numpy._core`; both names stand in pickles.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED |= {
        (f"{_core}.multiarray", "_reconstruct"): _empty_array,
        (f"{_core}.multiarray", "scalar"): _scalar,
        (f"{_core}.numeric", "_frombuffer"): _array_of_buffer,
    }


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The object of that name, if it is one of those that make arrays and plain containers."""
        if (module, name) not in _ADMITTED:
            raise ForbiddenPickleError(f"{module}.{name}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuses references to objects outside the pickle."""
        raise ForbiddenPickleError("an object outside the file")
