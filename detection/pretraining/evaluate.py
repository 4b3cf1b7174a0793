"""Top-1 and top-5 error of a classifier (section 4.1), as fractions of the images: 0 is perfect, 1 all wrong.

N images, K classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from backbones.modes import evaluating
from detection.config import ClassifierConfig
from detection.device import find_device, to_device
from detection.engine.precision import autocast, resolve_precision
from detection.errors import DatasetError
from detection.pretraining.data import ImageBatch, check_transforms, test_loader, validation_split
from detection.pretraining.folders import ImageFolder
from detection.pretraining.model import ClassificationModel, load_classifier
from detection.pretraining.views import ViewBatch, view_loader


def evaluate_checkpoints(paths: Sequence[Path], config: ClassifierConfig, device: str = "auto") -> dict[str, float]:
    """The errors of one file's classifier, or of an ensemble of several, on `data.val`, computed on that device.

    Raises ConfigError for a device that cannot be used, CheckpointError where one is of another architecture or for other
    classes, DatasetError for bad data.
    """
    check_transforms(config.data)
    split = validation_split(config)
    place = find_device(device)
    # An ensemble's members may be of different depths: each is the network that its checkpoint records.
    several = len(paths) > 1
    members = [load_classifier(path, config.model, split.class_names, as_recorded=several) for path in paths]
    return evaluate_split([member.to(place) for member in members], split, config)


def evaluate_split(models: Sequence[ClassificationModel], split: ImageFolder, config: ClassifierConfig) -> dict[str, float]:
    """Top-1 and top-5 error of one model, or of an ensemble, on a split, in the views and the precision of the config."""
    precision = resolve_precision(config.train.precision, next(models[0].parameters()).device)
    return evaluate_classifiers(models, views_of_split(split, config), precision)


def views_of_split(split: ImageFolder, config: ClassifierConfig) -> Iterator[ImageBatch] | Iterator[ViewBatch]:
    """All images once, in order, in the views of the config. Raises DatasetError."""
    return test_loader(split, config) if config.test.views == "center" else view_loader(split, config)


def evaluate_classifiers(
    models: Sequence[ClassificationModel], loader: Iterable[ImageBatch | ViewBatch], precision: torch.dtype | None = None
) -> dict[str, float]:
    """{"top1_error", "top5_error"} in 0..1 over all images, by the mean of all models' and views' class probabilities.

    The models are in evaluation mode meanwhile. `precision` is the autocast dtype, None for fp32. Raises DatasetError
    where there is no image.
    """
    errors, total = torch.zeros(2, dtype=torch.long, device="cpu"), 0
    for scores, labels in class_probabilities(models, loader, precision):
        errors += count_errors(scores, labels)
        total += len(labels)
    if total == 0:
        raise DatasetError("there is no image to evaluate the classifier on")
    top1, top5 = (errors.float() / total).tolist()
    return {"top1_error": top1, "top5_error": top5}


def class_probabilities(
    models: Sequence[ClassificationModel], loader: Iterable[ImageBatch | ViewBatch], precision: torch.dtype | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The probabilities (N, K) of each batch, float32 on the CPU, and its labels (N,): the mean of all models and views.

    The models are in evaluation mode meanwhile. `precision` is the autocast dtype, None for fp32.
    """
    with evaluating(models):
        for batch in loader:
            with torch.no_grad():
                scores = torch.stack([_scores(model, batch, precision) for model in models])
            yield scores.mean(dim=0), batch.labels


def _scores(model: ClassificationModel, batch: ImageBatch | ViewBatch, precision: torch.dtype | None) -> Tensor:
    """(N, K) class probabilities on the CPU: the mean over each group's views, then over the groups."""
    device = next(model.parameters()).device
    if isinstance(batch, ImageBatch):
        with autocast(device, precision):
            return model.logits(to_device(batch.images, device)).softmax(dim=1).cpu()
    total = torch.zeros((len(batch), len(model.class_names)), dtype=torch.float32, device="cpu")
    weights = torch.zeros(len(batch), dtype=torch.float32, device="cpu")
    for views in batch.groups:
        with autocast(device, precision):
            scores = model.dense_logits(to_device(views.images, device)).softmax(dim=1).cpu()
        # An image has as many views in each group, so that adding them up gives the groups equal weight.
        total.index_add_(0, views.image_indices, scores)
        weights.index_add_(0, views.image_indices, weights.new_ones(len(views.image_indices)))
    return total / weights[:, None]


def count_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """(2,) int64: of (N, K) scores and (N,) labels, how many labels are not the best score, and not among the best five.

    With K <= 5 none is outside of the best five.
    """
    best = logits.topk(min(5, logits.shape[1])).indices  # (N, 5)
    correct = best == labels[:, None]
    return torch.stack([(~correct[:, 0]).sum(), (~correct.any(dim=1)).sum()])
