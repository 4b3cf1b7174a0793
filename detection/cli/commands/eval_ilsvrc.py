"""ImageNet's measures of submitted files: DET's average precision, or CLS-LOC's errors.

det: lines "image_index DET_ID confidence xmin ymin xmax ymax"; images have the numbers of the split's own list.
loc: a line per image, up to five groups "label xmin ymin xmax ymax".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from detection.cli.arguments import CommandParser, any_path, output_file
from detection.cli.options import require_distinct
from detection.errors import ConfigError
from detection.terminal import new_console, plain

if TYPE_CHECKING:
    from detection.evaluation.ilsvrc import DetResult, LocResult


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("task", choices=("det", "loc"), help="which competition")
    parser.add_argument("--detections", type=any_path, required=True, metavar="FILE", help="what was found, as it is submitted")
    parser.add_argument(
        "--devkit",
        type=any_path,
        required=True,
        metavar="DIR",
        help="the development kit: its data/ has maps, lists, ground truth",
    )
    parser.add_argument("--split", choices=("val", "val1", "val2"), help="of DET; default: val")
    parser.add_argument("--annotations", type=any_path, metavar="DIR", help="DET's XML files instead of the kit's .mat file")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the numbers")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, write, print."""
    options = build_parser().parse_args(argv)
    if options.task == "loc" and (options.split or options.annotations):
        raise ConfigError("--split and --annotations are DET's: CLS-LOC has one validation split, whose boxes are in the kit")
    require_distinct(options, ["detections", "json"])

    from detection.evaluation.ilsvrc import DetResult
    from detection.evaluation.ilsvrc_files import evaluate_det_files, evaluate_loc_files
    from detection.files import write_json

    result: DetResult | LocResult
    if options.task == "det":
        result = evaluate_det_files(options.devkit, options.detections, options.split or "val", options.annotations)
    else:
        result = evaluate_loc_files(options.devkit, options.detections)

    # The file first: a terminal may fail.
    if options.json:
        write_json(options.json, result.as_json())
    new_console().print(det_table(result) if isinstance(result, DetResult) else loc_table(result))
    return 0


def det_table(result: DetResult) -> Table:
    """AP of each class, its mean and median."""
    table = Table(title="ImageNet DET, AP by size of the object")
    table.add_column("class")
    table.add_column("AP", justify="right")
    for name, ap in result.ap.items():
        table.add_row(plain(name), f"{ap:.4f}")
    table.add_section()
    table.add_row("mean", f"{result.mean_ap:.4f}")
    table.add_row("median", f"{result.median_ap:.4f}")
    return table


def loc_table(result: LocResult) -> Table:
    """The errors by the number of guesses."""
    table = Table(title="ImageNet CLS-LOC, errors in per cent")
    table.add_column("")
    numbers = range(1, len(result.localisation_error) + 1)
    for number in numbers:
        table.add_column(f"top {number}", justify="right")
    for title, errors in (("localisation", result.localisation_error), ("classification", result.classification_error)):
        table.add_row(title, *(f"{100 * error:.2f}" for error in errors))
    table.add_row("true class, its first box", f"{100 * result.gt_class_error:.2f}", *("" for _ in numbers[1:]))
    return table
