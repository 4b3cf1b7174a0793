"""Train a detector, or go on with a run that was stopped."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from detection.cli.commands.pretrain import pretrained
from detection.cli.runs import configured, print_once, run_parser, starting_from, stopped
from detection.config import Config, Source, load_classifier_config, load_config
from detection.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from detection.data.catalog import Dataset
    from detection.engine.train import TrainResult
    from detection.inference.detector import Detector

BEST_METRIC = "AP"
TITLES = {
    "AP": "COCO AP@[.5,.95]",
    "AP50": "COCO AP50",
    "AP75": "COCO AP75",
    "voc_area": "VOC mAP@.5, area",
    "voc07": "VOC mAP@.5, 11-point",
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = run_parser("train", "train_net", __doc__, "a classifier's or a detector's weights")
    parser.add_argument(
        "--pretrain",
        type=Path,
        metavar="FILE",
        help="a classifier's config: train that first, and start from it",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 128 + the number of the signal that stopped the run (130 for Ctrl-C)."""
    options = build_parser().parse_intermixed_args(argv)
    config = configured(options, load_config)
    if options.pretrain is not None and not options.resume:
        if options.weights is not None:
            raise ConfigError("--pretrain makes the weights to start from, --weights names them: give one of the two")
        from detection.engine.state import claim_output_dir

        claim_output_dir(config.output_dir)  # now, not after the classifier's hours
        classifier = pretrained(load_classifier_config(options.pretrain))
        if (code := stopped(classifier.training)) is not None:
            return code
        config = starting_from(config, classifier.weights)
    result = run_training(config, resume=options.resume)
    if (code := stopped(result)) is not None:
        return code
    if result.metrics:
        print_once(metrics_table(result))
    print_once(f"checkpoints and logs: {config.output_dir}")
    return 0


def run_training(config: Config, *, resume: bool = False) -> TrainResult:
    """Train the detector of a config on its `data.train`, evaluating on `data.val`, in `output_dir`.

    A finished run that is resumed returns its result at once. Raises the errors of `detection.errors`.
    """
    import torch

    from detection.inference.detector import build_detector

    splits = load_splits(config)
    if config.approach == "alternating":
        from detection.training.alternating import train_alternating

        return train_alternating(config, splits, resume=resume)
    torch.manual_seed(config.train.seed)
    model = build_detector(config)
    if not resume and config.model.weights is not None:
        initialise(model, config.model.weights)
    return train_model(model, splits, config.output_dir, resume=resume)


@dataclass(frozen=True)
class Splits:
    """The images to learn from, and those to evaluate with, if any."""

    training: Dataset
    validation: Dataset | None


def load_splits(config: Config) -> Splits:
    """Read the annotations of `data.train` and `data.val`. Raises DatasetError."""
    training = _load_split(config, config.data.train, "train")
    return Splits(training, _load_split(config, config.data.val, "val") if config.data.val else None)


def train_model(model: Detector, splits: Splits, output_dir: Path, *, resume: bool) -> TrainResult:
    """Train a model by its own config."""
    from detection.data import train_loader
    from detection.engine.distributed import World
    from detection.engine.train import train

    world, config, validation = World.from_environment(), model.config, splits.validation
    return train(
        model,
        lambda first: train_loader(splits.training, config, rank=world.rank, world_size=world.size, first_batch=first),
        config.train,
        output_dir,
        metadata={
            "kind": "detector",
            "class_names": list(model.class_names),
            "preprocessing": model.preprocessing.to_dict(),
            "config": config.model_dump(mode="json"),
        },
        evaluate=None if validation is None else evaluator(validation, config.data.workers),
        best_metric=BEST_METRIC,
        resume=resume,
    )


def _load_split(config: Config, sources: Sequence[Source], name: str) -> Dataset:
    from detection.data import load_dataset

    dataset = load_dataset(sources, config.data.classes, config.data.strict)
    print_once(f"{name}: {len(dataset.records)} images, {sum(len(record.labels) for record in dataset.records)} objects")
    return dataset


def initialise(model: Detector, path: Path) -> None:
    """Start from a file's weights, or the zoo's of that name, and say what they are. Raises CheckpointError."""
    from detection.cli.output import fetch_weights
    from detection.weights.checkpoint import initialise_detector

    print_once(initialise_detector(model, fetch_weights(path)))


def evaluator(dataset: Dataset, workers: int) -> Callable[[nn.Module], dict[str, float]]:
    """A function from a detector to its COCO and VOC figures on a data set."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        from detection.evaluation import evaluate_coco, evaluate_voc
        from detection.inference.dataset import predict_dataset
        from detection.inference.detector import Detector

        assert isinstance(model, Detector)
        detections = predict_dataset(model, dataset.records, workers=workers)
        truth_and_found = (dataset.records, detections, dataset.class_names)
        return {
            **evaluate_coco(*truth_and_found),
            "voc_area": evaluate_voc(*truth_and_found, metric="area").mean_ap,
            "voc07": evaluate_voc(*truth_and_found, metric="voc07").mean_ap,
        }

    return evaluate


def metrics_table(result: TrainResult) -> Table:
    """The last evaluation, for people."""
    table = Table(title=f"validation split after {result.steps} steps, {result.seconds:.0f} s")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, title in TITLES.items():
        if name in result.metrics:
            table.add_row(title, f"{result.metrics[name]:.4f}")
    if result.best is not None:
        table.add_row(f"best {TITLES[BEST_METRIC]} (best.pt)", f"{result.best:.4f}")
    return table
