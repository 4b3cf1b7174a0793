"""ImageNet DET's average precision of submitted files.

Their lines are "image_index DET_ID confidence xmin ymin xmax ymax"; images have the numbers of the split's own list.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from detection.cli.arguments import CommandParser, any_path, output_file
from detection.cli.options import require_distinct
from detection.terminal import new_console, plain

if TYPE_CHECKING:
    from detection.evaluation.ilsvrc import DetResult


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(prog=f"{Path(sys.argv[0]).name} det", description=__doc__)
    parser.add_argument("--detections", type=any_path, required=True, metavar="FILE", help="what was found, as it is submitted")
    parser.add_argument(
        "--devkit",
        type=any_path,
        required=True,
        metavar="DIR",
        help="the development kit: its data/ has maps, lists, ground truth",
    )
    parser.add_argument("--split", choices=("val", "val1", "val2"), help="default: val")
    parser.add_argument("--annotations", type=any_path, metavar="DIR", help="the XML files instead of the kit's .mat file")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the numbers")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, write, print."""
    options = build_parser().parse_intermixed_args(argv)
    require_distinct(options, ["detections", "json"])

    from detection.evaluation.ilsvrc_files import evaluate_det_files
    from detection.files import write_json

    result = evaluate_det_files(options.devkit, options.detections, options.split or "val", options.annotations)
    # The file first: a terminal may fail.
    if options.json:
        write_json(options.json, result.as_json())
    new_console().print(det_table(result))
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
