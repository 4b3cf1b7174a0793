"""Which classes are looked for in an image: the best five of a classifier (the paper's "predicted class").

N images, K classes, in the alphabetical order of their WNIDs: that of an ImageNet classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from detection.config import ClassifierConfig, LocConfig, load_classifier_config
from detection.config.classifier import ClassifierDataConfig, ClassifierModelConfig
from detection.engine.precision import resolve_precision
from detection.localisation.images import LocImages
from detection.pretraining.data import check_transforms
from detection.pretraining.evaluate import class_probabilities, views_of_split
from detection.pretraining.folders import ImageFolder
from detection.pretraining.model import ClassificationModel, load_classifier

NUM_GUESSES = 5


def classifier_config(config: LocConfig) -> ClassifierConfig:
    """The experiment whose views and network a classifier has: `classifier.config`, or the centre view and `model`.

    Raises ConfigError.
    """
    data, model = config.data, config.model
    if config.classifier.config is None:
        found = ClassifierConfig(
            model=ClassifierModelConfig(backbone=model.backbone, stride_in_1x1=model.stride_in_1x1, stem_pool=model.stem_pool),
            data=ClassifierDataConfig(image_size=data.image_size),
        )
    else:
        found = load_classifier_config(config.classifier.config)
    # Where an image lies and how it is loaded is the localisation's to say. None may be left out.
    loading = {"max_pixels": data.max_pixels, "workers": data.workers, "loader_timeout": data.loader_timeout}
    found = found.model_copy(update={"data": found.data.model_copy(update=loading | {"on_bad_image": "error"})})
    check_transforms(found.data)
    return found


def load_classifiers(paths: Sequence[Path], config: LocConfig, class_names: Sequence[str]) -> list[ClassificationModel]:
    """One classifier, or the members of an ensemble, each as its file records it; in evaluation mode, on the CPU.

    Raises ConfigError, CheckpointError, and OtherClassesError where one is for other classes.
    """
    network = classifier_config(config).model
    return [load_classifier(path, network, class_names, as_recorded=True) for path in paths]


def classify(
    models: Sequence[ClassificationModel],
    images: LocImages,
    config: LocConfig,
    *,
    report: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """The best five classes of each image, the best first: (N, 5) int64, -1 in the last columns where K is less.

    Of several models and views the mean of the probabilities counts. `report` gets the number of images that are done.
    Raises ConfigError or DatasetError.
    """
    views = classifier_config(config)
    precision = resolve_precision(views.train.precision, next(models[0].parameters()).device)
    best = torch.full((len(images), NUM_GUESSES), -1, dtype=torch.long, device="cpu")
    done = 0
    for scores, labels in class_probabilities(models, views_of_split(as_folder(images, config), views), precision):
        found = scores.topk(min(NUM_GUESSES, scores.shape[1])).indices
        best[done : done + len(labels), : found.shape[1]] = found
        done += len(labels)
        report(done)
    return best


def guess_classes(
    paths: Sequence[Path],
    images: LocImages,
    config: LocConfig,
    device: torch.device,
    *,
    report: Callable[[int], object] = lambda done: None,
) -> Tensor | None:
    """What `classify` finds with the classifiers of some files, on a device; None where there are no files.

    Raises what `load_classifiers` and `classify` raise.
    """
    if not paths:
        return None
    models = [model.to(device) for model in load_classifiers(paths, config, images.class_names)]
    return classify(models, images, config, report=report)


def as_folder(images: LocImages, config: LocConfig) -> ImageFolder:
    """The images as the classification stage knows them."""
    files = [images.file_of(index) for index in range(len(images))]
    return ImageFolder(images.class_names, files, torch.from_numpy(images.labels), max_pixels=config.data.max_pixels)
