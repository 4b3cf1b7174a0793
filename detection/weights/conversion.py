"""Checkpoints of ours from the weights of other projects: classifiers and detectors.

The format is recognised by the names of the tensors. Each tensor gets its place here or a reason why it is left out; what
gives the weights their meaning (channel order, mean, strides, anchors, classes) is set as in the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backbones.errors import shorten
from backbones.weights.conversion import BACKBONE_FORMATS, backbone_format, convert_backbone
from backbones.weights.files import fitting_state, load_checkpoint, save_checkpoint
from backbones.weights.format import Checkpoint, CheckpointMetadata, is_own_format
from backbones.weights.renaming import ConversionEntry, State, unwrap_state_dict
from detection.config import ClassifierConfig, ClassifierModelConfig, Config, override_config, parse_config
from detection.errors import CheckpointError
from detection.modeling.anchors import generate_cell_anchors
from detection.modeling.faster_rcnn import FasterRCNN
from detection.weights.checkpoint import software_versions
from detection.weights.detector_formats import DETECTOR_FORMATS, detector_format
from detection.weights.foreign_detector import NAMED_CLASSES, ForeignDetector

FORMATS = (*DETECTOR_FORMATS, *BACKBONE_FORMATS)


@dataclass(frozen=True)
class Conversion:
    """A checkpoint of ours, the format it comes from, and the account of every tensor."""

    checkpoint: Checkpoint
    format: str
    entries: list[ConversionEntry]

    @property
    def counts(self) -> dict[str, int]:
        """Tensors by what became of them: matched, renamed, dropped, added."""
        counts = Counter(entry.kind for entry in self.entries)
        return {kind: counts[kind] for kind in ("matched", "renamed", "dropped", "added")}


def convert_file(
    source: str | Path, destination: str | Path, format_name: str | None = None, overrides: Sequence[str] = ()
) -> Conversion:
    """Convert a file of another project into a checkpoint, written atomically.

    `overrides` are `dotted.key=value` settings of the detector's or classifier's config, for what a file does not tell.
    Raises CheckpointError or ConfigError, and writes nothing, where the file is not understood in full.
    """
    if Path(destination).exists() and Path(source).exists() and Path(source).samefile(destination):
        raise CheckpointError(f"{destination} is the source itself: name another file to write")
    conversion = convert(load_checkpoint(source), str(source), format_name, overrides)
    save_checkpoint(conversion.checkpoint.contents(), destination)
    return conversion


def convert(
    contents: Mapping[str, Any], source: str, format_name: str | None = None, overrides: Sequence[str] = ()
) -> Conversion:
    """Convert what `load_checkpoint` has read, as `convert_file` does; `source` names it in errors."""
    if is_own_format(contents):
        raise CheckpointError(f"{source} is a checkpoint of resdet already: use it as it is")
    state, extras = unwrap_state_dict(contents, source)
    format_name = format_name or detector_format(state) or backbone_format(state)
    if format_name is None:
        known = "; ".join(f"{name}: {form.summary}" for name, form in (DETECTOR_FORMATS | BACKBONE_FORMATS).items())
        raise CheckpointError(
            f"{source} is in no format known here; its keys are {shorten(list(state)[:5])}. Known are {known}"
        )
    if format_name in DETECTOR_FORMATS:
        return _convert_detector(DETECTOR_FORMATS[format_name].read(state, extras, source), format_name, source, overrides)
    return _convert_classifier(contents, format_name, source, overrides)


def _convert_classifier(contents: Mapping[str, Any], format_name: str, source: str, overrides: Sequence[str]) -> Conversion:
    found = convert_backbone(contents, source, format_name)
    model = ClassifierModelConfig(backbone=found.name, stride_in_1x1=found.stride_in_1x1, stem_pool=found.stem_pool)
    config = override_config(ClassifierConfig(model=model), overrides)
    _require_backbone(found.name, config.model.backbone, source)
    plain_config = config.model_dump(mode="json")
    # No format names the classes of ImageNet; their number is that of the last layer's rows.
    metadata = CheckpointMetadata("classifier", (), found.preprocessing, plain_config, versions=software_versions())
    return Conversion(Checkpoint(metadata, found.state), found.format, found.entries)


def _convert_detector(found: ForeignDetector, format_name: str, source: str, overrides: Sequence[str]) -> Conversion:
    config = override_config(parse_config(Config, found.config, source), overrides)
    _require_backbone(found.backbone, config.model.backbone, source)
    names = config.data.class_names
    named = found.num_classes in NAMED_CLASSES or any(text.startswith("data.classes=") for text in overrides)
    if found.num_classes > 0 and not (named and len(names) == found.num_classes):
        given = f"and {len(names)} are named" if named else "which it does not name"
        raise CheckpointError(
            f"{source} tells {found.num_classes} classes apart, {given}: add data.classes=[cat,dog,...] in its order"
        )
    _require_anchors(found, config, source)
    plain_config = config.model_dump(mode="json")
    metadata = CheckpointMetadata("detector", names, found.preprocessing, plain_config, versions=software_versions())
    state = _fitting_detector(found.state, config, source)
    return Conversion(Checkpoint(metadata, state), format_name, found.entries)


def _fitting_detector(state: State, config: Config, source: str) -> State:
    with torch.device("meta"):  # shapes without values
        expected = FasterRCNN(config).state_dict()
    return fitting_state(expected, state, source)


def _require_backbone(found: str, wanted: str, source: str) -> None:
    if found != wanted:
        raise CheckpointError(f"{source} holds a {found}, not a {wanted}: leave model.backbone out or set it to {found}")


def _require_anchors(found: ForeignDetector, config: Config, source: str) -> None:
    """Raise CheckpointError where the source's own anchors are not those of the config."""
    if found.anchors is None:
        return
    ours = generate_cell_anchors(config.rpn.anchor_sizes, config.rpn.anchor_ratios)
    if ours.shape != found.anchors.shape or not torch.allclose(ours, found.anchors.float(), atol=0.01):
        first = [round(value, 1) for value in found.anchors.reshape(-1)[:4].tolist()]
        raise CheckpointError(
            f"{source} has {found.anchors.numel() // 4} anchors, the first {first}, not those of rpn.anchor_sizes="
            f"{list(config.rpn.anchor_sizes)} and rpn.anchor_ratios={list(config.rpn.anchor_ratios)}: set these alike"
        )
