"""A backbone's weights out of a classifier's file: a checkpoint of ours, or a plain state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.base import Backbone
from backbones.errors import CheckpointError, printable, shorten
from backbones.options import BackboneOptions
from backbones.preprocessing import Preprocessing
from backbones.weights.conversion import backbone_format, convert_backbone
from backbones.weights.files import is_named_tensor, load_checkpoint, load_state, without_prefix
from backbones.weights.format import CheckpointMetadata, is_own_format, parse_checkpoint


@dataclass(frozen=True)
class ClassifierWeights:
    """The state dict of a whole classification network, with the backbone's own keys, and what it expects of an image."""

    source: str
    state: dict[str, Tensor]
    preprocessing: Preprocessing
    metadata: CheckpointMetadata | None = None  # of a checkpoint of ours


def read_classifier_weights(path: Path, name: str, options: BackboneOptions, default: Preprocessing) -> ClassifierWeights:
    """The weights in a file, by `parse_classifier_weights`. Raises CheckpointError."""
    return parse_classifier_weights(load_checkpoint(path), str(path), name, options, default)


def parse_classifier_weights(
    contents: Mapping[str, Any], source: str, name: str, options: BackboneOptions, default: Preprocessing
) -> ClassifierWeights:
    """The weights for the backbone `name` in what `load_checkpoint` read from `source`.

    They are a classifier's checkpoint of ours, a CIFAR ResNet of akamaster's project, or a plain state dict, which is taken
    to expect the `default` preprocessing: the network's own. Of `options` only `stride_in_1x1` and `stem_pool` matter. Raises
    CheckpointError for another kind of checkpoint, another backbone, or strides or a stem that are recorded otherwise.
    """
    if is_own_format(contents):
        return _from_checkpoint(contents, source, name, options)
    if name.startswith("cifar_") and _has_akamaster_keys(contents):
        return _from_akamaster(contents, source, name)
    if not all(is_named_tensor(key, value) for key, value in contents.items()):
        raise CheckpointError(
            f"{source} is neither a resdet checkpoint nor a plain state dict of tensors: its keys are "
            f"{shorten(list(contents)[:5])}; "
            "`resdet convert-weights` makes a checkpoint of other projects' files"
        )
    return ClassifierWeights(source, dict(contents), default)


def load_classifier_weights(model: Backbone, weights: ClassifierWeights, *, with_classifier: bool) -> None:
    """Load the weights, and take over their preprocessing. Their classifier is left out unless `with_classifier`.

    Raises CheckpointError naming the first keys that do not fit, or both numbers of classes.
    """
    weights = fitted_keys(weights, model)
    state = weights.state
    if with_classifier:
        _check_class_count(model, weights)
    else:
        unused = {*model.classifier_keys, *model.head_keys}
        state = {key: value for key, value in state.items() if key not in unused}
    load_state(model, state, weights.source)
    model.preprocessing = weights.preprocessing


def fitted_keys(weights: ClassifierWeights, model: Backbone) -> ClassifierWeights:
    """The weights without what a wrapper put before each key: `without_prefix`."""
    expected = {*model.state_dict(), *model.classifier_keys, *model.head_keys}
    return replace(weights, state=without_prefix(weights.state, expected, weights.source))


def _has_akamaster_keys(contents: Mapping[str, Any]) -> bool:
    state = contents.get("state_dict", contents)
    return isinstance(state, Mapping) and backbone_format(key for key in state if isinstance(key, str)) == "akamaster"


def _from_akamaster(contents: Mapping[str, Any], source: str, name: str) -> ClassifierWeights:
    """A CIFAR ResNet of akamaster's project; it needs no conversion by hand, as its preprocessing and strides are known."""
    found = convert_backbone(contents, source)
    _check_name(found.name, name, source)
    return ClassifierWeights(source, found.state, found.preprocessing)


def _from_checkpoint(contents: Mapping[str, Any], source: str, name: str, options: BackboneOptions) -> ClassifierWeights:
    checkpoint = parse_checkpoint(contents, source, "classifier")
    recorded = checkpoint.metadata.config.get("model")
    missing = [key for key in ("backbone", "stride_in_1x1") if not isinstance(recorded, Mapping) or key not in recorded]
    if missing or not isinstance(recorded, Mapping):
        raise CheckpointError(f"{source} is not a complete resdet checkpoint: its config lacks model.{missing[0]}")
    trained_name, trained_stride = recorded["backbone"], recorded["stride_in_1x1"]
    trained_pool = recorded.get("stem_pool", "pad1")
    _check_name(trained_name, name, source)
    _check_option("stride_in_1x1", trained_stride, options.stride_in_1x1, source)
    _check_option("stem_pool", trained_pool, options.stem_pool, source)
    return ClassifierWeights(source, dict(checkpoint.state), checkpoint.metadata.preprocessing, checkpoint.metadata)


def _check_name(found: object, wanted: str, source: str) -> None:
    if not isinstance(found, str):
        raise CheckpointError(f"{source} is not a complete resdet checkpoint: its backbone is {shorten(found)}, not a name")
    if found != wanted:
        found = printable(found)[:80]
        raise CheckpointError(f"{source} holds a {found}, not a {wanted}: set the backbone to {found}")


def _check_option(option: str, trained: object, wanted: object, source: str) -> None:
    if type(trained) is not type(wanted) or trained != wanted:
        trained = printable(trained) if isinstance(trained, str) and len(trained) < 80 else shorten(trained)
        raise CheckpointError(
            f"{source} was trained with {option}={trained}, the model has {wanted}: "
            f"the weights would fit but see other pixels, so set {option} alike"
        )


def _check_class_count(model: Backbone, weights: ClassifierWeights) -> None:
    expected = model.state_dict()
    for key in model.classifier_keys:
        shape = weights.state[key].shape if key in weights.state else ()
        if shape and shape[:1] != expected[key].shape[:1]:
            raise CheckpointError(
                f"{weights.source} classifies {shape[0]} classes, the model {len(expected[key])}: "
                "set num_classes alike, or to None for the features alone"
            )
