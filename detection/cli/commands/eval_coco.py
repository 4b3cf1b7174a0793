"""COCO's twelve numbers, of a model on its config's test split or of a result file, which may hold masks.

Where the model's test.max_detections is above 100, COCO's cap, APcap and ARcap follow: AP and AR with so many per image.

With no option at all: of the last quickstart run, on the sample data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rich.console import Console

from detection.cli.arguments import CommandParser, any_path, output_file, output_folder
from detection.cli.options import (
    add_model_arguments,
    detections_given,
    load_model_and_split,
    parse_with_overrides,
    require_distinct,
)
from detection.cli.output import FOR_THE_SERVER, evaluating_processes, is_main_process, predict_split, say
from detection.cli.reporting import name_of_evaluated, require_report_output, write_page
from detection.errors import ConfigError, DatasetError
from detection.terminal import new_console

if TYPE_CHECKING:
    from detection.config import Config
    from detection.data.catalog import Dataset
    from detection.evaluation.coco import CocoResult
    from detection.inference.detector import Detector
    from detection.inference.ensemble import Ensemble
    from detection.report.reported import ReportedDetector
    from detection.structures import DetectionsByImage


@dataclass(frozen=True)
class Evaluated:
    """COCO's numbers, and of a model what they were computed from."""

    result: CocoResult
    dataset: Dataset | None = None
    detections: DetectionsByImage = field(default_factory=dict)
    config: Config | None = None


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    add_model_arguments(parser)
    files = parser.add_argument_group("detections already on disk, in COCO's result format")
    files.add_argument("--annotations", type=any_path, metavar="FILE", help="e.g. instances_val2017.json")
    files.add_argument("--detections", type=any_path, metavar="FILE", help="a list of image_id, category_id, bbox, score")
    files.add_argument(
        "--type",
        choices=("boxes", "masks"),
        default="boxes",
        help="what is compared; masks: results have segmentation, not bbox",
    )
    files.add_argument("--images", type=any_path, metavar="DIR", help="the pictures, for --report; they may be missing")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the numbers")
    parser.add_argument(
        "--write-detections", type=output_file, metavar="FILE", help="write the model's detections as a result file"
    )
    parser.add_argument(
        "--report", type=output_folder, metavar="DIR", help="write a page that says what is wrong, as `resdet report` does"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print, write what was asked for."""
    options = parse_with_overrides(build_parser(), argv)
    console = new_console()
    files = detections_given(options, "annotations", "FILE", ["images"])
    require_boxes(options, files)
    require_distinct(options, ["config", "weights", "annotations", "detections", "json", "write_detections"])
    require_report_output(options, ["annotations", "detections", "json", "write_detections"])
    if files:
        evaluated: Evaluated | None = Evaluated(evaluate_files(options))
    else:
        with evaluating_processes(options.device) as console:
            evaluated = evaluate_model(options, console)
    if evaluated is None:
        say(FOR_THE_SERVER, console)
        return 0

    from detection.analysis.tables import coco_table
    from detection.files import write_json

    result = evaluated.result
    # The file first: a terminal may fail.
    if options.json:
        write_json(options.json, result.numbers)
    console.print(coco_table(result.numbers, result.class_ap, "COCO, masks" if options.type == "masks" else "COCO"))
    if options.report:
        write_page(options.report, as_reported(options, evaluated), console)
    return 0


def require_boxes(options: argparse.Namespace, files: bool) -> None:
    """Raise ConfigError for --type masks with the report of files, which has only boxes."""
    if files and options.type == "masks" and options.report:
        raise ConfigError("--report of files shows boxes: leave out --type masks, or --report")


def require_masks(model: Detector | Ensemble, dataset: Dataset) -> None:
    """Raise ConfigError for a model without a mask head, DatasetError for a split without masks."""
    if not model.predicts_masks:
        raise ConfigError("--type masks: this model predicts no masks (model.mask is false); leave it out to compare boxes")
    if all(record.masks is None for record in dataset.records):
        raise DatasetError("--type masks: no image of the split has masks; leave it out to compare boxes")


def evaluate_files(options: argparse.Namespace) -> CocoResult:
    """The result of --annotations and --detections. Raises DatasetError."""
    from detection.evaluation.coco import evaluate_coco_results
    from detection.evaluation.coco_files import read_annotations, read_results

    ground_truth = read_annotations(options.annotations, options.type)
    results = read_results(options.detections, ground_truth, options.type)
    return evaluate_coco_results(ground_truth, results, iou_type=options.type)


def as_reported(options: argparse.Namespace, evaluated: Evaluated) -> ReportedDetector:
    """What was evaluated, with all metrics: a model's detections, or those of the files, which are read again."""
    from detection.analysis.report_truth import TruthFiles
    from detection.analysis.reporting import load_reported
    from detection.inference.evaluate import evaluate_detections

    if evaluated.dataset is None or evaluated.config is None:
        return load_reported([options.detections], truth=TruthFiles(options.annotations, options.images))[0]
    found = evaluate_detections(evaluated.dataset, evaluated.detections, evaluated.config.test.max_detections)
    return replace(found, max_pixels=evaluated.config.data.max_pixels).reported(name_of_evaluated(options))


def evaluate_model(options: argparse.Namespace, console: Console) -> Evaluated | None:
    """The result of a model on its test split; its detections are written where --write-detections says.

    None for a split without annotations, and on all but rank 0 of several processes. All that can be refused is refused before
    the first image, and the detections are written before they are evaluated. Raises ConfigError if such a run would leave
    nothing.
    """
    from detection.evaluation.coco import evaluate_coco_results
    from detection.evaluation.known import without_unknown
    from detection.evaluation.predicted_masks import evaluate_predicted_masks
    from detection.evaluation.split import as_coco_results, coco_ground_truth
    from detection.files import write_json

    model, weights, split = load_model_and_split(options, "FILE")
    if options.type == "masks" and not split.unannotated:
        require_masks(model, split.dataset)
    ground_truth = coco_ground_truth(split)
    detections = predict_split(model, weights, split.records, console)
    if not is_main_process():
        return None
    if options.write_detections:
        write_json(options.write_detections, as_coco_results(ground_truth, detections, split.class_names))
        say(f"detections: {options.write_detections}", console)
    if split.unannotated:
        return None
    known = without_unknown(split.records, detections)
    if options.type == "masks":
        masks = evaluate_predicted_masks(split.records, known, split.class_names)
        return None if masks is None else Evaluated(masks, split.dataset, detections, model.config)
    counted = as_coco_results(ground_truth, known, split.class_names)
    result = evaluate_coco_results(ground_truth, counted, split.class_names, model.config.test.max_detections)
    return Evaluated(result, split.dataset, detections, model.config)
