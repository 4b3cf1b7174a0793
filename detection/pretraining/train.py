"""The classification stage: train, recompute the BN statistics, save the weights that detectors start from."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from backbones import recompute_bn_statistics
from backbones.modes import own_defaults
from detection.config import ClassifierConfig
from detection.engine.callbacks import Callback
from detection.engine.distributed import World, on_main
from detection.engine.folder import RunFolder, hold_folder
from detection.engine.group import process_group
from detection.engine.precision import autocast, resolve_precision
from detection.engine.result import TrainResult
from detection.engine.run import Validation, require_finite
from detection.engine.state import LAST, require_no_other_run
from detection.engine.train import train
from detection.evaluation.metrics import METRICS
from detection.files import remove_leftovers
from detection.pretraining.data import (
    ImageBatch,
    check_transforms,
    mean_image,
    test_loader,
    train_loader,
    training_splits,
)
from detection.pretraining.evaluate import evaluate_split
from detection.pretraining.folders import ImageFolder
from detection.pretraining.model import ClassificationModel, build_classifier, initialise_classifier
from detection.weights.checkpoint import Checkpoint, CheckpointMetadata, read_checkpoint, software_versions, write_checkpoint
from detection.weights.zoo import find_classifier

logger = logging.getLogger(__name__)

MODEL = "model.pt"
BEST_METRIC = "top1_error"
"""best.pt holds the weights that are best by this metric, a key of METRICS."""


@dataclass(frozen=True)
class PretrainResult:
    """How a run ended. An interrupted one has not written `weights` yet."""

    weights: Path  # the classifier with recomputed BN statistics
    metrics: dict[str, float]  # of these weights: top1_error and top5_error on the validation split, 0..1
    training: TrainResult

    @property
    def interrupted(self) -> bool:
        """Whether a signal or the end of its output's reader ended it before its last step."""
        return self.training.interrupted


def train_classifier(
    config: ClassifierConfig,
    *,
    resume: bool = False,
    device: torch.device | str = "auto",
    tell: Callable[[str], object] = logger.info,
    callbacks: Sequence[Callback] = (),
    find_weights: Callable[[Path], Path] = find_classifier,
) -> PretrainResult:
    """Train a classifier on class folders; `output_dir/model.pt` is what a detector's `model.weights` names.

    A new run starts from `config.model.weights`, a file or a name of the zoo, which `find_weights` turns into a file. With
    `resume` the run in `output_dir` goes on from its last checkpoint. `device` is as `train_detector`'s. `tell` gets the
    sentences that precede the run's own log; `callbacks` are called on rank 0 (`detection.engine.callbacks`). Under torchrun
    each process calls this.

    `output_dir` is held from before anything in it is read until the end: no second run may use it meanwhile. Raises
    ConfigError, DatasetError, CheckpointError or TrainingError; under torchrun all processes raise what one does.
    """
    world = World.from_environment(device)
    check_transforms(config.data)
    with own_defaults(grad=True), process_group(world, config.train), hold_folder(world, config.output_dir) as folder:
        return _train_classifier(
            config, world, folder, resume=resume, tell=tell, callbacks=callbacks, find_weights=find_weights
        )


def _train_classifier(
    config: ClassifierConfig,
    world: World,
    folder: RunFolder,
    *,
    resume: bool,
    tell: Callable[[str], object],
    callbacks: Sequence[Callback],
    find_weights: Callable[[Path], Path],
) -> PretrainResult:
    """`train_classifier` in a folder that is held."""
    # A folder in use and a wrong name of weights show at once, not after the images are read.
    if not resume:
        on_main(world, lambda: require_no_other_run(config.output_dir))
    resumed = resume and (config.output_dir / LAST).exists()
    weights = None if config.model.weights is None or resumed else find_weights(config.model.weights)
    train_split, val_split = training_splits(config)
    tell(f"{len(train_split)} training and {len(val_split)} validation images of {len(train_split.class_names)} classes")
    model = _starting_model(config, train_split.class_names, weights, resumed, tell)
    if config.data.mean_image and model.mean_image is None:
        model.mean_image = mean_image(train_split, config)
    model.label_smoothing = config.train.label_smoothing
    metadata = classifier_metadata(model, config)
    warm_up_error = config.train.warmup_until_error
    training = train(
        model,
        partial(train_loader, train_split, config, rank=world.rank, world_size=world.size),
        config.train,
        config.output_dir,
        metadata=metadata,
        world=world,
        validation=_validation(val_split, config),
        warm_up_is_over=None if warm_up_error is None else lambda line: line["train_top1_error"] < warm_up_error,
        resume=resume,
        callbacks=callbacks,
    )
    trained = config.output_dir / MODEL
    if training.interrupted or not world.is_main:
        return PretrainResult(trained, training.metrics, training)
    if config.bn_images > 0:
        _recompute_bn(model, train_split, config, training.steps * config.train.accumulate)
    folder.require_intact()
    _write_model(Checkpoint(metadata, model.state_dict()), training.steps, trained)
    return PretrainResult(trained, evaluate_split([model], val_split, config), training)


def _write_model(checkpoint: Checkpoint, steps: int, path: Path) -> None:
    """Write a trained classifier. Raises TrainingError where a number in it is not finite."""
    remove_leftovers(path)
    require_finite(checkpoint, steps, path)
    write_checkpoint(checkpoint.metadata, checkpoint.state, path)


def _validation(split: ImageFolder, config: ClassifierConfig) -> Validation:
    """How the run measures the classifier on the validation split."""
    return Validation.on_main(
        evaluate=lambda network: evaluate_split([_as_classifier(network)], split, config),
        best_metric=BEST_METRIC,
        higher_is_better=METRICS[BEST_METRIC].higher_is_better,
        batches=partial(validation_batches, split, config) if config.train.validation_losses > 0 else None,
    )


def validation_batches(split: ImageFolder, config: ClassifierConfig) -> Iterator[ImageBatch]:
    """`train.validation_losses` images of the split, or all that it has, in their test view. The same ones at each call."""
    order = np.random.default_rng(config.train.seed).permutation(len(split))
    return test_loader(split.subset(sorted(order[: config.train.validation_losses].tolist())), config)


def classifier_metadata(model: ClassificationModel, config: ClassifierConfig) -> CheckpointMetadata:
    """What each checkpoint of a classifier says about it."""
    return CheckpointMetadata(
        kind="classifier",
        class_names=model.class_names,
        preprocessing=model.backbone.preprocessing,
        config=config.model_dump(mode="json"),
        mean_image=model.mean_image,
        versions=software_versions(),
    )


def _as_classifier(network: nn.Module) -> ClassificationModel:
    """The same network. To the loop, which gives it to `evaluate`, it is just an nn.Module."""
    assert isinstance(network, ClassificationModel)
    return network


def _starting_model(
    config: ClassifierConfig,
    class_names: tuple[str, ...],
    weights: Path | None,
    resumed: bool,
    tell: Callable[[str], object],
) -> ClassificationModel:
    """The model before its first step; a resumed run's weights are restored by the training loop."""
    torch.manual_seed(config.train.seed)
    model = build_classifier(config.model, class_names)
    if resumed:
        recorded = read_checkpoint(config.output_dir / LAST, "classifier").metadata
        model.backbone.preprocessing, model.mean_image = recorded.preprocessing, recorded.mean_image
    elif weights is not None:
        tell(initialise_classifier(model, config.model, weights))
    return model


def _recompute_bn(model: ClassificationModel, split: ImageFolder, config: ClassifierConfig, first_batch: int) -> None:
    """A strict average over the `bn_images` training images that would come next."""
    device = next(model.parameters()).device
    num_batches = -(-config.bn_images // config.train.micro_batch)

    def batches() -> Iterator[ImageBatch]:
        loader = train_loader(split, config, first_batch=first_batch)
        for batch in itertools.islice(loader, num_batches):
            yield batch.to(device)

    with autocast(device, resolve_precision(config.train.precision, device)):
        recompute_bn_statistics(model, batches())
