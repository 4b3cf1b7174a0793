"""A backbone with its classifier as the training loop wants it: batch in, losses out.

N images, K classes. The state dict has the backbone's own names, so that each checkpoint of this stage initialises a
detector or a torchvision network directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import Backbone, build_backbone, load_checkpoint, load_state
from backbones.modes import one_thread_after_fork
from backbones.options import BackboneOptions
from backbones.weights.classifier import ClassifierWeights, fitted_keys, parse_classifier_weights
from backbones.weights.format import is_own_format, parse_checkpoint
from detection.config import ClassifierModelConfig, parse_config
from detection.errors import CheckpointError, ConfigError
from detection.pretraining.data import ImageBatch

_PREFIX = "backbone."
# Keys of a config's `model` that say what its weights compute.
NETWORK_KEYS = ("backbone", "stride_in_1x1", "stem_pool")


class OtherClassesError(CheckpointError):
    """A classifier's weights are for other classes than those that are needed, or have no last layer."""


class ClassificationModel(nn.Module):
    """`model(batch)` gives the loss, `model.logits(images)` the scores of uint8 images.

    `mean_image` is what the training images' mean has beyond that of its channels, (3, S, S) in RGB units of 0..255: it is
    subtracted from images of that size (sections 3.4, 4.2). `label_smoothing` is for training.
    """

    mean_image: Tensor | None

    def __init__(self, backbone: Backbone, class_names: Sequence[str]) -> None:
        super().__init__()
        self.label_smoothing = 0.0
        # It belongs to the preprocessing: a state dict holds the network alone.
        self.register_buffer("mean_image", None, persistent=False)
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.class_names = tuple(class_names)
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    def forward(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The scalar training loss, softmax cross-entropy, the mean over the images; and their top-1 error, 0..1."""
        logits = self.logits(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        wrong = logits.detach().argmax(dim=1) != batch.labels
        return {"loss_classification": loss, "train_top1_error": wrong.float().mean()}

    def logits(self, images: Tensor) -> Tensor:
        """uint8 RGB (N, 3, H, W) -> class scores before the softmax (N, K), float32."""
        return self.backbone.logits(self._normalize(images)).float()

    def dense_logits(self, images: Tensor) -> Tensor:
        """Class scores (N, K) of uint8 RGB images of any size: the classifier at every place, and the mean over the places."""
        return self.backbone.dense_logits(self._normalize(images)).float()

    def _normalize(self, images: Tensor) -> Tensor:
        one_thread_after_fork()
        if self.mean_image is not None and images.shape[1:] == self.mean_image.shape:
            images = images - self.mean_image
        return self.backbone.preprocessing.normalize(images).contiguous(memory_format=torch.channels_last)


def _drop_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + _PREFIX)]:
        state[prefix + key.removeprefix(prefix + _PREFIX)] = state.pop(key)


def _add_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + _PREFIX + key.removeprefix(prefix)] = state.pop(key)


def build_classifier(config: ClassifierModelConfig, class_names: Sequence[str]) -> ClassificationModel:
    """A classifier with fresh weights (He initialisation). Raises BackboneError for an unknown backbone."""
    backbone = build_backbone(
        config.backbone, num_classes=len(class_names), norm="bn", stride_in_1x1=config.stride_in_1x1, stem_pool=config.stem_pool
    )
    return ClassificationModel(backbone, class_names)


def initialise_classifier(model: ClassificationModel, config: ClassifierModelConfig, path: str | Path) -> str:
    """Start from a classifier's checkpoint or a plain state dict with torchvision's names; says what was restored.

    `config` is the one that the model was built from. The last layer is taken over where it is for the same classes (a plain
    file: as many), and otherwise stays random. Raises CheckpointError where the file does not fit.
    """
    weights = _read_weights(load_checkpoint(path), path, config, model)
    if _have_same_classes(weights, model):
        _load_weights(model, weights)
        return f"all weights initialised from the classifier {path}; the schedule starts at step 0"
    own = model.state_dict()
    last_layer = {key: own[key] for key in model.backbone.classifier_keys}
    _load_weights(model, replace(weights, state=weights.state | last_layer))
    return (
        f"all but the last layer initialised from {path}, whose classes are others; the last layer starts from random numbers"
    )


def load_classifier(
    path: str | Path, config: ClassifierModelConfig, class_names: Sequence[str], *, as_recorded: bool = False
) -> ClassificationModel:
    """A trained classifier in evaluation mode, on the CPU, from a file.

    With `as_recorded` it is the network that the file records, if it does, and otherwise that of `config`.
    Raises CheckpointError where the file is of another network, OtherClassesError where it is for other classes.
    """
    contents = load_checkpoint(path)
    if as_recorded:
        config = _recorded_config(contents, path, config)
    model = build_classifier(config, class_names)
    weights = _read_weights(contents, path, config, model)
    if not _have_same_classes(weights, model):
        found = _class_names(weights) or (f"{_num_classes(weights, model)} nameless ones",)
        raise OtherClassesError(
            f"{path} classifies other classes than the data's {len(model.class_names)} "
            f"({', '.join(model.class_names[:5])}, ...): {', '.join(found[:5])}, ..."
        )
    _load_weights(model, weights)
    return model.eval()


def _recorded_config(contents: Mapping[str, Any], path: str | Path, default: ClassifierModelConfig) -> ClassifierModelConfig:
    """The network that a checkpoint was trained as; `default` for files that do not say."""
    if not is_own_format(contents):
        return default
    recorded = parse_checkpoint(contents, str(path)).metadata.config.get("model")
    if not isinstance(recorded, Mapping) or "backbone" not in recorded:
        return default
    values = default.model_dump(mode="json") | {key: recorded[key] for key in NETWORK_KEYS if key in recorded}
    try:
        return parse_config(ClassifierModelConfig, values, f"the config in {path}")
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a config that this version cannot read: {error}") from None


def _read_weights(
    contents: Mapping[str, Any], path: str | Path, config: ClassifierModelConfig, model: ClassificationModel
) -> ClassifierWeights:
    """The weights for `model`, built from `config`, in a file's contents. Raises CheckpointError for another network."""
    options = BackboneOptions(stride_in_1x1=config.stride_in_1x1, stem_pool=config.stem_pool)
    found = parse_classifier_weights(contents, str(path), config.backbone, options, model.backbone.preprocessing)
    return fitted_keys(found, model.backbone)


def _load_weights(model: ClassificationModel, weights: ClassifierWeights) -> None:
    """Give the model these weights, with their preprocessing and mean image. Raises CheckpointError where they do not fit."""
    load_state(model, weights.state, weights.source)
    model.backbone.preprocessing = weights.preprocessing
    model.mean_image = None if weights.metadata is None else weights.metadata.mean_image


def _have_same_classes(weights: ClassifierWeights, model: ClassificationModel) -> bool:
    """Whether the last layer is for the model's classes; where the file does not name them, for as many."""
    names = _class_names(weights)
    return names == model.class_names if names else _num_classes(weights, model) == len(model.class_names)


def _class_names(weights: ClassifierWeights) -> tuple[str, ...]:
    """Empty where the file does not tell them."""
    return () if weights.metadata is None else weights.metadata.class_names


def _num_classes(weights: ClassifierWeights, model: ClassificationModel) -> int:
    """Rows of the last layer; 0 in a file without one."""
    shapes = [weights.state[key].shape[:1] for key in model.backbone.classifier_keys if key in weights.state]
    return shapes[0][0] if shapes and shapes[0] else 0
