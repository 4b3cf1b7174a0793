"""A backbone with its classifier as the training loop wants it: batch in, losses out.

N images, K classes. The state dict has the backbone's own names, so that each checkpoint of this stage initialises a
detector or a torchvision network directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import Backbone, build_backbone, load_checkpoint, load_state
from backbones.options import BackboneOptions
from backbones.weights.classifier import classifier_weights
from backbones.weights.zoo import weights_file
from detection.config import ClassifierModelConfig
from detection.errors import CheckpointError
from detection.pretraining.data import ImageBatch

_PREFIX = "backbone."
MEANING_OF_NETWORK = ("backbone", "stride_in_1x1", "stem_pool")


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
        return self.backbone.logits(self._normalise(images)).float()

    def dense_logits(self, images: Tensor) -> Tensor:
        """The same for images of any size, fully convolutionally: the mean over all places of the classifier."""
        return self.backbone.dense_logits(self._normalise(images)).float()

    def _normalise(self, images: Tensor) -> Tensor:
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

    Its last layer is taken over where it is for the same classes (a plain file: as many), and otherwise stays random.
    Raises CheckpointError where the file does not fit.
    """
    path = weights_file(path)
    contents = load_checkpoint(path)
    options = BackboneOptions(stride_in_1x1=config.stride_in_1x1, stem_pool=config.stem_pool)
    found = classifier_weights(contents, str(path), config.backbone, options, model.backbone.preprocessing)
    state = found.state
    same = _same_classes(contents, state, model)
    if not same:
        own = model.state_dict()
        state = state | {key: own[key] for key in model.backbone.classifier_keys}
    load_state(model, state, str(path))
    model.backbone.preprocessing = found.preprocessing
    model.mean_image = contents.get("mean_image")
    if same:
        return f"all weights initialised from the classifier {path}; the schedule starts at step 0"
    return (
        f"all but the last layer initialised from {path}, whose classes are others; the last layer starts from random numbers"
    )


def recorded_network(path: str | Path, default: ClassifierModelConfig) -> ClassifierModelConfig:
    """The network that a checkpoint was trained as; `default` for files that do not say. Raises CheckpointError."""
    config = load_checkpoint(weights_file(path)).get("config")
    recorded = config.get("model") if isinstance(config, dict) else None
    if not isinstance(recorded, dict) or "backbone" not in recorded:
        return default
    return default.model_copy(update={key: recorded[key] for key in MEANING_OF_NETWORK if key in recorded})


def load_classifier(path: str | Path, config: ClassifierModelConfig, class_names: Sequence[str]) -> ClassificationModel:
    """A trained classifier in evaluation mode, on the CPU. Raises CheckpointError where it is for other classes."""
    model = build_classifier(config, class_names)
    path = weights_file(path)
    contents = load_checkpoint(path)
    options = BackboneOptions(stride_in_1x1=config.stride_in_1x1, stem_pool=config.stem_pool)
    found = classifier_weights(contents, str(path), config.backbone, options, model.backbone.preprocessing)
    if not _same_classes(contents, found.state, model):
        names = contents.get("class_names") or [f"{_num_classes(found.state, model)} nameless ones"]
        raise CheckpointError(
            f"{path} classifies other classes than the data's {len(model.class_names)} "
            f"({', '.join(model.class_names[:5])}, ...): {', '.join(names[:5])}, ..."
        )
    load_state(model, found.state, str(path))
    model.backbone.preprocessing = found.preprocessing
    model.mean_image = contents.get("mean_image")
    return model.eval()


def _same_classes(contents: Mapping[str, Any], state: Mapping[str, Tensor], model: ClassificationModel) -> bool:
    """A plain state dict or one converted names no classes: their number has to do."""
    if contents.get("class_names"):
        return tuple(contents["class_names"]) == model.class_names
    return _num_classes(state, model) == len(model.class_names)


def _num_classes(state: Mapping[str, Tensor], model: ClassificationModel) -> int:
    """Rows of the last layer; 0 in a file without one."""
    shapes = [state[key].shape[:1] for key in model.backbone.classifier_keys if key in state]
    return shapes[0][0] if shapes and shapes[0] else 0
