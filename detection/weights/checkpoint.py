"""Checkpoints of ours: read, written, and turned into models. `backbones.weights.format` has their layout."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from backbones.errors import CheckpointError, printable, shorten
from backbones.options import BackboneOptions
from backbones.weights.classifier import parse_classifier_weights
from backbones.weights.files import load_checkpoint, load_state, save_checkpoint, without_prefix
from backbones.weights.format import Checkpoint, CheckpointMetadata, Kind, is_own_format, parse_checkpoint
from detection.config import Config, FpnConfig, parse_config
from detection.errors import ConfigError
from detection.modeling.parts import backbone_weights
from detection.weights.transfer import transfer

if TYPE_CHECKING:
    from detection.modeling.faster_rcnn import FasterRCNN

__all__ = [
    "BACKBONE_KEYS",
    "WEIGHT_KEYS",
    "Checkpoint",
    "CheckpointMetadata",
    "checkpoint_config",
    "detector_metadata",
    "initialise_detector",
    "read_checkpoint",
    "require_fitting_heads",
    "require_same_classes",
    "require_same_values",
    "software_versions",
    "write_checkpoint",
]

# Config keys that say what the weights compute. With another value the tensors may still fit, but they would be wrong.
BACKBONE_KEYS = ("model.backbone", "model.stride_in_1x1", "model.stem_pool")
NECK_KEYS = tuple(f"fpn.{name}" for name in FpnConfig.model_fields)
WEIGHT_KEYS = (
    *BACKBONE_KEYS,
    "model.neck",
    *NECK_KEYS,
    "rpn.anchor_sizes",
    "rpn.anchor_ratios",
    "rpn.anchor_offset",
    "rpn.round_anchors",
    "rpn.convs",
    "roi.pool_size",
    "roi.aligned",
    "roi.unused_outputs",
    "roi.delta_std",
    "roi.context",
    "model.mask",
    "mask.pool_size",
)


def detector_metadata(model: FasterRCNN) -> CheckpointMetadata:
    """What each checkpoint of a detector says about it."""
    config = model.config.model_dump(mode="json")
    return CheckpointMetadata("detector", tuple(model.class_names), model.preprocessing, config, versions=software_versions())


def write_checkpoint(metadata: CheckpointMetadata, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a checkpoint without a training state, atomically. Raises CheckpointError where that fails."""
    save_checkpoint(Checkpoint(metadata, state).contents(), path)


def read_checkpoint(path: str | Path, kind: Kind) -> Checkpoint:
    """A checkpoint of ours, which must be of that kind. Raises CheckpointError where the file is anything else."""
    return parse_checkpoint(load_checkpoint(path), str(path), kind)


@cache
def software_versions() -> dict[str, str]:
    """What the run is computed with: packages, Python, and the commit where this is a git checkout."""
    versions = {name: _package_version(name) for name in ("torch", "torchvision", "resdet")}
    versions["python"] = platform.python_version()
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        # Without git at hand the version number has to do.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            versions["commit"] = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return versions


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def initialise_detector(model: FasterRCNN, path: str | Path) -> str:
    """Start a detector from a file: another detector's weights, or a classifier's for its backbone.

    Accepts a checkpoint of either kind or a plain state dict with torchvision's names. A detector may have other classes,
    another `roi.context` or other anchors: what has no counterpart starts afresh; of one with another `model.neck` that is all
    but the backbone. Returns a sentence that says what was restored. Raises CheckpointError where the file does not fit.
    """
    contents = load_checkpoint(path)
    if is_own_format(contents) and (checkpoint := parse_checkpoint(contents, str(path))).metadata.kind == "detector":
        return _initialise_from_detector(model, checkpoint, path)
    network = model.config.model
    options = BackboneOptions(stride_in_1x1=network.stride_in_1x1, stem_pool=network.stem_pool)
    found = parse_classifier_weights(contents, str(path), network.backbone, options, model.trunk.preprocessing)
    model.load_backbone(found.state, found.preprocessing, str(path))
    source = "plain weights" if found.metadata is None else _describe_classifier(found.metadata.class_names)
    return f"the backbone starts from the {source} {path}; all other layers start from random numbers"


def _initialise_from_detector(model: FasterRCNN, checkpoint: Checkpoint, path: str | Path) -> str:
    found = checkpoint.metadata
    config = checkpoint_config(checkpoint, path)
    require_same_values(config, model.config, BACKBONE_KEYS, path)
    fresh = model.state_dict()
    theirs = without_prefix(checkpoint.state, ("trunk.", "rpn.", "roi_head."), str(path))
    require_fitting_heads(theirs, config, path)
    if config.model.neck != model.config.model.neck:
        model.load_backbone(backbone_weights(theirs, config), found.preprocessing, str(path))
        return (
            f"the backbone starts from the detector {path}, all else from random numbers, as that has model.neck="
            f"{config.model.neck}; optimizer, schedule and data start afresh"
        )
    require_same_values(config, model.config, NECK_KEYS, path)
    state, changes = transfer(theirs, config, fresh, model.config)
    load_state(model, state, str(path))
    model.preprocessing = found.preprocessing
    restored = f"{'the other' if changes else 'all'} weights start from the detector {path}"
    return "; ".join([*changes, restored, "optimizer, schedule and data start afresh"])


def _describe_classifier(class_names: Sequence[str]) -> str:
    # A converted classifier does not know the names of its classes.
    return f"{len(class_names)}-class classifier" if class_names else "classifier"


def require_same_values(found: Config, wanted: Config, keys: Sequence[str], path: str | Path) -> None:
    """Raise CheckpointError where settings differ that give the weights their meaning."""
    for key in keys:
        section, name = key.split(".")
        theirs, ours = (getattr(getattr(config, section), name) for config in (found, wanted))
        if theirs != ours:
            raise CheckpointError(f"{path} was trained with {key}={_shown(theirs)}, not {_shown(ours)}: set it alike")


def _shown(value: object) -> str:
    return printable(value)[:120] if isinstance(value, str) else shorten(value)


def checkpoint_config(checkpoint: Checkpoint, path: str | Path) -> Config:
    """The config in a detector's checkpoint. Raises CheckpointError if it cannot be read, or names other classes."""
    try:
        config = parse_config(Config, dict(checkpoint.metadata.config), str(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a config that this version cannot read: {error}") from None
    require_same_classes(checkpoint.metadata.class_names, config.data.class_names, f"the config in {path}")
    return config


def require_fitting_heads(state: Mapping[str, Tensor], config: Config, path: str | Path) -> None:
    """Raise CheckpointError where the layers whose size the config sets, by channels, anchors and classes, have another.

    To be called before a network of that config is built, which could take any memory.
    """
    num_classes = len(config.data.class_names)
    rows = {
        "rpn.conv": config.rpn.channels,
        "rpn.objectness": config.anchors_per_cell,
        "rpn.deltas": 4 * config.anchors_per_cell,
        "roi_head.class_scores": num_classes + 1 + config.roi.unused_outputs,
        "roi_head.box_deltas": 4 * num_classes,
        **({"roi_head.mask_head.predictor": num_classes} if config.model.mask else {}),
    }
    for key, expected in ((f"{layer}.{part}", rows) for layer, rows in rows.items() for part in ("weight", "bias")):
        if key not in state:
            raise CheckpointError(f"{path} does not fit the model: 1 missing keys: '{key}'; take weights of a whole detector")
        shape = tuple(state[key].shape)
        if shape[:1] != (expected,):
            raise CheckpointError(
                f"{path} does not fit the model: '{key}' has shape {shape}, its own config asks for {expected} rows; "
                "take another copy of the file"
            )


def require_same_classes(found: Sequence[str], expected: Sequence[str], path: str | Path) -> None:
    """Raise CheckpointError, naming the difference, unless both lists of class names are the same."""
    if list(found) == list(expected):
        return
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        difference = "; ".join(
            f"{text} {', '.join(map(printable, names[:5]))}{' ...' if len(names) > 5 else ''}"
            for text, names in (("it lacks", missing), ("it also has", extra))
            if names
        )
    else:
        difference = "the same names in another order"
    raise CheckpointError(
        f"{path} has other classes: it was trained for {len(found)} classes, expected here {len(expected)}: {difference}"
    )
