"""Published weights by name, of classifiers and of detectors: `backbones.weights.zoo` with this package's conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbones.weights.download import Report, silent
from backbones.weights.files import load_checkpoint
from backbones.weights.zoo import Kind, classifier_checkpoint, converted_file, find
from detection.weights.conversion import convert

STANDARD_DETECTOR = "detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x"
"""The strongest: COCO's 80 classes."""


def weights_file(weights: str | Path, kind: Kind | None = None, report: Report = silent) -> Path:
    """`weights` itself, or the checkpoint that this name of the zoo stands for, fetched once; a detector's has its config.

    With `kind` a name of the other kind is refused before anything is downloaded. Raises CheckpointError.
    """
    entry = find(weights, kind)
    if entry is None:
        return Path(weights)
    return converted_file(entry, detector_checkpoint if entry.kind == "detector" else classifier_checkpoint, report)


def detector_checkpoint(source: Path) -> dict[str, Any]:
    """A detector's checkpoint of ours from another project's file. Raises CheckpointError."""
    return convert(load_checkpoint(source), str(source)).checkpoint
