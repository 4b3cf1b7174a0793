"""What a checkpoint holds, and models made from one.

A checkpoint is plain containers and tensors, readable with `weights_only=True`. The *model part* is the same for
classifiers and detectors: format, version, kind, model, class_names, preprocessing, config, versions.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from backbones.errors import CheckpointError
from backbones.options import BackboneOptions
from backbones.preprocessing import Preprocessing
from backbones.weights.classifier import classifier_weights
from backbones.weights.files import FORMAT_VERSION, load_checkpoint, load_state
from detection.config import Config, parse_config
from detection.errors import ConfigError
from detection.weights.transfer import transfer

if TYPE_CHECKING:
    from detection.modeling.faster_rcnn import FasterRCNN

MEANING_OF_BACKBONE = ("model.backbone", "model.stride_in_1x1", "model.stem_pool")
MEANING_OF_WEIGHTS = (
    *MEANING_OF_BACKBONE,
    "rpn.anchor_sizes",
    "rpn.anchor_ratios",
    "rpn.anchor_offset",
    "roi.pool_size",
    "roi.delta_std",
    "roi.context",
)


def model_part(model: nn.Module, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The model's half of a checkpoint. `metadata` gives kind, class_names, preprocessing and config, and may give more."""
    return model_part_of(model.state_dict(), metadata)


def model_part_of(state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a state dict."""
    return {
        **metadata,
        "format": "resdet",
        "version": FORMAT_VERSION,
        "kind": metadata["kind"],
        "model": state,
        "class_names": list(metadata["class_names"]),
        "preprocessing": metadata["preprocessing"],
        "config": metadata["config"],
        "versions": dict(software_versions()),
    }


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
    another `roi.context` or other anchors: what has no counterpart starts afresh. Returns a sentence that says what was
    restored. Raises CheckpointError where the file does not fit.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.get("kind") == "detector":
        require_kind(checkpoint, "detector", path)
        own = checkpoint_config(checkpoint, path)
        require_same_values(own, model.config, MEANING_OF_BACKBONE, path)
        source = (checkpoint["model"], own, checkpoint["class_names"])
        state, said = transfer(*source, model.state_dict(), model.config, model.class_names)
        load_state(model, state, str(path))
        model.preprocessing = Preprocessing.from_dict(checkpoint["preprocessing"])
        restored = f"{'the other' if said else 'all'} weights start from the detector {path}"
        return "; ".join([*said, restored, "optimizer, schedule and data start afresh"])
    backbone = model.config.model
    options = BackboneOptions(stride_in_1x1=backbone.stride_in_1x1, stem_pool=backbone.stem_pool)
    found = classifier_weights(checkpoint, str(path), backbone.backbone, options, model.trunk.preprocessing)
    model.load_backbone(found.state, found.preprocessing)
    # A converted classifier does not know the names of its classes.
    names = checkpoint.get("class_names")
    kind = f"{len(names)}-class classifier" if names else "classifier" if "kind" in checkpoint else "plain weights"
    return f"the backbone starts from the {kind} {path}; RPN and box layers start from random numbers"


def require_kind(checkpoint: Mapping[str, Any], kind: str, path: str | Path) -> None:
    """Raise CheckpointError unless this is a checkpoint of ours, of that kind and of this version's format."""
    if checkpoint.get("format") != "resdet":
        raise CheckpointError(f"{path} is no checkpoint of resdet, with classes and config; a {kind}'s is needed here")
    if checkpoint.get("kind") != kind:
        raise CheckpointError(f"{path} is a {checkpoint.get('kind')}'s checkpoint; a {kind}'s is needed here")
    if checkpoint.get("version") != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {checkpoint.get('version')!r}; this resdet reads {FORMAT_VERSION}")
    missing = [key for key in ("model", "class_names", "preprocessing", "config") if key not in checkpoint]
    if missing:
        raise CheckpointError(f"{path} is not a complete checkpoint: it lacks {', '.join(missing)}")


def require_same_values(found: Config, wanted: Config, keys: Sequence[str], path: str | Path) -> None:
    """Raise CheckpointError where settings differ that give the weights their meaning."""
    for key in keys:
        section, name = key.split(".")
        theirs, ours = (getattr(getattr(config, section), name) for config in (found, wanted))
        if theirs != ours:
            raise CheckpointError(f"{path} was trained with {key}={theirs}, not {ours}: set it alike")


def checkpoint_config(checkpoint: Mapping[str, Any], path: str | Path) -> Config:
    """The detector's config that a checkpoint carries. Raises CheckpointError if this version cannot read it."""
    try:
        return parse_config(Config, dict(checkpoint["config"]), str(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a config that this version cannot read: {error}") from None


def require_same_classes(found: Sequence[str], expected: Sequence[str], path: str | Path) -> None:
    """Raise CheckpointError, naming the difference, unless both lists of class names are the same."""
    if list(found) == list(expected):
        return
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        difference = "; ".join(
            f"{text} {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            for text, names in (("it lacks", missing), ("it also has", extra))
            if names
        )
    else:
        difference = "the same names in another order"
    raise CheckpointError(
        f"{path} has other classes: it was trained for {len(found)} classes, expected here {len(expected)}: {difference}"
    )
