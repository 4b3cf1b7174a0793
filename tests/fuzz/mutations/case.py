"""A case, and how a value is put into the place of another in a file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECK = "check-dataset --config {} --output checked"
TRAIN = "train --config {} --output-dir new train.steps=1"
VOC_COMMANDS = (CHECK.format("detector.yaml"), TRAIN.format("detector.yaml"), "eval-voc --config detector.yaml")
COCO_COMMANDS = (CHECK.format("coco.yaml"), TRAIN.format("coco.yaml"), "eval-coco --config coco.yaml --json numbers.json")


@dataclass(frozen=True)
class Case:
    """What was broken, and the commands to run.

    `must_notice`: a command that takes it must say a word. `must_refuse`: no command may take it. `is_data`: check-dataset and
    the other commands must agree.
    """

    what: str
    commands: tuple[tuple[str, ...], ...]
    must_notice: bool = False
    must_refuse: bool = False
    is_data: bool = False


Mutation = Callable[[random.Random, Path], Case]


def words(*commands: str) -> tuple[tuple[str, ...], ...]:
    """Command lines without quotes as lists of words."""
    return tuple(tuple(command.split()) for command in commands)


def paths(value: Any, depth: int = 4, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of plain data, but for the whole: keys and indices."""
    if before:
        yield before
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in items if len(before) < depth else ():
        yield from paths(part, depth, (*before, key))


def put(content: Any, keys: tuple[Any, ...] | list[str], value: Any) -> None:
    """Replace the part that the keys lead to; sections on the way are made. A part of a tuple stays."""
    *parents, last = keys
    for key in parents:
        content = content.setdefault(key, {}) if isinstance(content, dict) else content[int(key)]
    if isinstance(content, list):
        content[int(last)] = value
    elif isinstance(content, dict):
        content[last] = value


def with_raw(values: Any, keys: tuple[Any, ...] | list[str], text: str, dump: Callable[[Any], str]) -> str:
    """The values as a file, with `text` as it is in the place that the keys lead to."""
    copied, mark = json.loads(json.dumps(values)), "@@raw@@"
    put(copied, keys, mark)
    return dump(copied).replace(f'"{mark}"', text).replace(f"'{mark}'", text).replace(mark, text)
