"""Memory that runs out, the computer's or the device's: recognised whatever raises it, and told in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# What CUDA, cuDNN, cuBLAS, MPS and the CPU's allocators write into a RuntimeError.
_TEXTS = re.compile(r"out of memory|(can.?t|cannot) allocate|not enough memory|ALLOC_FAILED|bad_alloc", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _TEXTS.search(str(error)) is not None


@contextmanager
def out_of_memory_as(make_error: Callable[[], Exception]) -> Iterator[None]:
    """A context in which the error for memory that runs out is the one that `make_error` gives, without a traceback."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise make_error() from None
