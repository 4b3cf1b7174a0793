"""What `resdet demo` and `resdet track` share: options, the model, drawing all inputs, and the exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.errors import printable
from detection.cli.arguments import any_path, fraction, output_folder, whole_number
from detection.cli.main import SOME_FAILED, USER_MISTAKE
from detection.cli.options import QUICKSTART_WEIGHTS, is_override, load_model
from detection.cli.output import progress_bar, say
from detection.errors import CheckpointError, ConfigError, DatasetError
from detection.files import find_trained_weights
from detection.terminal import new_console, print_error

if TYPE_CHECKING:
    from detection.data.frames import TimedFrame
    from detection.data.media import MediaInput
    from detection.inference.detector import Detector
    from detection.inference.ensemble import Ensemble
    from detection.inference.painting import Tracking


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
    parser.add_argument("--score-threshold", type=fraction, default=0.5, metavar="T", help="0 to 1; default: %(default)s")
    parser.add_argument(
        "--max-frames", type=whole_number(1), metavar="N", help="of each video or camera; default: to the end, or Ctrl-C"
    )


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
    inputs, problems = find_all_inputs(texts, find)
    num_absent = len(problems)
    if not inputs:
        raise DatasetError("; ".join(problems))
    model = load(options.weights, [f"test.score_threshold={options.score_threshold}", *overrides])
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


def load(weights: Path | None, overrides: Sequence[str]) -> Detector | Ensemble:
    """The detector to draw with. Raises ConfigError or CheckpointError."""
    if weights is not None:
        return _load(weights, overrides, "")
    trained = find_trained_weights(QUICKSTART_WEIGHTS.parent)
    if trained is not None:
        return _load(trained, overrides, ", the quickstart's (--weights names others)")
    # Only now: torch is slow to load.
    from detection.weights.zoo import STANDARD_DETECTOR

    try:
        return _load(Path(STANDARD_DETECTOR), overrides, " (--weights names others)")
    except CheckpointError as error:
        raise CheckpointError(f"{error}; or train the quickstart's detector with `make run`") from None


def _load(weights: Path, overrides: Sequence[str], remark: str) -> Detector | Ensemble:
    model, name = load_model(argparse.Namespace(config=None, weights=[weights], overrides=overrides))
    say(f"weights: {name}{remark}")
    return model


def frame_bar(frames: Iterator[TimedFrame], total: int | None, name: str) -> Iterable[TimedFrame]:
    """A bar on a terminal, nothing elsewhere."""
    with progress_bar(new_console(stderr=True)) as progress:
        yield from progress.track(frames, total, description=printable(name))
