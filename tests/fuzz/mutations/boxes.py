"""Annotations and detections in both formats."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.fuzz.mutations.case import COCO_COMMANDS, VOC_COMMANDS, Case, paths, with_raw, words
from tests.fuzz.sandbox import replace
from tests.fuzz.values import break_bytes, break_text, json_value

ENTITIES = "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
BOMB = f'<!DOCTYPE a [<!ENTITY a "xxxxxxxxxx">{ENTITIES}]>'
"""In front of an annotation: &j; is 10 ** 10 letters."""


def voc_xml(random_: random.Random, folder: Path) -> Case:
    """An annotation with a broken number, name, tag, or broken bytes."""
    path = folder / f"VOC2007/Annotations/{random_.choice(('000001', '000002', '000004'))}.xml"
    text = path.read_text()
    tag = random_.choice(("xmin", "ymax", "width", "height", "difficult", "name", "filename"))
    value = json_value(random_).strip('"').replace(r"\u0000", "\x00").replace("<", "")
    start = text.find(f"<{tag}>") + len(tag) + 2
    end = text.find(f"</{tag}>")
    kind = random_.randrange(4)
    if kind < 2:
        replace(path, text[:start] + value + text[end:])
        return Case(f"<{tag}>{value[:60]}", words(*VOC_COMMANDS), is_data=True)
    if kind == 2:
        replace(path, BOMB + text[:start] + "&j;" + text[end:])
        return Case("entities that expand", words(*VOC_COMMANDS), is_data=True)
    replace(path, break_bytes(text.encode(), random_))
    return Case("bytes of an XML", words(*VOC_COMMANDS), is_data=True)


def voc_split(random_: random.Random, folder: Path) -> Case:
    """A line of a split's list that is not a plain stem."""
    path = folder / "VOC2007/ImageSets/Main/val.txt"
    line = random_.choice(
        (
            "000001 1",
            "000001 -1",
            "000001 0",
            "000001 7",
            "photo 1",
            "000001.jpg",
            "JPEGImages/000001.jpg",
            "../000001",
            "/etc/passwd",
        )
        + ("000001\x00", "\ud800", " 000001 ", "000001\t000002", "", "x" * 5000, "000002", "\x1b[2J", "000009")
    )
    replace(path, f"{path.read_text()}{line}\n".replace("\ud800", "\udcff").encode("utf-8", "surrogateescape"))
    return Case(f"split line {line[:40]!r}", words(*VOC_COMMANDS), is_data=True)


def same_stem(random_: random.Random, folder: Path) -> Case:
    """Two images of one stem; the annotation says which."""
    images = folder / "VOC2007/JPEGImages"
    Image.new("RGB", random_.choice(((60, 40), (10, 10))), (9, 9, 9)).save(
        images / f"000001{random_.choice(('.png', '.jpeg', '.JPG', '.bmp'))}"
    )
    return Case("two images of one stem", words(*VOC_COMMANDS), is_data=True)


def coco_field(random_: random.Random, folder: Path) -> Case:
    """A value of a COCO annotation file."""
    content = json.loads((folder / "instances.json").read_text())
    keys = random_.choice(list(paths(content)))
    text = json_value(random_)
    replace(folder / "instances.json", with_raw(content, keys, text, json.dumps))
    notice = keys[0] == "annotations" and len(keys) > 2 and keys[2] in ("iscrowd", "bbox", "image_id", "category_id")
    harmless = ("0", "false", "1e0", "1.5", "true")
    return Case(
        f"{'.'.join(map(str, keys))}: {text[:60]}",
        words(*COCO_COMMANDS),
        must_notice=notice and text not in harmless,
        is_data=True,
    )


def coco_bytes(random_: random.Random, folder: Path) -> Case:
    """A COCO annotation file with broken bytes."""
    path = folder / "instances.json"
    replace(path, break_bytes(path.read_bytes(), random_))
    return Case("bytes of a COCO file", words(*COCO_COMMANDS), is_data=True)


def coco_lists(random_: random.Random, folder: Path) -> Case:
    """Entries of a COCO file left out, doubled, with ids as texts, floats or beyond 64 bits, and categories of one name."""
    content = json.loads((folder / "instances.json").read_text())
    kind = random_.choice(("without", "doubled", "text ids", "float ids", "huge ids", "negative ids", "one name", "crowd text"))
    which = random_.choice(("images", "annotations", "categories"))
    if kind == "without":
        del content[which][0]
    elif kind == "doubled":
        content[which].append(dict(content[which][0]))
    elif kind == "one name":
        content["categories"][1]["name"] = content["categories"][0]["name"]
    elif kind == "crowd text":
        content["annotations"][0]["iscrowd"] = random_.choice(("0", "1", "no", [], {}))
    else:
        _change_ids(content, kind)
    replace(folder / "instances.json", json.dumps(content))
    notice = kind in ("crowd text", "one name") or (kind == "doubled" and which != "annotations")
    return Case(f"{kind} {which}", words(*COCO_COMMANDS), must_notice=notice, is_data=True)


def _change_ids(content: dict[str, Any], kind: str) -> None:
    changes: dict[str, Callable[[int], Any]] = {
        "text ids": lambda number: f"id-{number}",
        "float ids": float,
        "huge ids": lambda number: number + 2**63,
        "negative ids": lambda number: -number,
    }
    for entries in content.values():
        for entry in entries:
            entry.update({key: changes[kind](entry[key]) for key in ("id", "image_id", "category_id") if key in entry})


def coco_results(random_: random.Random, folder: Path) -> Case:
    """A value of a result file, or its bytes."""
    path = folder / "detections.json"
    commands = words(
        "eval-coco --annotations instances.json --detections detections.json --json numbers.json",
        "report detections.json --annotations instances.json --images images --output reported --export fiftyone",
        "compare detections.json run --config coco.yaml --resamples 3 --fail-below 1",
    )
    if random_.random() < 0.3:
        replace(path, break_bytes(path.read_bytes(), random_))
        return Case("bytes of a result file", commands)
    content = json.loads(path.read_text())
    keys = random_.choice(list(paths(content[:3])))
    text = json_value(random_)
    replace(path, with_raw(content, keys, text, json.dumps))
    return Case(f"result {'.'.join(map(str, keys))}: {text[:60]}", commands)


def voc_results(random_: random.Random, folder: Path) -> Case:
    """A line of a detection file of the VOC kit."""
    path = random_.choice(sorted((folder / "detections").glob("*.txt")))
    text = path.read_text() or "000001 0.5 1 2 30 40\n"
    replace(path, break_text(text, random_) if random_.random() < 0.6 else break_bytes(text.encode(), random_))
    truth = "--devkit . --year 2007 --split val"
    report = f"report detections {truth} --output reported"
    return Case("a VOC detection file", words(f"eval-voc --detections detections {truth}", report))
