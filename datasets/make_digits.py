"""Make the sample data set: real handwritten digits on real photographs, as VOC devkit, COCO JSON and class folders.

python datasets/make_digits.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from detection.data.digits import DigitsOptions, make_digits
from detection.errors import DatasetError
from detection.files import expand_home

DEFAULTS = DigitsOptions()


def positive(text: str) -> int:
    """An argument that counts something: at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def not_negative(text: str) -> int:
    """An argument that may be 0: a seed."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {number}")
    return number


def default_output() -> Path:
    """Where the configs look for it: below $RESDET_DATASETS, else in this script's folder."""
    return expand_home(os.environ.get("RESDET_DATASETS") or Path(__file__).parent) / "digits"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the sample data set of handwritten digits on photographs.")
    parser.add_argument("--output", type=Path, default=default_output(), help="default: %(default)s")
    parser.add_argument("--seed", type=not_negative, default=DEFAULTS.seed)
    parser.add_argument("--train", type=positive, default=DEFAULTS.train, help="images")
    parser.add_argument("--val", type=positive, default=DEFAULTS.val, help="images")
    parser.add_argument("--test", type=positive, default=DEFAULTS.test, help="images")
    parser.add_argument(
        "--crops", type=positive, default=DEFAULTS.crops, help="single digits for the classification stage, training split"
    )
    parser.add_argument(
        "--image-size", type=positive, default=DEFAULTS.image_size, help="longer side in pixels; the shorter is 3/4"
    )
    parser.add_argument("--min-digit", type=positive, default=DEFAULTS.min_digit, help="height of the smallest in pixels")
    parser.add_argument("--max-digit", type=positive, default=DEFAULTS.max_digit, help="height of the largest in pixels")
    parser.add_argument("--force", action="store_true", help="replace a set that was made with other parameters")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the set unless it is there."""
    arguments = vars(build_parser().parse_args(argv))
    output, force = arguments.pop("output"), arguments.pop("force")
    options = DigitsOptions(**arguments)
    counts = f"{options.train} training, {options.val} validation and {options.test} test images"
    try:
        made = make_digits(output, options, force=force)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write {error.filename or output}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"sample data: {output} {'made' if made else 'is complete'} ({counts})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
