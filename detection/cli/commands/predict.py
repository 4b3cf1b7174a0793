"""Label images by what a detector finds, for a labelling program to import: labels to correct instead of boxes to draw.

Writes annotations.json (coco), labels/*.txt and classes.txt (yolo), Annotations/*.xml (voc), or tasks.json and config.xml
(labelstudio). `resdet demo` draws pictures instead.
"""

from __future__ import annotations

import argparse
import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.errors import printable, shorten
from detection.cli import drawing
from detection.cli.arguments import CommandParser, any_path, output_folder
from detection.cli.options import add_device_argument, is_override
from detection.cli.output import progress_bar, say
from detection.errors import ConfigError, DatasetError
from detection.terminal import new_console, print_error

if TYPE_CHECKING:
    from detection.config import Config
    from detection.inference.predictor import Predictor
    from detection.inference.prelabel import Prelabels


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image, folder or 'glob'; dotted.key=value, e.g. test.flip=true"
    )
    parser.add_argument("--format", required=True, choices=("coco", "yolo", "voc", "labelstudio"), help="of the labels")
    parser.add_argument(
        "--weights",
        type=any_path,
        metavar="FILE",
        help="a detector's checkpoint or a name of the zoo (docs/weights.md), with --runtime an .onnx file of `resdet export`; "
        "default: as of `resdet demo`",
    )
    parser.add_argument(
        "--runtime", choices=("onnx", "openvino"), help="what runs an exported detector: onnxruntime or OpenVINO, on the CPU"
    )
    parser.add_argument(
        "--output", type=output_folder, default=Path("runs/predict"), metavar="DIR", help="default: %(default)s"
    )
    drawing.add_threshold_argument(parser)
    add_device_argument(parser)
    parser.add_argument("--recursive", action="store_true", help="the sub-folders of folders, too")
    parser.add_argument(
        "--images",
        choices=("copy", "link", "none"),
        default="none",
        help="put the images beside the labels; link: hard links, which take no room; default: %(default)s, labels alone",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Label everything that can be read; what cannot is listed at the end. Returns 0, 1 if some inputs failed, 2 if all did."""
    options = build_parser().parse_intermixed_args(argv)
    overrides = [text for text in options.inputs if is_override(text)]
    texts = [text for text in options.inputs if text not in overrides]
    if not texts:
        raise ConfigError("give at least one image or folder to label")
    adapt = drawing.adapter(options.score_threshold, overrides)
    files, problems = find_images([below(text) for text in texts] if options.recursive else texts)
    num_inputs = len(files) + len(problems)
    if not files:
        raise DatasetError("; ".join(problems))
    model = load(options, adapt)
    from detection.inference.prelabel import prelabel

    try:
        with labelled_images(len(files)) as advance:
            done = prelabel(
                model,
                files,
                options.output,
                options.format,
                images=options.images,
                model_version=str(options.weights or "resdet"),
                on_labelled=lambda _: advance(),
                on_error=lambda error: problems.append(str(error)),
            )
        for line in describe(done, options.format):
            say(line)
    finally:
        for problem in problems:
            print_error(f"error: {problem}")
    return drawing.exit_code(len(problems), num_inputs, "labelled")


def load(options: argparse.Namespace, adapt: Callable[[Config], Config]) -> Predictor:
    """The detector of --weights, run by --runtime. Raises ConfigError or CheckpointError."""
    if options.runtime is not None:
        if options.device not in ("auto", "cpu"):
            raise ConfigError(f"--runtime computes on the CPU, and --device is {shorten(options.device)}: give one of the two")
        return drawing.load_exported(options.weights, adapt, options.runtime)
    if options.weights is not None and options.weights.suffix == ".onnx":
        name = printable(str(options.weights))
        raise ConfigError(f"{name} is an exported graph: say what runs it, --runtime onnx or --runtime openvino")
    return drawing.load(options.weights, adapt, options.device)


def below(text: str) -> str:
    """A folder as the glob of all that is in it and in its sub-folders; other inputs as they are."""
    return f"{glob.escape(text)}/**/*" if Path(text).is_dir() else text


def find_images(texts: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The image files that the inputs stand for, and a sentence for each input that cannot be used."""
    from detection.data.media import find_all_inputs

    inputs, problems = find_all_inputs(texts)
    films = [each for each in inputs if each.kind != "image"]
    if films:
        problems.append(f"{len(films)} videos or cameras are not labelled, `resdet demo` draws them; the first: {films[0]}")
    return [each.path for each in inputs if each.kind == "image"], problems


@contextmanager
def labelled_images(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere."""
    with progress_bar(new_console(stderr=True)) as progress:
        task = progress.add_task("labelling", total=total)
        yield lambda: progress.advance(task)


def describe(done: Prelabels, format: str) -> Iterator[str]:
    """What was written, and what a labelling program needs to know."""
    if done.num_kept:
        yield f"{done.num_kept} images have labels there already, which are left as they are"
    counts = ", ".join(f"{count} {name}" for name, count in done.num_objects.most_common()) or "nothing found"
    if done.num_images or not done.num_kept:
        yield f"{done.num_images} images: {printable(counts)} -> {done.folder}"
    if format == "labelstudio":
        root = printable(str(done.image_root.parent))
        yield (
            f"Label Studio finds the images with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}"
        )
