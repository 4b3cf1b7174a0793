"""Draw what a detector finds in images, folders, videos or a camera.

Writes a picture for each image (DIR/NAME.jpg; of a TIFF's pages DIR/NAME_page1.jpg, ...) and one DIR/detections.json; for each
video, camera or animation (GIF, APNG, WebP) DIR/NAME.mp4 and DIR/NAME.jsonl, with a line for each frame. Boxes are
[x1, y1, x2, y2] in pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detection.cli.arguments import CommandParser
from detection.cli.drawing import add_drawing_arguments, draw_all


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    add_drawing_arguments(parser, "image, folder, 'glob', video, or camera (camera:1 is the second)", output=Path("runs/demo"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Draw everything that can be read; what cannot is listed at the end. Returns 0, 1 if some inputs failed, 2 if all did."""
    return draw_all(build_parser().parse_intermixed_args(argv))
