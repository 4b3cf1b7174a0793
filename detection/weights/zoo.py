"""Weights by a path or a published name, of classifiers and of detectors: `resolve_weights` gives their file.

The names are those of `backbones.weights.zoo`; what is added here is the conversion of published detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbones.weights.download import ReportProgress, report_nothing
from backbones.weights.files import load_checkpoint, require_readable
from backbones.weights.format import Kind
from backbones.weights.zoo import classifier_checkpoint, converted_file, find_published
from detection.weights.conversion import convert

STANDARD_DETECTOR = "torchvision/fasterrcnn_resnet50_fpn_v2"
"""The strongest detector of boxes in the zoo, for COCO's 80 classes; twice as fast on a CPU as the strongest C4 one."""


def resolve_weights(weights: str | Path, kind: Kind | None = None, report: ReportProgress = report_nothing) -> Path:
    """The file that a path or a name of the zoo stands for. What a name stands for is downloaded and converted once.

    A path comes back as it is. `report(done, total)` is called with numbers of bytes during a download. With `kind` a name
    of the other kind is refused before anything is downloaded. Raises CheckpointError: no such file or name, no connection,
    another file than was published, no space.
    """
    entry = find_published(weights, kind)
    if entry is None:
        require_readable(Path(weights))
        return Path(weights)
    return converted_file(entry, _detector_checkpoint if entry.kind == "detector" else classifier_checkpoint, report)


def find_classifier(weights: str | Path) -> Path:
    """The file of a classifier's weights, from a path or a name of the zoo. Raises CheckpointError."""
    return resolve_weights(weights, "classifier")


def find_detector(weights: str | Path) -> Path:
    """The file of a detector's weights, from a path or a name of the zoo. Raises CheckpointError."""
    return resolve_weights(weights, "detector")


def _detector_checkpoint(source: Path) -> dict[str, Any]:
    """A detector's checkpoint of ours, its config included, from another project's file. Raises CheckpointError."""
    return convert(load_checkpoint(source), str(source)).checkpoint.contents()
