"""What `resdet demo` and `resdet track` share: options, the model, drawing all inputs, and the exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from backbones.errors import printable, shorten
from detection.cli.arguments import any_path, output_folder, threshold, whole_number
from detection.cli.main import SOME_FAILED, USER_MISTAKE
from detection.cli.options import QUICKSTART_WEIGHTS, add_device_argument, is_override
from detection.cli.output import fetch_weights, progress_bar, say
from detection.config import Config, override_config, read_thresholds
from detection.config.thresholds import thresholds_of_classes
from detection.errors import CheckpointError, ConfigError, DatasetError
from detection.files import find_trained_weights
from detection.terminal import new_console, print_error

if TYPE_CHECKING:
    from detection.data.media import MediaInput
    from detection.export.exported import ExportedDetector
    from detection.export.runtimes import RuntimeName
    from detection.inference.detector import Detector
    from detection.inference.painting import Tracking

T = TypeVar("T")

DEFAULT_THRESHOLD = 0.5
"""Of what is drawn or labelled: the lower one of evaluation is for the metrics."""


def add_drawing_arguments(parser: argparse.ArgumentParser, inputs: str, output: Path) -> None:
    """INPUT ..., described by `inputs`, --weights, --output, --score-threshold and --max-frames."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=f"{inputs}; dotted.key=value, e.g. test.flip=true")
    parser.add_argument(
        "--weights",
        type=any_path,
        metavar="FILE",
        help="a detector's checkpoint or a name of the zoo (docs/weights.md); default: the quickstart's or, if that has "
        "not run, detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x, which is downloaded",
    )
    parser.add_argument("--output", type=output_folder, default=output, metavar="DIR", help="default: %(default)s")
    add_threshold_argument(parser)
    add_device_argument(parser)
    parser.add_argument(
        "--max-frames", type=whole_number(1), metavar="N", help="of each video or camera; default: to the end, or Ctrl-C"
    )


def add_threshold_argument(parser: argparse.ArgumentParser) -> None:
    """--score-threshold, for `adapter`."""
    parser.add_argument(
        "--score-threshold",
        type=threshold,
        default=DEFAULT_THRESHOLD,
        metavar="T",
        help="0 to 1, or a YAML file with such a number for each class, as `cat: 0.4`; default: %(default)s",
    )


def adapter(score_threshold: float | Path, overrides: Sequence[str]) -> Callable[[Config], Config]:
    """What turns a detector's own config into the one to draw with. Overrides count more than --score-threshold.

    Classes that a file of thresholds leaves out have the option's default. Raises ConfigError where the file cannot be read;
    what is returned raises it where file or overrides do not fit the config.
    """
    given = read_thresholds(score_threshold) if isinstance(score_threshold, Path) else score_threshold

    def adapted(own: Config) -> Config:
        setting = given if isinstance(given, float) else for_all(given, own.data.class_names, str(score_threshold))
        test = own.test.model_copy(update={"score_threshold": setting})
        return override_config(own.model_copy(update={"test": test}), overrides)

    return adapted


def for_all(thresholds: Mapping[str, float], class_names: Sequence[str], file: str) -> dict[str, float]:
    """The threshold of each class: that of the file, or the option's default. Raises ConfigError, naming the file."""
    values = thresholds_of_classes(thresholds, class_names, DEFAULT_THRESHOLD, file)
    return dict(zip(class_names, values, strict=True))


def draw_all(
    options: argparse.Namespace,
    find: Callable[[str], list[MediaInput]] | None = None,
    tracking: Tracking | None = None,
) -> int:
    """Draw everything that can be read; what cannot is listed at the end. `find` gives what an INPUT stands for.

    Returns 0, 1 if some inputs failed, 2 if all did. Raises ConfigError, DatasetError or CheckpointError before any work.
    """
    from detection.data.media import find_all_inputs

    overrides = [text for text in options.inputs if is_override(text)]
    texts = [text for text in options.inputs if text not in overrides]
    if not texts:
        raise ConfigError("give at least one image, folder, video or camera to look at")
    adapt = adapter(options.score_threshold, overrides)
    inputs, problems = find_all_inputs(texts, find)
    num_absent = len(problems)
    if not inputs:
        raise DatasetError("; ".join(problems))
    model = load(options.weights, adapt, options.device)
    from detection.inference.drawing import draw_media

    try:
        draw_media(
            model,
            inputs,
            options.output,
            max_frames=options.max_frames,
            tracking=tracking,
            on_drawn=say,
            on_error=lambda error: problems.append(str(error)),
            progress=frame_bar,
        )
    finally:
        for problem in problems:
            print_error(f"error: {problem}")
    return exit_code(len(problems), len(inputs) + num_absent)


def exit_code(num_failed: int, num_inputs: int, done: str = "drawn") -> int:
    """0, or 1 if some of the inputs failed, 2 if all did, after saying how many; `done` is what was done to the others."""
    if num_failed == 0:
        return 0
    others = f"the others are {done}" if num_failed < num_inputs else f"none is {done} whole"
    print_error(f"error: {num_failed} of {num_inputs} inputs could not be used; {others}")
    return SOME_FAILED if num_failed < num_inputs else USER_MISTAKE


def load(weights: Path | None, adapt: Callable[[Config], Config], device: str) -> Detector:
    """The detector to draw with, by what `adapt` makes of its config, on that device. Raises ConfigError or CheckpointError."""
    if weights is not None:
        return _load(weights, adapt, device, "")
    trained = find_trained_weights(QUICKSTART_WEIGHTS.parent)
    if trained is not None:
        return _load(trained, adapt, device, ", the quickstart's (--weights names others)")
    # Only now: torch is slow to load.
    from detection.weights.zoo import STANDARD_DETECTOR

    try:
        return _load(Path(STANDARD_DETECTOR), adapt, device, " (--weights names others)")
    except CheckpointError as error:
        raise CheckpointError(f"{error}; or train the quickstart's detector with `make run`") from None


def _load(weights: Path, adapt: Callable[[Config], Config], device: str, remark: str) -> Detector:
    from detection.inference.detector import load_detector

    model = load_detector(weights, adapt, device, find_weights=partial(fetch_weights, kind="detector"))
    say(f"weights: {weights}{remark}")
    return model


def load_exported(weights: Path | None, adapt: Callable[[Config], Config], runtime: RuntimeName) -> ExportedDetector:
    """The detector of a file that `resdet export` wrote, by what `adapt` makes of its settings, run by another program.

    Raises ConfigError or CheckpointError.
    """
    if weights is None or weights.suffix != ".onnx":
        given = "" if weights is None else f", not {shorten(str(weights))}"
        raise ConfigError(f"--runtime {runtime} runs what `resdet export` writes: give --weights FILE.onnx{given}")
    from detection.export import load_exported

    model = load_exported(weights, adapt, runtime=runtime)
    say(f"weights: {weights}, run by {'onnxruntime' if runtime == 'onnx' else 'OpenVINO'}")
    return model


def frame_bar(frames: Iterator[T], total: int | None, name: str) -> Iterable[T]:
    """A bar on a terminal, nothing elsewhere."""
    with progress_bar(new_console(stderr=True)) as progress:
        yield from progress.track(frames, total, description=printable(name))
