"""--pretrain: the classifier that a training starts from is trained first, in the same processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from backbones.errors import printable
from detection.cli.output import exit_code_if_stopped, tell
from detection.config import Config, LocConfig, TrainConfig, load_classifier_config, with_weights
from detection.errors import ConfigError

if TYPE_CHECKING:
    from detection.trackers import Tracker

ConfigT = TypeVar("ConfigT", Config, LocConfig)


def pretrain_first(
    pretrain: Path,
    config: ConfigT,
    solver: TrainConfig,
    trackers: Sequence[Tracker],
    *,
    require_no_other_run: Callable[[Path], None],
    train: Callable[[ConfigT], int],
) -> int:
    """Train the classifier of the config `pretrain`, or go on with its run, then call `train` with its weights in the config.

    Returns the exit code: that of `train`, or of the signal that stopped the classifier. `solver` has the time-outs of the
    processes; `require_no_other_run` raises TrainingError for an output folder that is taken. Raises ConfigError where both
    runs would have one folder, and what the trainings raise.
    """
    pretrain_config = load_classifier_config(pretrain)
    if os.path.realpath(pretrain_config.output_dir) == os.path.realpath(config.output_dir):
        raise ConfigError(
            f"output_dir of {printable(str(pretrain))} is the detector's own, {printable(str(config.output_dir))}: "
            f"each run needs a folder to itself; give the detector another (--output-dir)"
        )
    from detection.engine.distributed import World, on_main
    from detection.engine.folder import hold_folder
    from detection.engine.group import process_group
    from detection.engine.state import has_begun
    from detection.pretraining import train_classifier

    world = World.from_environment()
    with process_group(world, solver), hold_folder(world, config.output_dir):
        on_main(world, lambda: require_no_other_run(config.output_dir))  # now, not after the classifier's hours
        begun = on_main(world, lambda: has_begun(pretrain_config.output_dir))
        classifier = train_classifier(pretrain_config, resume=begun, tell=tell, callbacks=trackers)
        if (code := exit_code_if_stopped(classifier.training)) is not None:
            return code
        return train(with_weights(config, classifier.weights))
