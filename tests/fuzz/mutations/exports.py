"""Exports of labelling programs: any value in any place of their label files, or broken bytes, read as `format: auto`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import yaml

from tests.data.formats.exports import EXPORTS
from tests.fuzz.mutations.case import CHECK, TRAIN, Case, paths, with_raw, words
from tests.fuzz.sandbox import replace
from tests.fuzz.values import break_bytes, json_value

_COMMANDS = (CHECK.format("export.yaml"), TRAIN.format("export.yaml"), "eval-voc --config export.yaml")


def export(random_: random.Random, folder: Path) -> Case:
    """A label file of an export."""
    kind = random_.choice(list(EXPORTS))
    EXPORTS[kind][1](folder / "export")
    values = yaml.safe_load((folder / "detector.yaml").read_text())
    source = {"format": "auto", "root": "export"}
    values["data"] |= {"train": [source], "val": [source], "test": [source]}
    (folder / "export.yaml").write_text(yaml.safe_dump(values))
    files = [file for file in sorted((folder / "export").rglob("*")) if file.suffix in (".json", ".xml", ".csv")]
    file = random_.choice(files)
    if file.suffix != ".json" or random_.random() < 0.3:
        replace(file, break_bytes(file.read_bytes(), random_))
        return Case(f"bytes of {file.name} of {kind}", words(*_COMMANDS), is_data=True)
    content = json.loads(file.read_text())
    keys, text = random_.choice(list(paths(content, depth=12))), json_value(random_)
    replace(file, with_raw(content, keys, text, json.dumps))
    return Case(f"{kind}: {'.'.join(map(str, keys))}: {text[:60]}", words(*_COMMANDS), is_data=True)
