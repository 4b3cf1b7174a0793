"""The images that a config holds out of its training images, and which of them belong together and stay so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import PurePath

from backbones.errors import shorten
from detection.config import DataConfig, HeldOut, SplitName
from detection.data.fingerprints import find_near_duplicates, read_fingerprints
from detection.data.split import divide_records, part_fractions
from detection.errors import ConfigError
from detection.structures import Record

NEAR_DUPLICATES = "near_duplicates"
"""In place of a regular expression: images that look alike belong together."""

MATCHING_TIMEOUT = 60.0
"""Seconds. Some expressions take longer than the universe is old, and Python cannot be told to stop in the middle of one."""

# Run by a Python of its own, which can be ended. Its input: [expression, [texts]]; its output: a group or null for each.
_PROGRAM = """
import json, re, sys
expression, texts = json.load(sys.stdin)
try:
    found = list(map(re.compile(expression).search, texts))
except (re.error, OverflowError, RecursionError, MemoryError) as error:
    sys.exit(str(error) or "too large")
json.dump([match and match[1 if match.re.groups else 0] for match in found], sys.stdout)
"""


def hold_out(
    records: Sequence[Record], data: DataConfig, held_out: HeldOut, test_fraction: float = 0.0
) -> dict[SplitName, list[Record]]:
    """The parts that `held_out` makes of some images, the same ones whenever the images are the same.

    With `group_by: near_duplicates` all images are decoded, as `data` says. Raises ConfigError or DatasetError.
    """
    groups: Sequence[str | None] = [None] * len(records)
    if held_out.group_by == NEAR_DUPLICATES:
        groups = groups_by_look(records, data.workers, data.max_pixels, data.loader_timeout)
    elif held_out.group_by is not None:
        groups = groups_by_name(held_out.group_by, [record.file for record in records])
    return divide_records(records, groups, part_fractions(held_out.fraction, test_fraction), held_out.seed)


def groups_by_name(expression: str, files: Sequence[PurePath], timeout: float = MATCHING_TIMEOUT) -> list[str | None]:
    """What the first group of a regular expression, or else all of it, matches in the name of each file; None without a match.

    An expression with a "/" is looked for in the whole path. Raises ConfigError: no regular expression, one that takes longer
    than `timeout` seconds, one that matches nowhere.
    """
    named = f"data.val.group_by, {shorten(expression)},"
    texts = [file.as_posix() if "/" in expression else file.name for file in files]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM],
            input=json.dumps([expression, texts]),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{named} takes more than {timeout:g} s for {len(files)} names: write a simpler one") from None
    if done.returncode:
        raise ConfigError(f"{named} is no regular expression: {shorten(done.stderr.strip())}")
    groups: list[str | None] = json.loads(done.stdout)
    if files and all(group is None for group in groups):
        raise ConfigError(f"{named} matches none of {len(files)} names, such as {shorten(texts[0])}")
    return groups


def groups_by_look(records: Sequence[Record], workers: int, max_pixels: int, timeout: float) -> list[str | None]:
    """For each image that looks like others a name that they share; None for those like no other, or unreadable."""
    prints = read_fingerprints([record.file for record in records], workers, max_pixels, timeout)
    groups: list[str | None] = [None] * len(records)
    for group in find_near_duplicates(list(prints)):
        name = min(repr(records[place].image_id) for place in group.members)
        for place in group.members:
            groups[place] = name
    return groups
