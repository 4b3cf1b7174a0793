"""Follow objects through videos, cameras, animations, or a folder of images that are the frames of a film.

Writes for each film DIR/NAME.mp4, in which each object has a number and its colour, and DIR/NAME.jsonl, a line for each frame
with the number of each object as "track". The package that follows them: pip install 'resdet[track]'.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from detection.cli.arguments import CommandParser, number_from
from detection.cli.drawing import add_drawing_arguments, draw_all
from detection.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    inputs = "video, animation, folder of frames in the order of their names, or camera (camera:1 is the second)"
    add_drawing_arguments(parser, inputs, output=Path("runs/track"))
    parser.add_argument(
        "--keep",
        type=number_from(0, 3600),
        default=1.0,
        metavar="SECONDS",
        help="an object that is not seen for so long gets a new number; default: %(default)s",
    )
    parser.add_argument(
        "--trail",
        type=number_from(0, 3600),
        default=0.0,
        metavar="SECONDS",
        help="of the way that is drawn behind each object; default: none",
    )
    parser.add_argument(
        "--fps",
        type=number_from(0.01, 1000),
        default=25.0,
        metavar="N",
        help="frames per second of a folder; default: %(default)s",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Follow objects; what cannot be read is listed at the end. Returns 0, 1 if some inputs failed, 2 if all did."""
    options = build_parser().parse_intermixed_args(argv)
    if find_spec("norfair") is None:  # before the weights are loaded
        raise ConfigError("tracking needs the package norfair: pip install 'resdet[track]'")
    from detection.data.media import find_films
    from detection.inference.painting import Tracking

    return draw_all(options, find_films, Tracking(options.keep, options.trail, options.fps))
