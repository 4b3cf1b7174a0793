"""One run of the training loop for a detector: its data, and the evaluation on the validation split while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from torch import nn

from detection.config import Config, HeldOut
from detection.data.catalog import Dataset, load_parts, load_split, resolve_file
from detection.data.loader import train_loader
from detection.data.object_masks import describe_masks
from detection.data.repeats import describe_factors
from detection.data.settle import Tell, settle_config, with_split_file
from detection.data.split import SPLIT_FILE, ImageSplit, read_split, settings_of, write_split
from detection.data.tiles import describe_tiles, tile_dataset
from detection.engine.advice import advise_tiles
from detection.engine.callbacks import Callback
from detection.engine.distributed import World, on_main
from detection.engine.result import TrainResult
from detection.engine.run import Validation
from detection.engine.train import train
from detection.errors import ConfigError, DatasetError
from detection.evaluation.metrics import METRICS
from detection.evaluation.split import warn_of_crowded
from detection.inference.dataset import joined, predict_dataset
from detection.inference.detector import Detector
from detection.inference.evaluate import evaluate_detections
from detection.structures import Batch, Detections, ImageId
from detection.training.device_batch import settle_images_per_device
from detection.weights.checkpoint import detector_metadata

BEST_METRIC = "AP"
"""best.pt holds the weights that are best by this metric, a key of METRICS."""


@dataclass(frozen=True)
class TrainingData:
    """The images to learn from, and those to evaluate on, if any."""

    training: Dataset
    validation: Dataset | None


@dataclass(frozen=True)
class RunOptions:
    """What `train_detector` is given beside a config, which its docstring describes."""

    training: Dataset | None
    validation: Dataset | None
    resume: bool
    tell: Tell
    callbacks: Sequence[Callback]
    find_weights: Callable[[Path], Path]


def load_settled_data(
    config: Config, world: World, options: RunOptions, folders: Sequence[Path]
) -> tuple[Config, TrainingData]:
    """A training's data, and its config with what they decide: which images are held out, how many fit into a device.

    `folders` are those of its runs. Raises what `load_training_data` raises, and CheckpointError.
    """
    data = load_training_data(config, world, options.training, options.validation, options.tell)
    config = keep_split(config, world, data)
    resumed = folders if options.resume else []
    return settle_images_per_device(config, data.training, world, options.tell, resumed=resumed), data


def settle_data(config: Config, world: World, tell: Tell) -> Config:
    """`settle_config` for all processes of a run: what rank 0 finds in the data and in `output_dir`, which it alone has.

    Raises what that raises.
    """
    data = on_main(world, lambda: settle_config(config, tell).data)
    return config.model_copy(update={"data": data})


def load_training_data(
    config: Config, world: World, training: Dataset | None, validation: Dataset | None, tell: Tell
) -> TrainingData:
    """The data sets that are given, and the config's `data.train` and `data.val` in place of those that are not.

    Raises DatasetError for annotations that cannot be used, for other classes than the config's or, with `model.mask`, where
    no object to learn from has a mask; ConfigError where images are to be held out of a data set that is given.
    """
    held_out, with_masks = config.data.held_out, config.model.mask
    if held_out is not None and validation is None:
        if training is not None:
            raise ConfigError("data.val holds out a share of data.train, not of images that are given: give validation as well")
        parts = load_parts(config.data, on_main(world, lambda: _kept_split(held_out)), masks=with_masks)
        training, validation = parts["train"], parts["val"]
    if training is None:
        training = load_split(config.data, "train", masks=with_masks)
    _require_classes("train", training, config)
    tell(_describe_size("train", training))
    for sentence in _describe_epoch(training, config):
        tell(f"train: {sentence}")
    if with_masks and (told := describe_masks("train", training.records, needed=True)) is not None:
        tell(told)
    if validation is None and config.data.val_sources:
        validation = load_split(config.data, "val", masks=with_masks)
    if validation is not None:
        _require_classes("val", validation, config)
        warn_of_crowded(validation, config)
        tell(_describe_size("val", validation))
        if with_masks and (told := describe_masks("val", validation.records, needed=False)) is not None:
            tell(told)
    for sentence in advise_tiles(config):
        tell(sentence)
    return TrainingData(training, validation)


def _kept_split(held_out: HeldOut) -> ImageSplit | None:
    return None if held_out.file is None else read_split(resolve_file(held_out.file))


def keep_split(config: Config, world: World, data: TrainingData) -> Config:
    """Write which images are held out into the output folder, and name that file in `data.val` of the config.

    So the run goes on, and is evaluated, with the same images though more come to the data. Raises OSError.
    """
    held_out = config.data.held_out
    if held_out is None or held_out.file is not None or data.validation is None:
        return config
    split = ImageSplit.of({"train": data.training.records, "val": data.validation.records}, settings_of(held_out))
    on_main(world, lambda: write_split(config.output_dir / SPLIT_FILE, split))
    return with_split_file(config, held_out)


def _require_classes(name: str, dataset: Dataset, config: Config) -> None:
    """Raise DatasetError if the classes of a split are not the config's."""
    if dataset.class_names != config.data.class_names:
        found, expected = ", ".join(dataset.class_names), ", ".join(config.data.class_names)
        raise DatasetError(f"{name}: its classes are {found}; data.classes of the config are {expected}: set them alike")


def _describe_size(name: str, dataset: Dataset) -> str:
    return f"{name}: {len(dataset.records)} images, {sum(len(record.labels) for record in dataset.records)} objects"


def _describe_epoch(training: Dataset, config: Config) -> list[str]:
    """What of the images an epoch consists of, where that is not each of them once."""
    tiles = tile_dataset(training, config.data)
    drawn = describe_factors(tiles, config.data.repeat_threshold)
    return [*describe_tiles(training, tiles, config.data), *([] if drawn is None else [drawn])]


def fit(
    model: Detector,
    data: TrainingData,
    output_dir: Path,
    *,
    world: World | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a detector by its own config, from the weights that it has; with `resume` from those of `output_dir`/last.pt.

    Checkpoints and the log are kept in `output_dir`; `callbacks` are called on rank 0. `world` and what is raised are those
    of `detection.engine.train.train`.
    """
    world, config = world or World.from_environment(), model.config
    return train(
        model,
        partial(train_loader, data.training, config, rank=world.rank, world_size=world.size),
        config.train,
        output_dir,
        metadata=detector_metadata(model),
        world=world,
        validation=None if data.validation is None else _validation(data.validation, config),
        resume=resume,
        callbacks=callbacks,
    )


def _validation(dataset: Dataset, config: Config) -> Validation:
    """How the run measures the detector on the validation split."""
    with_losses = config.train.validation_losses > 0 and len(dataset) > 0

    def share(network: nn.Module, world: World) -> dict[ImageId, Detections]:
        return predict_dataset(_as_detector(network), world.share(dataset.records), workers=config.data.workers)

    return Validation(
        share=share,
        measure=lambda shares: (
            evaluate_detections(dataset, joined(dataset.records, shares), config.test.max_detections).metrics
        ),
        best_metric=BEST_METRIC,
        higher_is_better=METRICS[BEST_METRIC].higher_is_better,
        batches=partial(validation_batches, dataset, config) if with_losses else None,
    )


def validation_batches(dataset: Dataset, config: Config) -> Iterator[Batch]:
    """The batches of `train.validation_losses` images, as many as make up whole batches: as in training, but not augmented.

    Images have the size of the test, and each is drawn as often as the others. The same batches at each call.
    """
    test, size = config.test, config.train.micro_batch
    as_tested = {"augmentations": (), "shorter_sides": (test.shorter_side,), "longer_side": test.longer_side}
    # Of images without any object, which training would refuse, all tiles have their turn.
    has_objects = any(bool(record.trainable.any()) for record in dataset.records)
    empty = config.data.tile_empty if has_objects else 1.0
    data = config.data.model_copy(update={**as_tested, "repeat_threshold": 0.0, "tile_empty": empty})
    config = config.model_copy(update={"data": data})
    images = min(config.train.validation_losses, len(dataset))
    with closing(train_loader(replace(dataset, weights={}), config)) as loader:
        yield from islice(loader, -(-images // size))


def _as_detector(network: nn.Module) -> Detector:
    """The same network. To the loop, which gives it to `evaluate`, it is just an nn.Module."""
    assert isinstance(network, Detector)
    return network
