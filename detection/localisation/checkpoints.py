"""Checkpoints of both stages of localisation: what they say of their network, and the network that they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from backbones.weights.files import load_state
from backbones.weights.format import Checkpoint, CheckpointMetadata
from detection.config import LocConfig, parse_config
from detection.errors import CheckpointError, ConfigError
from detection.localisation.networks import LocNetwork, LocRcnn, LocRpn, build_rcnn, build_rpn
from detection.weights.checkpoint import read_checkpoint, software_versions

LocKind = Literal["loc_rpn", "loc_rcnn"]
Network = TypeVar("Network", bound=LocNetwork)


def loc_metadata(model: LocNetwork, kind: LocKind) -> CheckpointMetadata:
    """What each checkpoint of a stage says about it."""
    config = model.config.model_dump(mode="json")
    return CheckpointMetadata(kind, model.class_names, model.preprocessing, config, versions=software_versions())


def load_rpn(path: str | Path) -> LocRpn:
    """The RPN of a checkpoint with the checkpoint's own config, in evaluation mode, on the CPU.

    Raises CheckpointError where the file is no RPN's, or is damaged.
    """
    return _load(path, "loc_rpn", build_rpn)


def load_rcnn(path: str | Path) -> LocRcnn:
    """The R-CNN of a checkpoint with the checkpoint's own config, in evaluation mode, on the CPU.

    Raises CheckpointError where the file is no R-CNN's, or is damaged.
    """
    return _load(path, "loc_rcnn", build_rcnn)


def _load(path: str | Path, kind: LocKind, build: Callable[[LocConfig, Sequence[str]], Network]) -> Network:
    checkpoint = read_checkpoint(path, kind)
    config = loc_config_of(checkpoint, path)
    _require_fitting_head(checkpoint, config, path)
    model = build(config, checkpoint.metadata.class_names)
    load_state(model, checkpoint.state, str(path))
    model.backbone.preprocessing = checkpoint.metadata.preprocessing
    return model.eval()


def loc_config_of(checkpoint: Checkpoint, path: str | Path) -> LocConfig:
    """The config in a stage's checkpoint. Raises CheckpointError if it cannot be read."""
    try:
        return parse_config(LocConfig, dict(checkpoint.metadata.config), str(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a config that this version cannot read: {error}") from None


def _require_fitting_head(checkpoint: Checkpoint, config: LocConfig, path: str | Path) -> None:
    """Raise CheckpointError where the per-class layers have other rows than the file's own classes and anchors ask for.

    To be called before a network of that config is built, which could take any memory.
    """
    num_anchors = len(config.rpn.anchor_sizes) * len(config.rpn.anchor_ratios) if checkpoint.metadata.kind == "loc_rpn" else 1
    num_rows = len(checkpoint.metadata.class_names) * num_anchors
    for key, expected in (("head.scores.weight", num_rows), ("head.deltas.weight", num_rows * 4)):
        shape = tuple(checkpoint.state[key].shape) if key in checkpoint.state else ()
        if num_rows == 0 or shape[:1] != (expected,):
            raise CheckpointError(
                f"{path} does not fit its own config: '{key}' has shape {shape}, its {len(checkpoint.metadata.class_names)} "
                f"classes and {num_anchors} anchors per cell ask for {expected} rows; take another copy of the file"
            )
