"""ImageNet DET's average precision, of a model on its config's test split or of submitted files.

Lines of such files: "image_index DET_ID confidence xmin ymin xmax ymax"; images have the numbers of the split's own list.

With no option at all: of the last quickstart run, on the sample data.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from detection.cli.arguments import CommandParser, any_path, output_file
from detection.cli.options import (
    add_model_arguments,
    detections_given,
    load_model_and_split,
    parse_with_overrides,
    require_distinct,
    require_nothing_replaced,
)
from detection.cli.output import FOR_THE_SERVER, evaluating_processes, is_main_process, predict_split, say
from detection.errors import DatasetError
from detection.terminal import new_console, plain

if TYPE_CHECKING:
    from detection.evaluation.ilsvrc import DetResult


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(prog=f"{Path(sys.argv[0]).name} det", description=__doc__)
    add_model_arguments(parser)
    files = parser.add_argument_group("detections already on disk, as they are submitted")
    files.add_argument("--detections", type=any_path, metavar="FILE", help="what was found")
    files.add_argument(
        "--devkit", type=any_path, metavar="DIR", help="the development kit: its data/ has maps, lists, ground truth"
    )
    files.add_argument("--split", choices=("val", "val1", "val2"), help="default: val")
    files.add_argument("--annotations", type=any_path, metavar="DIR", help="the XML files instead of the kit's .mat file")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the numbers")
    parser.add_argument(
        "--write-detections", type=output_file, metavar="FILE", help="write the model's detections as they are submitted"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, write, print."""
    options = parse_with_overrides(build_parser(), argv)
    require_distinct(options, ["config", "weights", "detections", "json", "write_detections"])
    console = new_console()
    files = detections_given(options, "devkit", "DIR", ["split", "annotations"])
    if files:
        result: DetResult | None = evaluate_files(options)
    else:
        with evaluating_processes(options.device) as console:
            result = evaluate_model(options, console)
    if result is None:
        say(FOR_THE_SERVER, console)
        return 0

    from detection.evaluation.voc import NOTHING_TO_MEASURE
    from detection.files import write_json

    if math.isnan(result.mean_ap):
        raise DatasetError(NOTHING_TO_MEASURE)
    # The file first: a terminal may fail.
    if options.json:
        write_json(options.json, result.as_json())
    console.print(det_table(result))
    return 0


def evaluate_files(options: argparse.Namespace) -> DetResult:
    """The result of --detections, --devkit and what goes with them. Raises DatasetError."""
    from detection.data.ilsvrc_devkit import kit_files
    from detection.evaluation.ilsvrc_files import evaluate_det_files

    annotations = [] if options.annotations is None else [options.annotations]
    require_nothing_replaced(options, ["json"], [*kit_files(options.devkit), *annotations])
    return evaluate_det_files(options.devkit, options.detections, options.split or "val", options.annotations)


def evaluate_model(options: argparse.Namespace, console: Console) -> DetResult | None:
    """The result of a model on its test split; its detections are written where --write-detections says.

    None for a split without annotations, and on all but rank 0 of several processes. All that can be refused is refused before
    the first image, and the detections are written before they are evaluated. Raises ConfigError if such a run would leave
    nothing.
    """
    from detection.evaluation.ilsvrc_records import evaluate_det_records
    from detection.evaluation.ilsvrc_split import submission_numbers, unevaluated_of, write_submission
    from detection.evaluation.voc import NOTHING_TO_MEASURE, num_objects

    model, weights, split = load_model_and_split(options, "FILE")
    if num_objects(split.records) == 0 and not options.write_detections:
        raise DatasetError(NOTHING_TO_MEASURE)
    numbers = submission_numbers(split) if options.write_detections else None
    unevaluated = unevaluated_of(split)
    detections = predict_split(model, weights, split.records, console)
    if not is_main_process():
        return None
    if numbers is not None:
        write_submission(options.write_detections, split, numbers, detections)
        say(f"detections: {options.write_detections}", console)
    if split.unannotated:
        return None
    return evaluate_det_records(split.records, detections, split.class_names, unevaluated)


def det_table(result: DetResult) -> Table:
    """AP of each class, its mean and median."""
    table = Table(title="ImageNet DET")
    table.add_column("class")
    table.add_column("AP", justify="right")
    for name, ap in result.ap.items():
        table.add_row(plain(name), f"{ap:.4f}")
    table.add_section()
    table.add_row("mean", f"{result.mean_ap:.4f}")
    table.add_row("median", f"{result.median_ap:.4f}")
    return table
