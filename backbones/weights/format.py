"""The layout of a checkpoint of ours, as a mapping of plain containers and tensors: one writer, one reader.

    format      "resdet"
    version     2
    metadata    kind, class_names, preprocessing, config, versions: plain values, no tensor
    model       the state dict
    mean_image  of a classifier that subtracts one: (3, S, S)
    training    only where training can go on, or tells of it: step, optimizer, ema, random numbers, ...

Version 1 had all of these side by side at the top level, and called "ema" "average". It is still read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from backbones.errors import CheckpointError, name_fault
from backbones.preprocessing import Preprocessing

FORMAT_VERSION = 2
OLD_VERSIONS = (1,)
Kind = Literal["classifier", "detector"]

_METADATA_KEYS = ("kind", "class_names", "preprocessing", "config", "versions")
_REQUIRED_KEYS = ("kind", "class_names", "preprocessing", "config")
_OTHER_KEYS = ("format", "version", "metadata", "model", "mean_image", "training")


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says of its weights.

    `class_names` is empty where the classes are not known, as in a converted classifier. `config` holds plain values:
    `config["model"]` at least names the backbone. `mean_image` is (3, S, S) in RGB units of 0..255 (section 3.4).
    """

    kind: Kind
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    config: Mapping[str, Any]
    mean_image: Tensor | None = field(default=None, compare=False)
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The part of it that is plain values, for a checkpoint or JSON."""
        return {
            "kind": self.kind,
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing.to_dict(),
            "config": dict(self.config),
            "versions": dict(self.versions),
        }


@dataclass(frozen=True)
class Checkpoint:
    """Weights with what is said of them. `training` is empty in a checkpoint that no run wrote."""

    metadata: CheckpointMetadata
    state: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)

    def contents(self) -> dict[str, Any]:
        """The mapping that `save_checkpoint` writes."""
        contents: dict[str, Any] = {
            "format": "resdet",
            "version": FORMAT_VERSION,
            "metadata": self.metadata.to_dict(),
            "model": self.state,
        }
        if self.metadata.mean_image is not None:
            contents["mean_image"] = self.metadata.mean_image
        if self.training:
            contents["training"] = dict(self.training)
        return contents


def is_own_format(contents: Mapping[str, Any]) -> bool:
    """Whether what `load_checkpoint` has read is a checkpoint of ours, of whatever version."""
    return contents.get("format") == "resdet"


def parse_checkpoint(contents: Mapping[str, Any], source: str, kind: Kind | None = None) -> Checkpoint:
    """What `load_checkpoint` has read from `source`, which must be a checkpoint of ours; with `kind`, of that kind.

    Raises CheckpointError for a file of others, another kind, a version that is not known here, or an incomplete file.
    """
    if not is_own_format(contents):
        needed = f"; a {kind}'s is needed here" if kind else ""
        raise CheckpointError(f"{source} is no checkpoint of resdet, with classes and config{needed}")
    contents = _in_current_layout(contents, source)
    values = contents.get("metadata")
    values = values if isinstance(values, Mapping) else {}
    if kind is not None and values.get("kind", kind) != kind:
        raise CheckpointError(f"{source} is a {values['kind']}'s checkpoint; a {kind}'s is needed here")
    missing = [key for key in _REQUIRED_KEYS if key not in values]
    missing += [] if isinstance(contents.get("model"), Mapping) else ["model"]
    if missing:
        raise CheckpointError(f"{source} is not a complete resdet checkpoint: it lacks {', '.join(missing)}")
    return Checkpoint(_metadata(values, contents.get("mean_image"), source), contents["model"], contents.get("training", {}))


def _metadata(values: Mapping[str, Any], mean_image: Tensor | None, source: str) -> CheckpointMetadata:
    for key, wanted in (("config", Mapping), ("class_names", list | tuple)):
        if not isinstance(values[key], wanted):
            raise CheckpointError(f"{source} is not a complete resdet checkpoint: its {key} is {values[key]!r}")
    for number, name in enumerate(values["class_names"], start=1):
        if (fault := name_fault(name)) is not None:
            raise CheckpointError(f"{source} is not a complete resdet checkpoint: its class name {number} {fault}")
    try:
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
    except ValueError as error:
        raise CheckpointError(f"{source} is not a complete resdet checkpoint: {error}") from None
    names, versions = tuple(values["class_names"]), values.get("versions", {})
    return CheckpointMetadata(values["kind"], names, preprocessing, values["config"], mean_image, versions)


def _in_current_layout(contents: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Contents of any version that is known here, in the layout of the current one."""
    version = contents.get("version")
    if version == FORMAT_VERSION:
        return contents
    if version not in OLD_VERSIONS:
        known = ", ".join(str(number) for number in (*OLD_VERSIONS, FORMAT_VERSION))
        raise CheckpointError(f"{source} has format version {version!r}; this resdet reads {known}: install a newer one")
    metadata = {key: contents[key] for key in _METADATA_KEYS if key in contents}
    training = {key: value for key, value in contents.items() if key not in (*_METADATA_KEYS, *_OTHER_KEYS)}
    if "average" in training:
        training["ema"] = training.pop("average")
    kept = {key: contents[key] for key in ("model", "mean_image") if key in contents}
    return {"format": "resdet", "version": FORMAT_VERSION, "metadata": metadata, "training": training, **kept}
