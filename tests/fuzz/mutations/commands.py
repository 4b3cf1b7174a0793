"""Options, names of classes, and a run's log."""

from __future__ import annotations

import json
import random
from pathlib import Path
from xml.sax.saxutils import escape

from tests.fuzz.mutations.case import TRAIN, VOC_COMMANDS, Case, words
from tests.fuzz.sandbox import replace
from tests.fuzz.values import break_bytes, break_text


def command_line(random_: random.Random, folder: Path) -> Case:
    """Options with values that are none."""
    values = (
        "",
        " ",
        "-1",
        "nan",
        "1e400",
        "9" * 5000,
        "a/b/c",
        "\x1b[2J",
        "/dev/null/x",
        "photo.jpg",
        "VOC2007",
        "[/x]",
        "家",
        "--",
        "=",
    )
    options = {
        "eval-voc": (
            "--weights",
            "--json",
            "--report",
            "--write-detections",
            "--iou-threshold",
            "--metric",
            "--config",
            "--split",
        ),
        "eval-coco": ("--weights", "--json", "--write-detections", "--detections", "--annotations"),
        "demo": ("--weights", "--output", "--score-threshold", "--max-frames"),
        "train": ("--config", "--output-dir", "--weights", "--pretrain"),
        "pretrain": ("--config", "--output-dir", "--weights"),
        "plot-runs": ("--output", "--json", "--smooth", "--metric", "--labels"),
        "convert-weights": ("--format", "--report"),
        "export": ("--weights", "--backbone", "--backbone-weights"),
        "check-dataset": ("--config", "--output"),
        "ablation": ("--timed-images", "--json", "--weights"),
        "layer-responses": ("--images", "--plot", "--json"),
        "eval-classifier": ("--weights", "--json"),
        "report": ("--config", "--annotations", "--images", "--devkit", "--year", "--split", "--output", "--export"),
        "compare": ("--config", "--annotations", "--images", "--fail-below", "--metric", "--resamples", "--seed", "--json"),
    }
    ordinary = {
        "eval-voc": "--weights run/last.pt",
        "eval-coco": "--weights run/last.pt --config coco.yaml",
        "demo": "photo.jpg --weights run/last.pt --output drawn",
        "train": TRAIN.format("detector.yaml").removeprefix("train "),
        "pretrain": "--config classifier.yaml --output-dir new train.steps=1",
        "plot-runs": "run",
        "convert-weights": "run/last.pt out.pt",
        "export": "out.onnx",
        "check-dataset": "--config detector.yaml --output checked",
        "ablation": "--weights run/last.pt --timed-images 1",
        "layer-responses": "--config classifier.yaml --weights classifier/last.pt --images 2",
        "eval-classifier": "--config classifier.yaml --weights classifier/last.pt",
        "report": "run --output reported",
        "compare": "run detections.json --config coco.yaml --resamples 3",
    }
    name = random_.choice(sorted(options))
    option, value = random_.choice(options[name]), random_.choice(values)
    return Case(f"{name} {option} {value[:40]!r}", ((name, *ordinary[name].split(), option, value),))


def class_names(random_: random.Random, folder: Path) -> Case:
    """Names of classes that mean something to a terminal, to markup, to plots or to a file system."""
    name = random_.choice(
        ("dent[large]", "[/x]", "$x_", "a/b", "家", "", " ", "a\nb", "a\x00b", "a\x1b[2Jb", "<b>", "x" * 3000, "..", "%s")
    )
    text = (folder / "detector.yaml").read_text().replace("- cat\n", f"- {json.dumps(name, ensure_ascii=False)}\n")
    replace(folder / "detector.yaml", text)
    for path in (folder / "VOC2007/Annotations").glob("*.xml"):
        replace(path, path.read_text().replace("<name>cat<", f"<name>{escape(name)}<"))
    evaluate = "eval-voc --config detector.yaml --weights new/last.pt --report report --write-detections written"
    compare = "compare new/last.pt report --resamples 3"
    demo = "demo photo.jpg --weights new/last.pt --output drawn --score-threshold report/thresholds.yaml"
    return Case(f"class {name[:20]!r}", words(*VOC_COMMANDS[:2], evaluate, compare, demo))


def metrics_log(random_: random.Random, folder: Path) -> Case:
    """A run's log with broken bytes or lines."""
    path = folder / "run/metrics.jsonl"
    text = path.read_text()
    broken: str | bytes = break_text(text, random_) if random_.random() < 0.5 else break_bytes(text.encode(), random_)
    replace(path, broken)
    resume = "train --config detector.yaml --resume train.steps=3"
    report = "report run --output reported"
    return Case("metrics.jsonl", words(random_.choice(("plot-runs run --output curves.png", resume, report))))
