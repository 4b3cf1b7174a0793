"""Train the detector of a config: RPN and Fast R-CNN together, or in the paper's four alternating steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from backbones.modes import own_defaults
from detection.config import Config, load_config
from detection.data.augmentations import build_augmentation
from detection.data.catalog import Dataset
from detection.data.settle import Tell
from detection.engine.advice import advise_frozen
from detection.engine.callbacks import Callback
from detection.engine.distributed import World, on_main
from detection.engine.folder import hold_folder
from detection.engine.group import process_group
from detection.engine.result import TrainResult
from detection.engine.state import require_no_other_run
from detection.inference.detector import build_detector
from detection.training.alternating import train_alternating
from detection.training.fit import RunOptions, fit, load_settled_data, settle_data
from detection.training.result import DetectorResult
from detection.weights.checkpoint import initialise_detector
from detection.weights.zoo import resolve_weights

logger = logging.getLogger(__name__)


def train_detector(
    config: Config | str | Path,
    *,
    training: Dataset | None = None,
    validation: Dataset | None = None,
    resume: bool = False,
    device: torch.device | str = "auto",
    tell: Tell = logger.info,
    callbacks: Sequence[Callback] = (),
    find_weights: Callable[[Path], Path] = resolve_weights,
) -> DetectorResult:
    """Train the detector of a config; its checkpoints (last.pt, best.pt) and log are kept in `config.output_dir`.

    `config` may be the path of a YAML file, or a packaged config "resdet:NAME". The result has the trained `detector`.
    `training` and `validation` are data sets in place of the config's `data.train` and `data.val`; without either
    validation split nothing is evaluated, and there is no best.pt. A new run starts from `model.weights`, a file or a name
    of the zoo, which `find_weights` turns into a file. With `resume` the run in `output_dir` goes on from its last.pt; a
    finished one returns its result at once. `device`: cpu, cuda, cuda:1, mps, xpu, or auto for the GPU if there is one; under
    torchrun, where each process calls this, auto and cuda are each process's own GPU. `tell` gets the sentences that precede
    the run's own log. `callbacks` are called on rank 0 as the run goes on (`detection.engine.callbacks`).

    `output_dir` is held from before anything in it is read until the end: no second run may use it meanwhile.

    Raises BackboneError, ConfigError, DatasetError, CheckpointError, or TrainingError where `output_dir` is in use or holds
    another run, nothing can be resumed, or the loss is no longer finite. Under torchrun all processes raise what one does.
    """
    if not isinstance(config, Config):
        config = load_config(config)
    build_augmentation(config.data.augmentations)  # a mistake shows before weights and annotations are read
    world = World.from_environment(device)
    options = RunOptions(training, validation, resume, tell, callbacks, find_weights)
    with own_defaults(grad=True), process_group(world, config.train), hold_folder(world, config.output_dir):
        config = settle_data(config, world, tell)
        train = train_alternating if config.approach == "alternating" else _train_jointly
        result = train(config, world, options)
    return DetectorResult(**vars(result))


def _train_jointly(config: Config, world: World, options: RunOptions) -> TrainResult:
    """Train RPN and Fast R-CNN together, in a folder that is held."""
    resume, tell = options.resume, options.tell
    # A folder in use and a wrong name of weights show at once, not after the annotations are read.
    if not resume:
        on_main(world, lambda: require_no_other_run(config.output_dir))
    weights = None if config.model.weights is None or resume else options.find_weights(config.model.weights)
    config, data = load_settled_data(config, world, options, [config.output_dir])
    torch.manual_seed(config.train.seed)
    model = build_detector(config)
    if weights is not None:
        tell(initialise_detector(model, weights))
    elif not resume:
        for sentence in advise_frozen(config.model):
            tell(sentence)
    return fit(model, data, config.output_dir, world=world, resume=resume, callbacks=options.callbacks)
