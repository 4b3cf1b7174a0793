"""Checkpoints: a value inside, or the bytes."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.fuzz.mutations.case import Case, paths, put, words
from tests.fuzz.values import break_bytes, doubled, plain_value


def checkpoint_field(random_: random.Random, folder: Path) -> Case:
    """A value inside a checkpoint."""
    path = folder / "run/last.pt"
    content = torch.load(path, weights_only=True)
    keys = random_.choice(list(paths(content, depth=5)))
    value = _tensor_value(random_) if random_.random() < 0.3 else plain_value(random_)
    put(content, keys, value)
    path.unlink()
    try:
        torch.save(content, path)
    except (RuntimeError, RecursionError, OverflowError, UnicodeEncodeError, NotImplementedError):
        path.write_bytes(b"")
    commands = random_.choice(
        (
            "train --config detector.yaml --resume train.steps=3",
            "eval-voc --weights run/last.pt",
            "demo photo.jpg --weights run/last.pt --output drawn",
            "train --config detector.yaml --weights run/last.pt --output-dir new train.steps=1",
            "export --weights run/last.pt exported.onnx",
        )
    )
    is_weight = keys[0] == "model" and len(keys) == 2
    return Case(f"checkpoint {'.'.join(map(str, keys))}: {_describe(value)}", words(commands), must_refuse=is_weight)


def _tensor_value(random_: random.Random) -> Any:
    makers: tuple[Callable[[], Any], ...] = (
        lambda: torch.full((4, 3, 3, 3), float("nan")),
        lambda: torch.zeros(4, 3, 3, 3, dtype=torch.int64),
        lambda: torch.full((4, 3, 3, 3), 1e300, dtype=torch.float64),
        lambda: torch.zeros(1).expand(10**12),
        lambda: torch.zeros(4, 4).to_sparse(),
        lambda: torch.zeros(4, 3, 3, 3, device="meta"),
        lambda: torch.zeros(4, dtype=torch.complex64),
        lambda: torch.zeros(0),
        lambda: torch.tensor(float("inf")),
    )
    return random_.choice(makers)()


def _describe(value: Any) -> str:
    return (
        f"{type(value).__name__} {tuple(value.shape)} {value.dtype}"
        if isinstance(value, torch.Tensor)
        else type(value).__name__
    )


def checkpoint_bytes(random_: random.Random, folder: Path) -> Case:
    """A checkpoint with broken bytes, or something else in its place."""
    path = folder / random_.choice(("run/last.pt", "run/best.pt"))
    content = path.read_bytes()
    path.unlink()
    kind = random_.choice(("bytes", "bytes", "bytes", "pipe", "device", "pickle bomb"))
    if kind == "bytes":
        path.write_bytes(break_bytes(content, random_))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path = path.with_suffix(".pkl")
        path.write_bytes(pickle.dumps(doubled(28), 2))
    name = path.relative_to(folder)
    command = random_.choice(
        ("eval-voc --weights {}", "demo photo.jpg --weights {} --output drawn", "convert-weights {} out.pt")
    )
    return Case(f"checkpoint: {kind}", words(command.format(name)))
