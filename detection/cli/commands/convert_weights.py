"""Convert the weights of another project into a checkpoint of this one.

Reads torchvision's and timm's ResNets and VGG-16, the authors' Caffe models as detectron2 ships them, akamaster's CIFAR
ResNets, C4 detectors of detectron2's, of jwyang/faster-rcnn.pytorch and of tf-faster-rcnn's PyTorch port. Nothing is
written unless every tensor has its place or a reason why it is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detection.cli.arguments import CommandParser, any_path, output_file
from detection.cli.options import is_override, require_distinct
from detection.cli.output import fetch_published_file, say
from detection.errors import ConfigError

FORMATS = (
    "auto",
    "torchvision-detector",
    "detectron2",
    "jwyang",
    "tf-faster-rcnn",
    "msra",
    "detectron2-backbone",
    "akamaster",
    "torchvision",
    "caffe",
    "caffe-bvlc",
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("source", type=any_path, metavar="SRC", help=".pth, .pt, .safetensors, .pkl, or a name of the zoo")
    parser.add_argument("destination", type=output_file, metavar="DST", help="the checkpoint to write")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="default: recognised by the names of the tensors")
    parser.add_argument("--report", type=output_file, metavar="FILE", help="write what became of each tensor, as JSON")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="what the file does not tell, e.g. data.classes=[cat,dog] or model.stem_pool=pad1",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Convert, and say what the file is and what became of its tensors."""
    options = build_parser().parse_intermixed_args(argv)
    for text in options.overrides:
        if not is_override(text):
            raise ConfigError(f"'{text}' must look like dotted.key=value")
    require_distinct(options, ["report"], [options.source, options.destination])
    # Only now: torch is slow to load.
    from detection.files import write_json
    from detection.weights.conversion import convert_file
    from detection.weights.conversion_report import conversion_report, describe_conversion

    format_name = None if options.format == "auto" else options.format
    conversion = convert_file(fetch_published_file(options.source), options.destination, format_name, options.overrides)
    if options.report is not None:
        write_json(options.report, conversion_report(conversion))
    first, *others = describe_conversion(conversion)
    for line in (f"{options.source}: {first}", *others, f"written to {options.destination}"):
        say(line)
    return 0
