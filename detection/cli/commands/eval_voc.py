"""Pascal VOC's average precision, of a model on its config's test split or of detection files.

With no option at all: of the last quickstart run, on the sample data.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from detection.cli.evaluated import (
    add_model_arguments,
    model_options,
    predict_test_split,
    refuse_model_arguments,
    refuse_without,
)
from detection.config import Source, VocSource
from detection.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from detection.evaluation.voc import ClassDetections, Metric, VocResult
    from detection.structures import Detections, ImageId, Record


@dataclass(frozen=True)
class Evaluated:
    """What there is to find and what was found; classes without an entry in `detections` have no detection file."""

    records: Sequence[Record]
    class_names: Sequence[str]
    detections: Mapping[str, ClassDetections]
    year: str | None
    split: str


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_model_arguments(parser)
    files = parser.add_argument_group("detections already on disk, in the development kit's format")
    files.add_argument("--detections", type=Path, metavar="DIR", help="holds comp4_det_SPLIT_CLASS.txt")
    files.add_argument("--devkit", type=Path, metavar="DIR", help="holds VOC<year>/, or Annotations/ itself")
    files.add_argument("--year", help="2007, 2012, ...")
    files.add_argument("--split", help="a file of ImageSets/Main, without .txt; default: test")
    parser.add_argument(
        "--metric", choices=("voc07", "area"), help="11-point or area; default: voc07 for the year 2007, else area"
    )
    parser.add_argument("--iou-threshold", type=float, default=0.5, metavar="T", help="default: 0.5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write mAP, AP by class (0 to 1) and metric")
    parser.add_argument("--write-detections", type=Path, metavar="DIR", help="write comp4_det_SPLIT_CLASS.txt")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write precision-recall curves and the confusion matrix")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print, write what was asked for."""
    options = model_options(build_parser(), argv)
    if not 0 < options.iou_threshold <= 1:
        raise ConfigError(f"--iou-threshold must be above 0 and at most 1, got {options.iou_threshold:g}")
    console = Console(highlight=False)
    evaluated = from_files(options) if options.detections else from_model(options, console)
    if evaluated is None:
        console.print("the split has no annotations: the detections are for the test server", soft_wrap=True)
        return 0

    from detection.evaluation.voc import evaluate_voc_classes
    from detection.files import write_json

    metric: Metric = options.metric or ("voc07" if evaluated.year == "2007" else "area")
    truth = (evaluated.records, evaluated.detections, evaluated.class_names)
    result = evaluate_voc_classes(*truth, options.iou_threshold, metric)
    _print(console, result, [name for name in evaluated.class_names if name not in evaluated.detections])
    if options.json:
        write_json(options.json, result.as_json())
    if options.report:
        _report(options.report, result, evaluated, console)
    return 0


def from_files(options: argparse.Namespace) -> Evaluated:
    """Read a devkit's annotations and a folder's detection files. Raises DatasetError."""
    from detection.evaluation.detection_files import find_voc_detections, read_voc_detections
    from detection.evaluation.devkit import find_year, read_devkit, sort_classes

    refuse_model_arguments(options, "--detections")
    refuse_without(options, "weights", ["write_detections"])
    if options.devkit is None:
        raise ConfigError("--detections needs --devkit DIR, the annotations to compare with")
    split = options.split or "test"
    folder = find_year(options.devkit, options.year)
    files = find_voc_detections(options.detections, split)
    devkit = read_devkit(folder, split)
    detections = {name: read_voc_detections(file, devkit.records) for name, file in files.items()}
    # Labels must stay what they are: classes that only the detections have come behind.
    names = [*devkit.class_names, *sort_classes(set(files) - set(devkit.class_names))]
    return Evaluated(devkit.records, names, detections, options.year or _year_of(folder), split)


def _year_of(folder: Path) -> str | None:
    """The year in the name of a folder VOC<year>."""
    name = folder.resolve().name
    return name[3:] if name.startswith("VOC") and name[3:].isdigit() else None


def from_model(options: argparse.Namespace, console: Console) -> Evaluated | None:
    """Run a model on its test split; its detections are written where --write-detections says.

    None for a split without annotations. Raises ConfigError if nothing would be left of such a run."""
    from detection.evaluation.detection_files import write_voc_detections
    from detection.evaluation.voc import split_by_class

    refuse_without(options, "detections", ["devkit", "year", "split"])
    predictions = predict_test_split(options, console)
    names = predictions.dataset.class_names
    source = predictions.sources[0]
    year, split = (source.year, source.split) if isinstance(source, VocSource) else (None, "test")
    if options.write_detections:
        write_voc_detections(options.write_detections, predictions.detections, names, split)
        console.print(f"detections: {options.write_detections}", soft_wrap=True, markup=False)
    if not all(source.annotated for source in predictions.sources if isinstance(source, VocSource)):
        if not options.write_detections:
            raise ConfigError("the split has no annotations to evaluate with: give --write-detections DIR")
        return None
    records = official_records(predictions.sources, names) or predictions.dataset.records
    return Evaluated(records, names, split_by_class(records, predictions.detections, names), year, split)


def official_records(sources: Sequence[Source], class_names: Sequence[str]) -> list[Record]:
    """The ground truth of VOC data as the development kit takes it; none if some of the data is not VOC's."""
    from detection.data.catalog import resolve_root
    from detection.evaluation.devkit import find_year, read_devkit

    records: list[Record] = []
    for source in sources:
        if not isinstance(source, VocSource):
            return []
        folder = find_year(resolve_root(source.root), source.year)
        records += read_devkit(folder, source.split, class_names).records
    return records


def _print(console: Console, result: VocResult, missing: Sequence[str]) -> None:
    from detection.analysis.report import voc_table
    from detection.evaluation.voc import METRIC_TITLES

    if missing:
        console.print(f"no detection file for: {', '.join(missing)}; the mean is over the classes present", soft_wrap=True)
    if result.absent:
        console.print(f"no object of: {', '.join(result.absent)}; left out of the mean", soft_wrap=True)
    if math.isnan(result.mean_ap):
        raise DatasetError("none of the classes has an object in the evaluated split: there is nothing to measure")
    console.print(voc_table(result))
    title = f"{METRIC_TITLES[result.metric]}, IoU {result.iou_threshold:g}, {len(result.ap)} classes"
    console.print(f"mAP {result.mean_ap:.4f} ({title})", soft_wrap=True)


def _report(folder: Path, result: VocResult, evaluated: Evaluated, console: Console) -> None:
    from detection.analysis.report import join_classes, write_report

    detections: dict[ImageId, Detections] = join_classes(evaluated.records, evaluated.detections, evaluated.class_names)
    for file in write_report(folder, result, evaluated.records, detections, evaluated.class_names):
        console.print(f"report: {file}", soft_wrap=True, markup=False)
