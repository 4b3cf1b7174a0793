"""Pools of any size in torch.export: a repair of torch's shape functions that newer versions of torch do not need.

To know the shape of a pool's output, torch before 2.14 divides the sides of its input as C does, and looks at the remainder.
While a graph is traced, that makes the remainder of the traced image's sides a condition on every other image: the exported
file would refuse most sizes. Newer versions use `//`. There is no public way to replace this division, so it is replaced in
torch's own module for as long as a graph is traced, and nowhere else in this package is a private part of torch touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import floordiv

import torch

REPAIRED_IN = "2.14"


@contextmanager
def pools_of_any_size() -> Iterator[None]:
    """Trace pools without conditions on the sizes of their inputs. Does nothing where torch needs no repair."""
    import torch._meta_registrations as shape_functions

    functions = vars(shape_functions)
    original = functions.get("div_rtn")
    if torch.__version__ >= REPAIRED_IN or original is None:
        yield
        return
    functions["div_rtn"] = floordiv
    try:
        yield
    finally:
        functions["div_rtn"] = original
