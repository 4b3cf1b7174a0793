"""Write a config that trains a detector on a folder of labelled images.

The folder may be in any format of docs/custom-data.md. The config fits the data and this machine, and has comments: read it,
change it, then `resdet train FILE`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detection.cli.arguments import CommandParser, any_path, output_file, output_folder
from detection.cli.output import say


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("config", type=output_file, metavar="FILE", help="the config to write, e.g. my.yaml")
    parser.add_argument(
        "--data", type=any_path, required=True, metavar="FOLDER", help="the labelled images, or a file of labels"
    )
    parser.add_argument(
        "--weights",
        type=any_path,
        metavar="FILE",
        help="what the training starts from, a checkpoint or a name of the zoo; default: a detector of COCO's classes",
    )
    parser.add_argument("--output-dir", type=output_folder, metavar="DIR", help="where the run goes; default: runs/NAME")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Look at the data, write the config. Raises DatasetError, CheckpointError or ConfigError."""
    options = build_parser().parse_args(argv)

    from detection.training.new import write_new_experiment

    new = write_new_experiment(options.config, options.data, options.weights, output_dir=options.output_dir)
    for sentence in new.findings:
        say(sentence)
    say(f"{options.config} is written; next: resdet train {options.config}")
    return 0
