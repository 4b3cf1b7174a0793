"""Memory that a process gets once and keeps: what a network frees and asks for again at each image."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for later tensors instead of returning it to the system; whether it has been told.

    A map of features is tens of megabytes. Memory of that size is by default given back as soon as a tensor is freed, and the
    next one's has to be zeroed by the system, page by page, which on a CPU takes as long as a cheap layer. It is for the
    whole process and cannot be undone, so that a program decides it, not this library: the commands do. Other systems and
    other allocators stay as they are.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _LARGEST)) and bool(mallopt(_MMAP_MAX, 0))
