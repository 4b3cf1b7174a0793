"""ImageNet's measures: DET's average precision, or CLS-LOC's errors.

`det --help` and `loc --help` show what each of the two takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from detection.cli.arguments import CommandParser


def build_parser() -> argparse.ArgumentParser:
    """The first word of the command line; the others are the task's, whose module has a parser of its own."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("task", choices=("det", "loc"), help="which competition")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Call the task's own `main`."""
    from detection.cli.commands import eval_ilsvrc_det, eval_ilsvrc_loc

    arguments = list(sys.argv[1:] if argv is None else argv)
    task = build_parser().parse_args(arguments[:1]).task
    return (eval_ilsvrc_det if task == "det" else eval_ilsvrc_loc).main(arguments[1:])
