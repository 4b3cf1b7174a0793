"""Every field of a checkpoint in turn replaced by what cannot be: for tests of all that reads checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

Place = tuple[Any, ...]
MISSING = object()

# Made anew for each use. A value that stands where it fits (None for what may be absent) is no fault.
HOSTILE: dict[str, Callable[[], Any]] = {
    "missing": lambda: MISSING,
    "None": lambda: None,
    "text": lambda: "x",
    "control characters": lambda: "\x1b[31m\n\x00",
    "list": lambda: [],
    "list of lists": lambda: [[[]]],
    "mapping": lambda: {},
    "mapping of others": lambda: {1: 2, "x\n": None},
    "True": lambda: True,
    "number": lambda: -7,
    "huge number": lambda: 10**400,
    "large number": lambda: 10**9,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("-inf"),
    "tensor": lambda: torch.zeros(2, 3),
    "empty tensor": lambda: torch.zeros(0),
    "tensor of NaN": lambda: torch.full((), float("nan")),
    "integers": lambda: torch.zeros(3, dtype=torch.int8),
    "complex": lambda: torch.zeros(3, dtype=torch.complex64),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "meta": lambda: torch.zeros(2, device="meta"),
    "set": lambda: {1, 2},
    "bytes": lambda: b"\xff\x00",
}


def paths(value: Any, most: int = 3) -> Iterator[Place]:
    """The places in nested containers, the outermost first; of a list and of the tensors of a mapping the first few only."""
    if isinstance(value, Mapping):
        tensors = [key for key, item in value.items() if isinstance(item, torch.Tensor)]
        items = [(key, item) for key, item in value.items() if key not in tensors[most:]]
    elif isinstance(value, list | tuple):
        items = list(enumerate(value[:most]))
    else:
        return
    for key, item in items:
        yield (key,)
        yield from ((key, *rest) for rest in paths(item, most))


def replaced(value: Any, path: Place, new: Any) -> Any:
    """A copy of the containers with another value at a path; MISSING takes the key away."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, Mapping):
        copy: Any = dict(value)
        if not rest and new is MISSING:
            del copy[key]
        else:
            copy[key] = replaced(value[key], tuple(rest), new)
        return copy
    items = list(value)
    if not rest and new is MISSING:
        del items[key]
    else:
        items[key] = replaced(items[key], tuple(rest), new)
    return type(value)(items)
