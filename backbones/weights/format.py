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

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from backbones.errors import CheckpointError, name_fault, shorten
from backbones.preprocessing import Preprocessing
from backbones.weights.limits import tensor_fault

FORMAT_VERSION = 2
OLD_VERSIONS = (1,)
Kind = Literal["classifier", "detector", "loc_rpn", "loc_rcnn"]
KINDS = get_args(Kind)

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
    found = contents.get("format")
    return isinstance(found, str) and found == "resdet"


def parse_checkpoint(contents: Mapping[str, Any], source: str, kind: Kind | None = None) -> Checkpoint:
    """What `load_checkpoint` has read from `source`, which must be a checkpoint of ours; with `kind`, of that kind.

    Every field is checked but the values of the weights, which `load_state` looks at, and the insides of `config` and
    `training`, which those know who wrote them. Keys that are not known here are ignored. `contents` stays as it is.
    Raises CheckpointError for a file of others, another kind, a version that is not known here, or an incomplete file.
    """
    if not is_own_format(contents):
        needed = f"; a {kind}'s is needed here" if kind else ""
        raise CheckpointError(f"{source} is no checkpoint of resdet, with classes and config{needed}")
    contents = _in_current_layout(contents, source)
    values = contents.get("metadata")
    values = values if isinstance(values, Mapping) else {}
    found = values.get("kind", kind)
    if kind is not None and found in KINDS and found != kind:
        raise CheckpointError(f"{source} is a {found}'s checkpoint; a {kind}'s is needed here")
    missing = [key for key in _REQUIRED_KEYS if key not in values]
    missing += [] if isinstance(contents.get("model"), Mapping) else ["model"]
    if missing:
        raise CheckpointError(f"{source} is not a complete resdet checkpoint: it lacks {', '.join(missing)}")
    training = contents.get("training", {})
    _require(isinstance(training, Mapping), source, "training", training, "a mapping")
    for key, value in contents["model"].items():
        is_right = isinstance(key, str) and isinstance(value, Tensor)
        _require(is_right, source, f"model[{shorten(key)}]", value, "a tensor with a name")
    return Checkpoint(_metadata(values, contents.get("mean_image"), source), contents["model"], training)


def _metadata(values: Mapping[str, Any], mean_image: Any, source: str) -> CheckpointMetadata:
    kind, config, names = (values[key] for key in ("kind", "config", "class_names"))
    _require(kind in KINDS, source, "kind", kind, " or ".join(KINDS))
    _require(is_plain(config) and isinstance(config, Mapping), source, "config", config, "a mapping of plain values")
    _require(isinstance(names, list | tuple), source, "class_names", names, "a list of names")
    _check_names(names, source)
    try:
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
    except ValueError as error:
        raise CheckpointError(f"{source} is not a complete resdet checkpoint: {error}") from None
    versions = values.get("versions", {})
    is_right = isinstance(versions, Mapping) and all(isinstance(text, str) for pair in versions.items() for text in pair)
    _require(is_right, source, "versions", versions, "a mapping of texts")
    return CheckpointMetadata(kind, tuple(names), preprocessing, config, _mean_image(mean_image, source), versions)


def _require(holds: bool, source: str, field: str, value: object, wanted: str) -> None:
    if not holds:
        raise CheckpointError(
            f"{source} is not a complete resdet checkpoint: its {field} is {shorten(value)}, not {wanted}; take another copy"
        )


def _check_names(names: Sequence[object], source: str) -> None:
    for number, name in enumerate(names, start=1):
        if (fault := name_fault(name)) is not None:
            raise CheckpointError(f"{source} is not a complete resdet checkpoint: its class name {number} {fault}")
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise CheckpointError(f"{source} is not a complete resdet checkpoint: it has two classes {shorten(twice)}")


def _mean_image(value: Any, source: str) -> Tensor | None:
    if value is None:
        return None
    is_right = isinstance(value, Tensor) and tensor_fault(value) is None and value.is_floating_point()
    is_right = is_right and value.ndim == 3 and value.shape[0] == 3 and value.shape[1] == value.shape[2] > 0
    shape = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else value
    _require(is_right, source, "mean_image", shape, "a tensor of floating-point numbers (3, S, S)")
    image = value.detach().float()
    _require(bool(image.isfinite().all()), source, "mean_image", "NaN or infinity somewhere", "finite everywhere")
    return image


def is_plain(value: Any) -> bool:
    """Whether it is made of mappings with text keys, lists, texts, numbers, True, False and None: no tensor is in it."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _in_current_layout(contents: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Contents of any version that is known here, in the layout of the current one."""
    version = contents.get("version")
    if type(version) is int and version == FORMAT_VERSION:
        return contents
    if type(version) is not int or version not in OLD_VERSIONS:
        known = ", ".join(str(number) for number in (*OLD_VERSIONS, FORMAT_VERSION))
        raise CheckpointError(f"{source} has format version {shorten(version)}; this resdet reads {known}: install a newer one")
    metadata = {key: contents[key] for key in _METADATA_KEYS if key in contents}
    training = {key: value for key, value in contents.items() if key not in (*_METADATA_KEYS, *_OTHER_KEYS)}
    if "average" in training:
        training["ema"] = training.pop("average")
    kept = {key: contents[key] for key in ("model", "mean_image") if key in contents}
    return {"format": "resdet", "version": FORMAT_VERSION, "metadata": metadata, "training": training, **kept}
