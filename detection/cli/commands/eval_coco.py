"""COCO's twelve numbers, of a model on its config's test split or of a result file.

With no option at all: of the last quickstart run, on the sample data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from detection.cli.evaluated import (
    Predictions,
    add_model_arguments,
    model_options,
    predict_test_split,
    refuse_model_arguments,
    refuse_without,
)
from detection.config import CocoSource
from detection.errors import ConfigError

if TYPE_CHECKING:
    from detection.evaluation.coco import CocoResult


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_model_arguments(parser)
    files = parser.add_argument_group("detections already on disk, in COCO's result format")
    files.add_argument("--annotations", type=Path, metavar="FILE", help="e.g. instances_val2017.json")
    files.add_argument("--detections", type=Path, metavar="FILE", help="a list of image_id, category_id, bbox, score")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the twelve numbers")
    parser.add_argument("--write-detections", type=Path, metavar="FILE", help="write the model's detections as a result file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print, write what was asked for."""
    options = model_options(build_parser(), argv)
    console = Console(highlight=False)
    result = from_files(options) if options.detections else from_model(options, console)

    from detection.analysis.report import coco_table
    from detection.files import write_json

    console.print(coco_table(result.numbers, result.class_ap))
    if options.json:
        write_json(options.json, result.numbers)
    return 0


def from_files(options: argparse.Namespace) -> CocoResult:
    """Evaluate a result file. Raises DatasetError."""
    from detection.evaluation.coco import evaluate_coco_results
    from detection.evaluation.coco_files import read_annotations, read_results

    refuse_model_arguments(options, "--detections")
    refuse_without(options, "weights", ["write_detections"])
    if options.annotations is None:
        raise ConfigError("--detections needs --annotations FILE, the ground truth to compare with")
    dataset = read_annotations(options.annotations)
    return evaluate_coco_results(dataset, read_results(options.detections, dataset))


def from_model(options: argparse.Namespace, console: Console) -> CocoResult:
    """Run a model on its test split; its detections are written where --write-detections says."""
    from detection.evaluation.coco import evaluate_coco_results
    from detection.evaluation.detection_files import coco_results
    from detection.files import write_json

    refuse_without(options, "detections", ["annotations"])
    predictions = predict_test_split(options, console)
    names = predictions.dataset.class_names
    dataset = ground_truth(predictions)
    ids = {category["name"]: category["id"] for category in dataset["categories"]}
    results = coco_results(predictions.detections, names, ids)
    if options.write_detections:
        write_json(options.write_detections, results)
        console.print(f"detections: {options.write_detections}", soft_wrap=True, markup=False)
    return evaluate_coco_results(dataset, results, names)


def ground_truth(predictions: Predictions) -> dict[str, Any]:
    """The content of an annotation file: the data's own where they are one COCO file, else made from the records."""
    from detection.data.catalog import resolve_root
    from detection.evaluation.coco import records_as_coco
    from detection.evaluation.coco_files import read_annotations

    names = predictions.dataset.class_names
    source = predictions.sources[0]
    if len(predictions.sources) == 1 and isinstance(source, CocoSource):
        own = read_annotations(resolve_root(source.root) / source.annotations)
        if set(names) <= {category["name"] for category in own["categories"]}:
            return own
    return records_as_coco(predictions.dataset.records, names)
