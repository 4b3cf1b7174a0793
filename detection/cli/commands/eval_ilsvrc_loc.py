"""ImageNet CLS-LOC's errors, of submitted files or of trained localisers.

A file has a line per image, of up to five groups "label xmin ymin xmax ymax". Localisers are measured on their config's
`data.val`: the boxes of the true class, and with a classifier those of its best five classes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from detection.cli.arguments import CommandParser, any_path, output_file
from detection.cli.options import add_device_argument, is_override, require_distinct, require_nothing_replaced
from detection.cli.output import fetch_weights, progress_bar, say
from detection.config import load_loc_config, override_config
from detection.errors import ConfigError
from detection.files import find_trained_weights
from detection.terminal import new_console

if TYPE_CHECKING:
    from detection.config import LocConfig
    from detection.evaluation.ilsvrc import LocResult
    from detection.localisation.submission import LocEvaluation, ReportStage

_OF_MODELS = ("config", "weights", "rcnn", "classifier", "output", "overrides")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(prog=f"{Path(sys.argv[0]).name} loc", description=__doc__)
    parser.add_argument("--detections", type=any_path, metavar="FILE", help="what was found, as it is submitted")
    parser.add_argument(
        "--devkit",
        type=any_path,
        metavar="DIR",
        help="with --detections: the development kit, whose data/ has maps, ground truth",
    )
    parser.add_argument("--config", type=any_path, metavar="FILE", help="the experiment; default: the checkpoint's own")
    several = "several: their mean"
    parser.add_argument(
        "--weights",
        type=any_path,
        nargs="+",
        metavar="FILE",
        help=f"an RPN's checkpoint, {several}; default: both stages of the config's output_dir",
    )
    parser.add_argument("--rcnn", type=any_path, nargs="+", metavar="FILE", help=f"an R-CNN's checkpoint, {several}")
    parser.add_argument(
        "--classifier",
        type=any_path,
        nargs="+",
        metavar="FILE",
        help=f"a classifier's checkpoint or a name of the zoo, {several}; default: the config's classifier.weights",
    )
    parser.add_argument("--output", type=output_file, metavar="FILE", help="write the guesses, as they are submitted")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the numbers")
    add_device_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. test.flip=true")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, write, print."""
    options = _parse(argv)
    require_distinct(options, ["detections", "config", "weights", "rcnn", "classifier", "output", "json"])
    return _evaluate_files(options) if options.detections is not None else _evaluate_models(options)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; overrides may stand anywhere. Raises ConfigError where those of files and of models are mixed."""
    options = build_parser().parse_intermixed_args(argv)
    for name in ("weights", "rcnn", "classifier"):
        found = getattr(options, name) or []
        options.overrides += [str(each) for each in found if is_override(each)]
        setattr(options, name, [each for each in found if not is_override(each)])
    if options.detections is not None:
        given = next((name for name in _OF_MODELS if getattr(options, name)), None)
        if given is not None:
            flag = given if given == "overrides" else f"--{given}"
            raise ConfigError(f"--detections evaluates files, {flag} localisers: give one of the two")
        if options.devkit is None:
            raise ConfigError("--detections needs --devkit DIR, the ground truth to compare with")
    elif options.config is None and not options.weights:
        raise ConfigError("what is to be evaluated? Give --detections and --devkit, or --config, or --weights")
    elif options.devkit is not None:
        raise ConfigError("--devkit goes with --detections; for localisers it is data.devkit of the config")
    return options


def _evaluate_files(options: argparse.Namespace) -> int:
    from detection.data.ilsvrc_devkit import kit_files
    from detection.evaluation.ilsvrc_files import evaluate_loc_files
    from detection.files import write_json

    require_nothing_replaced(options, ["json"], kit_files(options.devkit))
    result = evaluate_loc_files(options.devkit, options.detections)
    # The file first: a terminal may fail.
    if options.json:
        write_json(options.json, result.as_json())
    new_console().print(loc_table(result))
    return 0


def _evaluate_models(options: argparse.Namespace) -> int:
    from detection.files import write_json
    from detection.localisation.checkpoints import load_rpn
    from detection.localisation.submission import evaluate_localiser, write_submission

    config = load_loc_config(options.config, options.overrides) if options.config else None
    rpns = options.weights or [_stage(config, "rpn")]
    # The R-CNN of the same run, unless other files are named.
    rcnns = options.rcnn or ([] if options.weights else [_stage(config, "rcnn")])
    if config is None:
        config = override_config(load_rpn(rpns[0]).config, options.overrides)
    classifiers = options.classifier or list(config.classifier.weights)
    if options.output is not None and not classifiers:
        raise ConfigError("--output writes guesses of classes, which a classifier makes: give --classifier FILE")
    require_nothing_replaced(options, ["output", "json"], [*rpns, *rcnns, *classifiers], [config.data])
    console = new_console(stderr=True)
    with _progress(console) as report:
        found = evaluate_localiser(
            config,
            rpns,
            rcnns,
            [fetch_weights(path, "classifier") for path in classifiers],
            device=options.device,
            report=report,
        )
    if options.output is not None and found.guesses is not None:
        write_submission(options.output, found.guesses, found.images, config)
    if options.json:
        write_json(options.json, found.as_json())
    _show(found, config)
    return 0


def _stage(config: LocConfig | None, name: str) -> Path:
    """The best checkpoint of a stage of the config's run, or else its last. Raises ConfigError."""
    assert config is not None
    found = find_trained_weights(config.output_dir / name)
    if found is None:
        raise ConfigError(f"there is no {config.output_dir / name / 'best.pt'}: train it first, or give --weights FILE")
    return found


@contextmanager
def _progress(console: Console) -> Iterator[ReportStage]:
    with progress_bar(console) as progress:
        task = progress.add_task("localising", total=None)
        yield lambda action, done, total: progress.update(task, description=action, completed=done, total=total)


def _show(found: LocEvaluation, config: LocConfig) -> None:
    say(f"{config.data.val.list}, {config.test.views}: {len(found.images)} images")
    say(f"error of the true class's box: {found.gt_class_error:.2%}")
    if found.errors is not None:
        new_console().print(loc_table(found.errors))


def loc_table(result: LocResult) -> Table:
    """The errors by the number of guesses."""
    table = Table(title="ImageNet CLS-LOC, errors in per cent")
    table.add_column("")
    numbers = range(1, len(result.localisation_error) + 1)
    for number in numbers:
        table.add_column(f"top {number}", justify="right")
    for title, errors in (("localisation", result.localisation_error), ("classification", result.classification_error)):
        table.add_row(title, *(f"{100 * error:.2f}" for error in errors))
    table.add_row("true class, its first box", f"{100 * result.gt_class_error:.2f}", *("" for _ in numbers[1:]))
    return table
