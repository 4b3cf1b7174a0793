"""Export a detector or a backbone to ONNX (.onnx) or to a program of torch.export (.pt2), for use without this package.

The number of images and their sizes stay open; images are uint8 RGB, normalised inside. A detector's images come at the size
that test.shorter_side asks for: see docs/export.md. The file is run on a random image and compared before it is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detection.cli.arguments import CommandParser, any_path, file_fault
from detection.cli.options import is_override
from detection.cli.output import fetch_weights, say
from detection.errors import ConfigError

DETECTOR_KEYS = ("test.",)
BACKBONE_KEYS = ("model.stride_in_1x1=", "model.stem_pool=")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="OUTPUT",
        help="the file to write; its suffix, .onnx or .pt2, tells the format. Also dotted.key=value: a detector's test.*, as "
        "test.score_threshold=0.3; a backbone's model.stride_in_1x1=true, model.stem_pool=ceil",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--weights", type=any_path, metavar="FILE", help="a detector's checkpoint or a name of the zoo (docs/weights.md)"
    )
    what.add_argument("--backbone", metavar="NAME", help="a backbone instead of a detector, e.g. resnet50")
    parser.add_argument(
        "--backbone-weights",
        type=any_path,
        metavar="FILE",
        help="a classifier's file or name, e.g. torchvision/resnet50; default: random",
    )
    parser.add_argument(
        "--int8",
        type=any_path,
        metavar="FOLDER",
        help="write a detector's layers in int8, smaller and faster on CPUs; FOLDER: images as it will see them, to measure on",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="where a .pt2 computes: cuda, cuda:1, mps, xpu; default: %(default)s"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export, check and write."""
    options = build_parser().parse_intermixed_args(argv)
    overrides = [text for text in options.arguments if is_override(text)]
    output = output_file([text for text in options.arguments if text not in overrides])
    check_options(options, overrides)
    # Only now: torch is slow to load.
    from detection.device import find_device
    from detection.export import check_format

    check_format(output, options.device)
    find_device(options.device)  # before anything is downloaded
    write = write_backbone if options.backbone is not None else write_detector
    say(f"{output}: {write(options, overrides, output)}")
    return 0


def output_file(names: Sequence[str]) -> Path:
    """The one file to write. Raises ConfigError for none or several."""
    if len(names) != 1:
        raise ConfigError(f"name one file to write, not {len(names)}: {' '.join(names) or 'OUTPUT is missing'}")
    output = Path(names[0])
    if (fault := file_fault(output)) is not None:
        raise ConfigError(f"the output {fault}")
    return output


def check_options(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Raise ConfigError for overrides of other keys than an export has, and for options that do not go together."""
    keys = BACKBONE_KEYS if options.backbone is not None else DETECTOR_KEYS
    for text in overrides:
        if not text.startswith(keys):
            raise ConfigError(f"'{text}' cannot be chosen here, only {' and '.join(f'{key}...' for key in keys)}")
    if options.weights and options.backbone_weights:
        raise ConfigError("--backbone-weights goes with --backbone; a detector has its backbone's weights in --weights")
    if options.int8 is not None and not options.weights:
        raise ConfigError("--int8 goes with a detector's --weights")
    if options.int8 is not None and not options.int8.exists():
        raise ConfigError(f"--int8 must be a folder of images to measure ranges on; there is no {options.int8}")


def write_detector(options: argparse.Namespace, overrides: Sequence[str], output: Path) -> str:
    """Export the detector of --weights; returns a sentence about the file.

    Raises CheckpointError or ConfigError, and DatasetError for the images of --int8.
    """
    from detection.config import override_config
    from detection.export import export_detector, export_int8
    from detection.inference.detector import load_detector

    find_weights = partial(fetch_weights, kind="detector")
    detector = load_detector(options.weights, lambda own: override_config(own, overrides), find_weights=find_weights)
    if options.int8 is not None:
        return export_int8(detector, output, options.int8)
    return export_detector(detector, output, options.device)


def write_backbone(options: argparse.Namespace, overrides: Sequence[str], output: Path) -> str:
    """Export the network of --backbone; returns a sentence about the file.

    Raises BackboneError, CheckpointError or ConfigError.
    """
    from backbones import build_backbone
    from detection.config import Config, override_config
    from detection.export import export_backbone

    model = override_config(Config(), overrides).model
    weights = None if options.backbone_weights is None else fetch_weights(options.backbone_weights)
    network = build_backbone(options.backbone, weights, stride_in_1x1=model.stride_in_1x1, stem_pool=model.stem_pool)
    return export_backbone(network, options.backbone, output, options.device)
