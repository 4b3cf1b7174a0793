"""Convert the weights of another project into a checkpoint of this one.

Reads torchvision's and timm's ResNets and VGG-16, the authors' Caffe models as detectron2 ships them, akamaster's CIFAR
ResNets, C4 detectors of detectron2's, of jwyang/faster-rcnn.pytorch and of tf-faster-rcnn's PyTorch port. Nothing is
written unless every tensor has its place or a reason why it is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detection.cli.options import is_override
from detection.cli.output import fetch_published_file
from detection.errors import ConfigError

if TYPE_CHECKING:
    from detection.weights.conversion import Conversion

FORMATS = ("auto", "detectron2", "jwyang", "tf-faster-rcnn", "msra", "detectron2-backbone", "akamaster", "torchvision", "caffe")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="SRC", help="a .pth, .pt, .safetensors or .pkl file, or a name of the zoo")
    parser.add_argument("destination", type=Path, metavar="DST", help="the checkpoint to write")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="default: told from the names of the tensors")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what became of each tensor, as JSON")
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
    # Only now: torch is slow to load.
    from detection.weights.conversion import convert_file

    format_name = None if options.format == "auto" else options.format
    conversion = convert_file(fetch_published_file(options.source), options.destination, format_name, options.overrides)
    print("\n".join(describe(conversion, options.source, options.destination)))
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(report(conversion), indent=1) + "\n", encoding="utf-8")
    return 0


def describe(conversion: Conversion, source: Path, destination: Path) -> list[str]:
    """The lines that are printed: what it is, how it is meant, and what became of the tensors."""
    metadata = conversion.checkpoint.metadata
    model, pixels = metadata.config["model"], metadata.preprocessing.to_dict()
    classes = f", {len(metadata.class_names)} classes" if metadata.class_names else ""
    counts = ", ".join(f"{count} {kind}" for kind, count in conversion.counts.items())
    return [
        f"{source}: {metadata.kind}, {model['backbone']}{classes} (format {conversion.format})",
        f"  stride_in_1x1: {str(model['stride_in_1x1']).lower()}, stem_pool: {model['stem_pool']}",
        f"  {pixels['channel_order']}, mean {pixels['mean']}, std {pixels['std']}",
        f"  tensors: {counts}",
        *notes(conversion),
        f"written to {destination}",
    ]


def notes(conversion: Conversion) -> list[str]:
    """A line for each reason that tensors were dropped, added or changed for, with the first name and their number."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for entry in conversion.entries:
        if entry.note:
            grouped.setdefault((entry.kind, entry.note), []).append(entry.source or entry.target or "")
    return [
        f"    {kind} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") + f": {note}"
        for (kind, note), names in grouped.items()
    ]


def report(conversion: Conversion) -> dict[str, Any]:
    """The account of every tensor, and all of the checkpoint that is not a tensor."""
    return {
        "format": conversion.format,
        **conversion.checkpoint.metadata.to_dict(),
        "counts": conversion.counts,
        "tensors": [
            {"kind": entry.kind, "source": entry.source, "target": entry.target, "note": entry.note}
            for entry in conversion.entries
        ],
    }
