"""The paper's table of improvements: a baseline, + box refinement, + context, + multi-scale testing, + ensemble.

Give the checkpoints of one data set, trained with and without global context, in any order. The first of each kind is the
single network; all with context make the ensemble, or all without if none has it. Rows that no checkpoint allows are left
out. Costs are seconds per image of each row by itself; for the metrics, what rows have in common is computed once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from detection.cli.arguments import CommandParser, output_file, whole_number
from detection.cli.options import add_model_arguments, load_detectors, parse_with_overrides, require_distinct
from detection.cli.output import progress_bar, say
from detection.terminal import new_console


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    add_model_arguments(parser)
    parser.add_argument(
        "--timed-images", type=whole_number(1), default=8, metavar="N", help="images to measure time on; default: 8"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the table, as docs/results/*.json hold it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write what was asked for."""
    options = parse_with_overrides(build_parser(), argv)
    require_distinct(options, ["config", "weights", "json"])
    console = new_console()

    from detection.analysis.ablation import plan_rows
    from detection.analysis.ablation_table import ablation_table, measure_ablation
    from detection.evaluation.split import load_evaluation_split
    from detection.files import write_json

    detectors, files = load_detectors(options, own_networks=True)
    left_out = plan_rows(detectors).left_out
    split = load_evaluation_split(detectors[0].config)
    for sentence in left_out:
        say(f"left out: {sentence}", console)
    num_images = len(split.records)
    with progress_bar(console) as progress:
        tasks = {
            "timing": progress.add_task("timing", total=min(options.timed_images, num_images)),
            "detecting": progress.add_task("detecting", total=num_images),
        }
        ablation = measure_ablation(
            detectors,
            [str(file) for file in files],
            split,
            options.timed_images,
            report=lambda stage, done: progress.update(tasks[stage], completed=done),
        )
    # The file first: a terminal may fail.
    if options.json:
        command = shlex.join(["tools/ablation.py", *(sys.argv[1:] if argv is None else argv)])
        write_json(options.json, ablation.as_json(command))
    console.print(ablation_table(ablation))
    return 0
