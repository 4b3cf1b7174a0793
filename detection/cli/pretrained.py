"""--pretrain: the classifier that a training starts from is trained first, in the same processes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from backbones.errors import printable
from detection.cli.arguments import any_path
from detection.cli.output import fetch_weights, tell, tell_stopped
from detection.config import ClassifierConfig, Config, LocConfig, TrainConfig, load_classifier_config, with_weights
from detection.errors import ConfigError

if TYPE_CHECKING:
    from detection.engine.callbacks import Callback

ConfigT = TypeVar("ConfigT", Config, LocConfig)


def add_pretrain_argument(parser: argparse.ArgumentParser, what_starts: str) -> None:
    """--pretrain, for `train_after_classifier`."""
    parser.add_argument(
        "--pretrain",
        type=any_path,
        metavar="FILE",
        help=f"a classifier's config: train that first, and start {what_starts} from it",
    )


def train_after_classifier(
    options: argparse.Namespace,
    config: ConfigT,
    solver: TrainConfig,
    *,
    folders: Sequence[Path],
    require_no_other_run: Callable[[], None],
    callbacks: Sequence[Callback],
    train: Callable[[ConfigT], int],
) -> int:
    """Call `train`, and where --pretrain names a classifier's config, train that before, or go on with its run.

    Then `train` is given the config with the classifier's weights. Returns the exit code: that of `train`, or of the signal
    that stopped the classifier. `solver` has the time-outs of the processes, `folders` are those of the runs that `train`
    makes, and `require_no_other_run` raises TrainingError where one of them is taken. Raises ConfigError where the classifier
    would have one of them, too, and what the trainings raise.
    """
    if options.pretrain is None or options.resume:
        return train(config)
    if options.weights is not None:
        raise ConfigError("--pretrain makes the weights to start from, --weights names them: give one of the two")
    classifier = load_classifier_config(options.pretrain)
    require_own_folder(classifier, options.pretrain, folders)
    from detection.engine.distributed import World, on_main
    from detection.engine.folder import hold_folder
    from detection.engine.group import process_group
    from detection.engine.state import has_begun
    from detection.pretraining import train_classifier

    world = World.from_environment(options.device)
    with process_group(world, solver), hold_folder(world, config.output_dir):
        on_main(world, require_no_other_run)  # now, not after the classifier's hours
        begun = on_main(world, lambda: has_begun(classifier.output_dir))
        find_weights = partial(fetch_weights, kind="classifier")
        made = train_classifier(
            classifier, resume=begun, device=options.device, tell=tell, callbacks=callbacks, find_weights=find_weights
        )
        if made.training.signal is not None:
            # Not with --resume, which goes on with the training after this one.
            return tell_stopped(made.training.signal, f"at the classifier's step {made.training.steps}", "again")
        return train(with_weights(config, made.weights))


def require_own_folder(classifier: ClassifierConfig, file: Path, folders: Sequence[Path]) -> None:
    """Raise ConfigError where the output folder of a classifier, whose config is `file`, is among the folders of other runs."""
    own = os.path.realpath(classifier.output_dir)
    taken = next((folder for folder in folders if os.path.realpath(folder) == own), None)
    if taken is not None:
        raise ConfigError(
            f"output_dir of {printable(str(file))} is {printable(str(taken))}, where a run lies that starts from it: "
            "each run needs a folder to itself; name another (--output-dir)"
        )
