"""Configs, in files and on the command line."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel

from detection.config import Config
from tests.data.pictures import CLASSES
from tests.fuzz.mutations.case import CHECK, TRAIN, Case, with_raw, words
from tests.fuzz.sandbox import CLASSIFIER, DETECTOR, replace
from tests.fuzz.values import NOT_FINITE, break_bytes, break_text, yaml_value


def _keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in schema.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _keys(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


KEYS = (
    *_keys(Config),
    *("data.train.0.root", "data.train.0.split", "data.train.0.year", "data.classes.0", "base", "model"),
)
TEXT_KEYS = ("root", "split", "year", "classes", "0", "weights", "output_dir", "backbone", "base", "name", "val")
"""Last parts of keys that take a text, as `.inf` or a long number may be."""


def _takes_text(key: str) -> bool:
    """Whether a text is a value of the key, as `.inf` and a long number may be."""
    return key.rsplit(".", maxsplit=1)[-1] in (
        "root",
        "split",
        "year",
        "classes",
        "0",
        "weights",
        "output_dir",
        "backbone",
        "base",
        "name",
        "val",
    )


def _must_refuse(key: str, text: str) -> bool:
    """Whether no command may take this value. The sandbox's commands give `train.steps` once more, and the last one wins."""
    return text in NOT_FINITE and not _takes_text(key) and key != "train.steps"


def config_key(random_: random.Random, folder: Path) -> Case:
    """A value of a config file that is no sensible one, or a key that is none."""
    key, text = random_.choice(KEYS), yaml_value(random_)
    path = folder / "broken.yaml"
    replace(path, with_raw(DETECTOR, key.split("."), text, yaml.safe_dump))
    command = random_.choice((TRAIN, CHECK)).format("broken.yaml")
    return Case(f"{key}: {text[:60]}", words(command), must_refuse=_must_refuse(key, text))


def config_override(random_: random.Random, folder: Path) -> Case:
    """The same on the command line."""
    key, text = random_.choice(KEYS), yaml_value(random_).replace("\n", " ")
    key = random_.choice((key, key, key, key + ".x", key.upper(), key + ".0", key + ".-1", key + ".²", key + ".9999999999"))
    command = (*TRAIN.format("detector.yaml").split(), f"{key}={text}")
    return Case(f"{key}={text[:60]}", (command,), must_refuse=text in NOT_FINITE and key in KEYS and not _takes_text(key))


def config_text(random_: random.Random, folder: Path) -> Case:
    """A config file with a broken line or broken bytes."""
    text = (folder / "detector.yaml").read_text()
    broken = break_text(text, random_) if random_.random() < 0.6 else break_bytes(text.encode(), random_)
    replace(folder / "detector.yaml", broken)
    return Case("text of a config", words(TRAIN.format("detector.yaml")))


def score_thresholds(random_: random.Random, folder: Path) -> Case:
    """A threshold for a class, in a file, a config or an override: a name or a value that is none, or broken bytes."""
    name = random_.choice((*CLASSES * 3, "cta", "", "a\nb", "\ud800", "<<", "x" * 300, "[/x]", "家"))
    value = random_.choice(("0.4", yaml_value(random_), yaml_value(random_)))
    line = f"{json.dumps(name)}: {value}\n"
    drawn = "--weights run/last.pt --output drawn --score-threshold thresholds.yaml"
    commands = words(f"demo photo.jpg {drawn}", f"predict photo.jpg --format coco {drawn}")
    if random_.random() < 0.3:
        replace(folder / "thresholds.yaml", break_bytes(f"dog: 0.1\n{line}".encode(), random_))
        return Case(f"bytes of thresholds, {name[:20]!r}: {value[:40]}", commands)
    replace(folder / "thresholds.yaml", line)
    replace(folder / "broken.yaml", with_raw(DETECTOR, ["test", "score_threshold"], "{" + line.strip() + "}", yaml.safe_dump))
    override = (*TRAIN.format("detector.yaml").split(), f"test.score_threshold={{{line.strip()}}}")
    refused = name not in CLASSES or value not in ("0", "1e0", "0.4")
    return Case(
        f"threshold {name[:20]!r}: {value[:40]}",
        (*commands, *words(TRAIN.format("broken.yaml")), override),
        must_refuse=refused,
    )


def classifier_config(random_: random.Random, folder: Path) -> Case:
    """A value of a classifier's config."""
    sections = [f"{section}.{key}" for section, values in CLASSIFIER.items() if isinstance(values, dict) for key in values]
    key, text = random_.choice(sections), yaml_value(random_)
    replace(folder / "broken.yaml", with_raw(CLASSIFIER, key.split("."), text, yaml.safe_dump))
    command = "pretrain --config broken.yaml --output-dir new train.steps=1"
    return Case(f"{key}: {text[:60]}", words(command), must_refuse=_must_refuse(key, text))
