"""Top-1 and top-5 error of a classifier (section 4.1), as fractions of the images: 0 is perfect, 1 all wrong.

N images, K classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from detection.config import ClassifierConfig
from detection.engine.precision import autocast, resolve_precision
from detection.errors import DatasetError
from detection.pretraining.data import ImageBatch, load_splits, test_loader
from detection.pretraining.folders import ImageFolder
from detection.pretraining.model import ClassificationModel, load_classifier


def evaluate_checkpoint(path: Path, config: ClassifierConfig) -> dict[str, float]:
    """The errors of a checkpoint on `data.val`, on the GPU where there is one.

    Raises CheckpointError where it is of another architecture or for other classes, DatasetError for bad data.
    """
    (split,) = load_splits(config.data, config.data.val)
    model = load_classifier(path, config.model, split.class_names)
    return evaluate_on(model.to("cuda" if torch.cuda.is_available() else "cpu"), split, config)


def evaluate_on(model: ClassificationModel, split: ImageFolder, config: ClassifierConfig) -> dict[str, float]:
    """`evaluate_classifier` on a split, in the views and the precision of the config."""
    precision = resolve_precision(config.train.precision, next(model.parameters()).device)
    return evaluate_classifier(model, test_loader(split, config), precision)


@torch.no_grad()
def evaluate_classifier(
    model: ClassificationModel, loader: Iterable[ImageBatch], precision: torch.dtype | None = None
) -> dict[str, float]:
    """{"top1_error", "top5_error"} in 0..1 over all images, each seen once in the view that the loader gives.

    The model is put in evaluation mode and back. `precision` is the autocast dtype, None for fp32. Raises DatasetError
    where there is no image.
    """
    device = next(model.parameters()).device
    wrong, total = torch.zeros(2, dtype=torch.long), 0
    training = model.training
    model.eval()
    for batch in loader:
        with autocast(device, precision):
            logits = model.logits(batch.images.to(device, non_blocking=True))
        wrong += count_errors(logits.cpu(), batch.labels)
        total += len(batch)
    model.train(training)
    if total == 0:
        raise DatasetError("there is no image to evaluate the classifier on")
    top1, top5 = (wrong / total).tolist()
    return {"top1_error": top1, "top5_error": top5}


def count_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """(2,) int64: of (N, K) scores and (N,) labels, how many labels are not the best score, and not among the best five.

    With K <= 5 none is outside of the best five.
    """
    best = logits.topk(min(5, logits.shape[1])).indices  # (N, 5)
    right = best == labels[:, None]
    return torch.stack([(~right[:, 0]).sum(), (~right.any(dim=1)).sum()])
