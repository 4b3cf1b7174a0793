"""What eval-voc, eval-coco and ablation share: models from the command line, and their test split."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from detection.config import load_config, override_config
from detection.errors import ConfigError

if TYPE_CHECKING:
    from detection.config import Config, Source
    from detection.data.catalog import Dataset
    from detection.inference.detector import Detector, Ensemble
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
    parser.add_argument(
        "--weights",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="a detector's checkpoint or a name of the zoo, or several as an ensemble; default: the config's best.pt, or else "
        "last.pt",
    )
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
    from detection.inference.dataset import predict_dataset

    model, weights = load_model(options)
    config = model.config
    sources, dataset = load_test_split(config)
    console.print(f"{weights}: {len(dataset.records)} images", soft_wrap=True, markup=False)
    with progress_bar(console) as progress:
        task = progress.add_task("detecting", total=len(dataset.records))
        detections = predict_dataset(
            model,
            dataset.records,
            workers=config.data.workers,
            report=lambda done: progress.update(task, completed=done),
        )
    return Predictions(sources, dataset, detections)


def load_test_split(config: Config) -> tuple[tuple[Source, ...], Dataset]:
    """The images to evaluate on, and where they come from. Raises ConfigError or DatasetError."""
    from detection.data import load_dataset

    sources = config.data.test or config.data.val
    if not sources:
        raise ConfigError("the config names no images to evaluate: set data.test or data.val")
    return sources, load_dataset(sources, config.data.classes, config.data.strict)


def model_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed options; overrides may stand anywhere, even behind the files of --weights."""
    options = parser.parse_intermixed_args(argv)
    weights = options.weights or []
    options.overrides = [*options.overrides, *(str(name) for name in weights if is_override(name))]
    options.weights = [name for name in weights if not is_override(name)]
    return options


def is_override(argument: str | Path) -> bool:
    """Whether this is `dotted.key=value`, and no file of such a name."""
    return re.match(r"\w+(\.\w+)*=", str(argument)) is not None and not Path(argument).exists()


def load_model(options: argparse.Namespace) -> tuple[Detector | Ensemble, str]:
    """The detector or ensemble that --config, --weights and overrides ask for, and what it is made of.

    Raises ConfigError or CheckpointError.
    """
    from detection.inference.detector import Ensemble

    detectors, files = load_detectors(options)
    model = detectors[0] if len(detectors) == 1 else Ensemble(detectors)
    return model, " + ".join(map(str, files))


def load_detectors(options: argparse.Namespace, *, own_networks: bool = False) -> tuple[list[Detector], list[Path]]:
    """The detectors that --config, --weights and overrides ask for, on the best device, and their files.

    Neither option: the quickstart's. A single file has to be the network of --config; of several, or with `own_networks`,
    each stays the one that it was trained as, and --config gives them `data`, `test` and the precision. Raises ConfigError
    or CheckpointError, also where their classes differ.
    """
    import torch

    from detection.cli.downloads import weights_file
    from detection.inference.detector import load_detector
    from detection.weights.checkpoint import require_same_classes

    config = load_config(options.config, options.overrides) if options.config else None
    files = options.weights or [_default_weights(config)]
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def adapted(own: Config) -> Config:
        if config is None:
            return override_config(own, options.overrides)
        if len(files) == 1 and not own_networks:
            return config
        return own.model_copy(update={"data": config.data, "test": config.test, "train": config.train})

    detectors = [load_detector(weights_file(file, "detector"), adapted, device) for file in files]
    for file, detector in zip(files, detectors, strict=True):
        require_same_classes(detector.class_names, detectors[0].class_names, file)
    return detectors, files


def _default_weights(config: Config | None) -> Path:
    """The quickstart's, or the best of the config's run; a run without a validation split has only the last."""
    best = QUICKSTART_WEIGHTS if config is None else config.output_dir / "best.pt"
    weights = trained_weights(best)
    if weights is not None:
        return weights
    first = "run `make run` first" if config is None else "train it first"
    raise ConfigError(f"there is no {best}: {first}, or give --weights FILE")


def trained_weights(best: Path) -> Path | None:
    """The best checkpoint of a run, or its last, if it has left one."""
    return next((weights for weights in (best, best.with_name("last.pt")) if weights.is_file()), None)


def progress_bar(console: Console) -> Progress:
    """A bar for images, gone when done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
