"""Pascal VOC's average precision, of a model on its config's test split or of detection files; that of masks, too, of a model
that predicts them.

With no option at all: of the last quickstart run, on the sample data.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from detection.cli.arguments import CommandParser, any_path, fraction, output_file, output_folder
from detection.cli.options import (
    add_model_arguments,
    detections_given,
    load_model_and_split,
    parse_with_overrides,
    require_distinct,
    require_nothing_replaced,
)
from detection.cli.output import FOR_THE_SERVER, evaluating_processes, is_main_process, predict_split, say
from detection.cli.reporting import name_of_evaluated, require_report_output, write_page
from detection.errors import ConfigError, DatasetError
from detection.terminal import new_console

if TYPE_CHECKING:
    from detection.data.catalog import Dataset
    from detection.evaluation.voc import VocResult
    from detection.evaluation.voc_files import VocEvaluation
    from detection.report.reported import ReportedDetector
    from detection.structures import DetectionsByImage


@dataclass(frozen=True)
class Evaluated:
    """What is compared, and for a model's report, which knows all metrics, where that comes from."""

    evaluation: VocEvaluation
    dataset: Dataset | None = None
    detections: DetectionsByImage | None = None


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    add_model_arguments(parser)
    files = parser.add_argument_group("detections already on disk, in the development kit's format")
    files.add_argument("--detections", type=any_path, metavar="DIR", help="holds comp4_det_SPLIT_CLASS.txt")
    files.add_argument("--devkit", type=any_path, metavar="DIR", help="holds VOC<year>/, or Annotations/ itself")
    files.add_argument("--year", help="2007, 2012, ...")
    files.add_argument("--split", help="a file of ImageSets/Main, without .txt; default: test")
    parser.add_argument(
        "--metric", choices=("voc07", "area"), help="11-point or area; default: voc07 for the year 2007, else area"
    )
    parser.add_argument("--iou-threshold", type=fraction, default=0.5, metavar="T", help="default: 0.5")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write mAP, AP by class (0 to 1), metric; of masks too"
    )
    parser.add_argument("--write-detections", type=output_folder, metavar="DIR", help="write comp4_det_SPLIT_CLASS.txt")
    parser.add_argument(
        "--report", type=output_folder, metavar="DIR", help="write a page that says what is wrong, as `resdet report` does"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print, write what was asked for."""
    options = parse_with_overrides(build_parser(), argv)
    if options.iou_threshold == 0:
        raise ConfigError(f"--iou-threshold must be above 0 and at most 1, got {options.iou_threshold:g}")
    require_distinct(options, ["config", "weights", "json", "write_detections"])
    require_distinct(options, ["json", "report"])
    require_report_output(options, ["detections", "devkit", "json", "write_detections"])
    console = new_console()
    files = detections_given(options, "devkit", "DIR", ["year", "split"])
    if files:
        evaluated: Evaluated | None = Evaluated(read_files(options))
    else:
        with evaluating_processes(options.device) as console:
            evaluated = predict(options, console)
    if evaluated is None:
        say(FOR_THE_SERVER, console)
        return 0

    from detection.evaluation.voc import NOTHING_TO_MEASURE
    from detection.files import write_json

    evaluation = evaluated.evaluation
    result = evaluation.evaluate(options.iou_threshold, options.metric)
    if math.isnan(result.mean_ap):
        raise DatasetError(NOTHING_TO_MEASURE)
    # The file first: a terminal or a plot may fail.
    if options.json:
        write_json(options.json, result.as_json() | masks_as_json(evaluation.masks))
    print_result(console, result, evaluation.classes_without_file)
    for line in mask_lines(evaluation.masks):
        say(line, console)
    if options.report:
        write_page(options.report, as_reported(options, evaluated), console)
    return 0


def read_files(options: argparse.Namespace) -> VocEvaluation:
    """The annotations of --devkit and the files of --detections. Raises DatasetError."""
    from detection.evaluation.devkit import find_year
    from detection.evaluation.voc_files import read_voc_files

    folder = find_year(options.devkit, options.year)
    detections = options.detections.glob("comp*_det_*.txt")
    require_nothing_replaced(options, ["json"], [folder / "Annotations", folder / "ImageSets", *detections])
    return read_voc_files(options.devkit, options.detections, options.year, options.split or "test")


def predict(options: argparse.Namespace, console: Console) -> Evaluated | None:
    """Run a model on its test split; its detections are written where --write-detections says, before they are evaluated.

    None for a split without annotations, and on all but rank 0 of several processes. Raises ConfigError or DatasetError before
    the first image: for names that no detection file can have, and if such a run would leave nothing.
    """
    from detection.evaluation.detection_files import check_voc_names, write_voc_detections
    from detection.evaluation.split import as_voc_evaluation, voc_ground_truth
    from detection.evaluation.voc import NOTHING_TO_MEASURE, num_objects

    model, weights, split = load_model_and_split(options, "DIR")
    if options.write_detections:
        check_voc_names(split.class_names, [record.image_id for record in split.records], split.voc_name)
    ground_truth = [] if split.unannotated else voc_ground_truth(split)
    if num_objects(ground_truth) == 0 and not options.write_detections:
        raise DatasetError(NOTHING_TO_MEASURE)
    detections = predict_split(model, weights, split.records, console)
    if not is_main_process():
        return None
    if options.write_detections:
        write_voc_detections(options.write_detections, detections, split.class_names, split.voc_name)
        say(f"detections: {options.write_detections}", console)
    if split.unannotated:
        return None
    return Evaluated(as_voc_evaluation(split, detections, ground_truth), split.dataset, detections)


def print_result(console: Console, result: VocResult, without_file: Sequence[str]) -> None:
    """AP by class, the mean, and which classes are not in it."""
    from detection.analysis.tables import voc_table
    from detection.evaluation.metrics import VOC_METRIC_TITLES

    if without_file:
        missing = ", ".join(without_file)
        say(f"no detection file for: {missing}; the mean is over the classes present", console)
    if result.absent:
        say(f"no object of: {', '.join(result.absent)}; left out of the mean", console)
    console.print(voc_table(result))
    title = f"{VOC_METRIC_TITLES[result.metric]}, IoU {result.iou_threshold:g}, {len(result.ap)} classes"
    say(f"mAP {result.mean_ap:.4f} ({title})", console)


def masks_as_json(masks: Mapping[str, VocResult]) -> dict[str, object]:
    """The means by the keys of METRICS, and `class_ap`: those of the classes; nothing without masks."""
    if not masks:
        return {}
    means = {key: result.mean_ap for key, result in masks.items()}
    return {**means, "class_ap": {key: result.ap for key, result in masks.items()}}


def mask_lines(masks: Mapping[str, VocResult]) -> list[str]:
    """The mean of masks at each IoU, a line each."""
    from detection.evaluation.metrics import VOC_METRIC_TITLES

    return [
        f"mask AP^r {result.mean_ap:.4f} ({VOC_METRIC_TITLES[result.metric]}, IoU of masks {result.iou_threshold:g}, "
        f"{len(result.ap)} classes, of the images that have masks)"
        for result in masks.values()
    ]


def as_reported(options: argparse.Namespace, evaluated: Evaluated) -> ReportedDetector:
    """The same detections with all metrics: a model's on the ground truth of its data, those of files on the kit's."""
    from detection.analysis.report_truth import with_size
    from detection.data.catalog import Dataset
    from detection.evaluation.by_image import group_by_image
    from detection.inference.evaluate import evaluate_detections

    if evaluated.dataset is not None and evaluated.detections is not None:
        return evaluate_detections(evaluated.dataset, evaluated.detections).reported(name_of_evaluated(options))
    evaluation = evaluated.evaluation
    dataset = Dataset(tuple(evaluation.class_names), [with_size(record) for record in evaluation.records])
    found = group_by_image(dataset.records, evaluation.detections, dataset.class_names)
    return evaluate_detections(dataset, found).reported(name_of_evaluated(options))
