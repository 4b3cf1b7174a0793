"""Options that several commands share: the experiment, its overrides, and the configs and models that they ask for."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from backbones.errors import shorten
from detection.cli.arguments import CommandParser, any_path, output_folder
from detection.cli.output import fetch_weights, say
from detection.config import (
    ClassifierConfig,
    Config,
    IlsvrcDetSource,
    LocConfig,
    LocDataConfig,
    Source,
    VocSource,
    load_config,
    override_config,
    with_weights,
)
from detection.errors import ConfigError
from detection.files import exists, find_trained_weights, is_file

if TYPE_CHECKING:
    from detection.evaluation.split import EvaluationSplit
    from detection.inference.detector import Detector
    from detection.inference.ensemble import Ensemble
    from detection.trackers import Tracker

ConfigT = TypeVar("ConfigT", Config, ClassifierConfig, LocConfig)

_RUN_FILES = ("last.pt", "best.pt", "model.pt", "config.yaml", "metrics.jsonl", "log.txt")
QUICKSTART_WEIGHTS = Path("runs/quickstart/detector/best.pt")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, --weights and overrides, for `load_model_and_split` and `load_detectors`."""
    parser.add_argument("--config", type=any_path, metavar="FILE", help="the experiment; default: the checkpoint's own")
    parser.add_argument(
        "--weights",
        type=any_path,
        nargs="+",
        metavar="FILE",
        help="a detector's checkpoint or a name of the zoo, or several as an ensemble; default: the config's best.pt, or else "
        "last.pt",
    )
    add_device_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. test.score_threshold=0.01")


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """--device, a word that `detection.device.find_device` and `World.from_environment` take."""
    parser.add_argument(
        "--device", default="auto", metavar="D", help="cpu, cuda, cuda:1, mps, xpu; default: auto, the GPU if there is one"
    )


def training_parser(tool: str, description: str | None, weights_help: str) -> argparse.ArgumentParser:
    """The command line of a training command, `tools/TOOL.py`."""
    parser = CommandParser(
        description=description,
        epilog=f"Several GPUs or machines: torchrun --nproc_per_node=N tools/{tool}.py ... See docs/training.md.",
    )
    parser.add_argument(
        "--config", type=any_path, metavar="FILE", help="the experiment, which may also be given without --config"
    )
    parser.add_argument("--resume", action="store_true", help="go on from last.pt in the output folder")
    parser.add_argument(
        "--weights", type=any_path, metavar="FILE", help=f"a new run that starts from {weights_help}, or a name of the zoo"
    )
    parser.add_argument("--output-dir", type=output_folder, metavar="DIR", help="where checkpoints and logs go")
    add_device_argument(parser)
    parser.add_argument(
        "--track",
        action="append",
        choices=("wandb", "mlflow"),
        default=[],
        help="show the run in this tracker too, whose package must be installed; may be given twice",
    )
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. train.learning_rate=0.002")
    return parser


def take_config_argument(options: argparse.Namespace) -> Path:
    """--config, or the first of the overrides that is none, which is taken out of them. Raises ConfigError without either."""
    name = next((text for text in options.overrides if not is_override(text)), None)
    if options.config is None and name is not None:
        options.overrides.remove(name)
        options.config = any_path(name)
    if options.config is None:
        raise ConfigError("which experiment? Give a config, such as my.yaml")
    return Path(options.config)


def load_config_or_folder(path: Path, overrides: Sequence[str]) -> Config:
    """The config in a file, or one whose data are a folder of labelled images. Raises ConfigError or DatasetError."""
    if not path.is_dir():
        return load_config(path, overrides)
    from detection.data.folder import config_of_folder

    return override_config(config_of_folder(path, tell=say), overrides)


def load_trackers(options: argparse.Namespace) -> list[Tracker]:
    """The callbacks that --track asks for. Raises ConfigError where a package is absent."""
    from detection.trackers import TRACKERS

    return [TRACKERS[name]() for name in options.track]


def load_training_config(options: argparse.Namespace, load: Callable[[Path, Sequence[str]], ConfigT]) -> ConfigT:
    """The config of a run: --config with overrides, --weights and --output-dir. `load` reads it. Raises ConfigError."""
    if options.resume and options.weights is not None:
        raise ConfigError("--resume goes on with a run, --weights starts a new one from a file: give one of the two")
    config = load(take_config_argument(options), options.overrides)
    if options.weights is not None:
        config = with_weights(config, options.weights)
    if options.output_dir is not None:
        config = config.model_copy(update={"output_dir": options.output_dir})
    return config


def parse_with_overrides(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed options; overrides may stand anywhere, even after the files of --weights."""
    options = parser.parse_intermixed_args(argv)
    weights = options.weights or []
    options.overrides = [*options.overrides, *(str(name) for name in weights if is_override(name))]
    options.weights = [name for name in weights if not is_override(name)]
    return options


def is_override(argument: str | Path) -> bool:
    """Whether this is `dotted.key=value`, and no file of such a name."""
    return re.match(r"\w+(\.\w+)*=", str(argument)) is not None and not exists(argument)


def detections_given(options: argparse.Namespace, ground_truth: str, metavar: str, more: Sequence[str] = ()) -> bool:
    """Whether --detections names files to evaluate; else a model is evaluated.

    `ground_truth` is the option that names the annotations of such files, `more` are others that go with them. Raises
    ConfigError if options of files and of a model are mixed, or the ground truth is missing.
    """
    if options.detections is None:
        _refuse_without(options, "--detections", [ground_truth, *more])
        return False
    for name in ("config", "weights", "overrides"):
        if getattr(options, name):
            raise ConfigError(f"--detections evaluates files, {_flag(name)} a model: give one of the two")
    _refuse_without(options, "--weights", ["write_detections"])
    if getattr(options, ground_truth) is None:
        raise ConfigError(f"--detections needs {_flag(ground_truth)} {metavar}, the ground truth to compare with")
    return True


def require_distinct(options: argparse.Namespace, names: Sequence[str], more: Sequence[Path] = ()) -> None:
    """Raise ConfigError if two of these options name one file, or one of them a file of `more`, which are read.

    The second to be written would replace the other. An option may hold several files.
    """
    taken = {os.path.realpath(path): "what is read" for path in more}
    for name in names:
        found: Path | Sequence[Path] | None = getattr(options, name)
        paths = [found] if isinstance(found, Path) else list(found or ())
        for path in paths:
            other = taken.get(os.path.realpath(path))
            if other is not None:
                raise ConfigError(f"{other} and {_flag(name)} are one file, {shorten(str(path))}: name two")
        taken |= {os.path.realpath(path): _flag(name) for path in paths}


def require_nothing_replaced(
    options: argparse.Namespace, names: Sequence[str], files: Sequence[Path], sources: Sequence[Source | LocDataConfig] = ()
) -> None:
    """Raise ConfigError if one of these options would replace a file of a run or of a data set that is read.

    `files` are read, and where they are checkpoints other files of their runs lie beside them; `sources` are the config's.
    """
    kept = [place for file in files for place in (file, *(file.parent / name for name in _RUN_FILES))]
    kept += [place for source in sources for place in _annotations_of(source)]
    real = {os.path.realpath(place) for place in kept}
    for name in names:
        path: Path | None = getattr(options, name)
        if path is not None and is_file(path):
            place = os.path.realpath(path)
            if any(each in real for each in (place, *map(str, Path(place).parents))):
                raise ConfigError(f"{_flag(name)} would replace {shorten(str(path))}, a file of what is read: name another")


def _annotations_of(source: Source | LocDataConfig) -> Iterator[Path]:
    """The files and folders that hold a source's annotations, at each place where they may be."""
    from detection.data.catalog import data_home

    for root in (source.root, data_home() / source.root):
        if isinstance(source, VocSource):
            folder = root / f"VOC{source.year}" if source.year else root
            yield from (folder / "Annotations", folder / "ImageSets")
        elif isinstance(source, IlsvrcDetSource | LocDataConfig):
            yield from (root / "Annotations", root / "ImageSets", root / source.devkit, source.devkit)
        else:
            yield root / (source.annotations or "")


def _refuse_without(options: argparse.Namespace, needed: str, names: Sequence[str]) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise ConfigError(f"{_flag(name)} goes with {needed}, which is missing")


def _flag(name: str) -> str:
    return name if name == "overrides" else "--" + name.replace("_", "-")


def load_model_and_split(options: argparse.Namespace, written: str) -> tuple[Detector | Ensemble, str, EvaluationSplit]:
    """The detector or ensemble that --config, --weights and overrides ask for, the names of its files, and its test split.

    `written` is what --write-detections takes: without it a split without annotations is a ConfigError, as such a run would
    leave nothing. Raises ConfigError, CheckpointError or DatasetError.
    """
    from detection.evaluation.split import load_evaluation_split
    from detection.inference.ensemble import Ensemble

    detectors, files = load_detectors(options)
    model = detectors[0] if len(detectors) == 1 else Ensemble(detectors)
    split = load_evaluation_split(model.config)
    if split.unannotated and not options.write_detections:
        raise ConfigError(f"the split has no annotations to evaluate with: give --write-detections {written}")
    return model, " + ".join(map(str, files)), split


def load_detectors(options: argparse.Namespace, *, own_networks: bool = False) -> tuple[list[Detector], list[Path]]:
    """The detectors that --config, --weights and overrides ask for, on --device, and their files.

    Neither option: the quickstart's. A single file has to be the network of --config; of several, or with `own_networks`,
    each stays the one that it was trained as, and --config gives them `data`, `test` and the precision. Raises ConfigError
    or CheckpointError, also where their classes differ.
    """
    from detection.data.settle import settle_config
    from detection.engine.distributed import World
    from detection.inference.detector import load_detector
    from detection.weights.checkpoint import require_same_classes

    config = settle_config(load_config(options.config, options.overrides)) if options.config else None
    files = options.weights or [_default_weights(config)]
    device = World.from_environment(options.device).device

    def adapted(own: Config) -> Config:
        if config is None:
            return override_config(own, options.overrides)
        if len(files) == 1 and not own_networks:
            return config
        return own.model_copy(update={"data": config.data, "test": config.test, "train": config.train})

    find_weights = partial(fetch_weights, kind="detector")
    detectors = [load_detector(file, adapted, device, find_weights=find_weights) for file in files]
    data = detectors[0].config.data
    outputs = [name for name in ("json", "write_detections") if hasattr(options, name)]
    require_nothing_replaced(options, outputs, files, data.all_sources)
    for file, detector in zip(files, detectors, strict=True):
        require_same_classes(detector.class_names, detectors[0].class_names, file)
    return detectors, files


def _default_weights(config: Config | None) -> Path:
    """The quickstart's, or the best of the config's run; a run without a validation split has only the last."""
    best = QUICKSTART_WEIGHTS if config is None else config.output_dir / "best.pt"
    weights = find_trained_weights(best.parent)
    if weights is not None:
        return weights
    first = "run `make run` first" if config is None else "train it first"
    raise ConfigError(f"there is no {best}: {first}, or give --weights FILE")
