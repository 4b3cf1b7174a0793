"""What eval-voc and eval-coco share: a model from the command line, and its detections on the test split."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from detection.config_files import load_config, override_config
from detection.errors import ConfigError

if TYPE_CHECKING:
    from detection.config import Config, Source
    from detection.data.catalog import Dataset
    from detection.modeling import FasterRCNN
    from detection.structures import Detections, ImageId

QUICKSTART_WEIGHTS = Path("runs/quickstart/detector/best.pt")


@dataclass(frozen=True)
class Predictions:
    """A model's detections on the images of a split."""

    sources: tuple[Source, ...]
    dataset: Dataset
    detections: Mapping[ImageId, Detections]


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, --weights and overrides."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the experiment; default: the one the checkpoint carries")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a detector's checkpoint; default: the config's best.pt")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. test.score_threshold=0.01")


def refuse_model_arguments(options: argparse.Namespace, chosen: str) -> None:
    """Raise ConfigError if a model is given beside detections already on disk."""
    given = [name for name in ("config", "weights", "overrides") if getattr(options, name)]
    if given:
        raise ConfigError(f"{chosen} evaluates files, {_flag(given[0])} a model: give one of the two")


def refuse_without(options: argparse.Namespace, needed: str, names: list[str]) -> None:
    """Raise ConfigError if one of these options is given without the one that it belongs to."""
    given = [name for name in names if getattr(options, name) is not None]
    if given:
        raise ConfigError(f"{_flag(given[0])} goes with {_flag(needed)}, which is missing")


def _flag(name: str) -> str:
    return name if name == "overrides" else "--" + name.replace("_", "-")


def predict_test_split(options: argparse.Namespace, console: Console) -> Predictions:
    """Load the model and run it on `data.test` of its config (`data.val` where that is empty)."""
    from detection.data import load_dataset
    from detection.inference.dataset import predict_dataset

    model, weights = load_model(options)
    config = model.config
    sources = config.data.test or config.data.val
    if not sources:
        raise ConfigError("the config names no images to evaluate: set data.test or data.val")
    dataset = load_dataset(sources, config.data.classes, config.data.strict)
    console.print(f"{weights}: {len(dataset.records)} images", soft_wrap=True, markup=False)
    with _progress(console) as progress:
        task = progress.add_task("detecting", total=len(dataset.records))
        detections = predict_dataset(
            model,
            dataset.records,
            workers=config.data.workers,
            report=lambda done: progress.update(task, completed=done),
        )
    return Predictions(sources, dataset, detections)


def load_model(options: argparse.Namespace) -> tuple[FasterRCNN, Path]:
    """The detector that --config, --weights and overrides ask for, on the best device, and its file.

    Neither option: the quickstart's. Raises ConfigError or CheckpointError."""
    import torch

    from detection.engine.checkpoint import load_detector

    config = load_config(options.config, options.overrides) if options.config else None
    weights = options.weights or _default_weights(config)
    if config is None and options.overrides:
        config = override_config(load_detector(weights).config, options.overrides)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_detector(weights, config, device), weights


def _default_weights(config: Config | None) -> Path:
    weights = QUICKSTART_WEIGHTS if config is None else config.output_dir / "best.pt"
    if not weights.is_file():
        first = "run `make run` first" if config is None else "train it first"
        raise ConfigError(f"there is no {weights}: {first}, or give --weights FILE")
    return weights


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
