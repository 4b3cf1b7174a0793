"""Localisation from a classifier to the table of errors (appendix C): the RPN, its proposals, the R-CNN, the evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from backbones import Preprocessing
from backbones.modes import own_defaults
from backbones.weights.files import load_state
from detection.config import LocConfig, load_loc_config, with_weights
from detection.data.augmentations import build_augmentation
from detection.data.settle import Tell
from detection.engine.advice import advise_frozen
from detection.engine.callbacks import Callback
from detection.engine.distributed import World, on_main, reduce_max
from detection.engine.folder import hold_folder
from detection.engine.group import process_group
from detection.engine.result import TrainResult
from detection.engine.signals import StopSignals
from detection.engine.state import LAST, require_no_other_run, require_same_settings
from detection.errors import CheckpointError, ConfigError, TrainingError
from detection.files import find_trained_weights
from detection.localisation.checkpoints import LocKind, Network, loc_config_of, loc_metadata
from detection.localisation.classes import guess_classes, load_classifiers
from detection.localisation.fit import LocTraining, train_rcnn, train_rpn
from detection.localisation.images import LocImages, read_loc_images
from detection.localisation.networks import LocRcnn, LocRpn, build_rcnn, build_rpn
from detection.localisation.proposal_store import INDEX, StoredProposals
from detection.localisation.proposals import write_proposals
from detection.localisation.results import (
    RESULTS,
    LocRow,
    baseline_rows,
    measure_rows,
    read_rows,
    write_results,
)
from detection.pretraining.data import fill_sizes
from detection.pretraining.model import OtherClassesError
from detection.weights.checkpoint import read_checkpoint
from detection.weights.zoo import find_classifier

logger = logging.getLogger(__name__)

RPN, PROPOSALS, RCNN = "rpn", "proposals", "rcnn"
"""Where the stages lie in the output folder."""


@dataclass(frozen=True)
class LocTrainResult:
    """How a chain of stages ended."""

    output_dir: Path
    rows: list[LocRow] = field(default_factory=list)  # the table of errors; empty where a stage was stopped
    stage: str = RESULTS  # the last one that was worked on
    steps: int = 0  # of that stage, if it is a training
    signal: int | None = None  # what stopped it
    stopped_by: str | None = None  # the callback that asked for the end, and why

    @property
    def interrupted(self) -> bool:
        """Whether a signal, or the end of its output's reader, ended it before the table was written."""
        return self.signal is not None


def train_localiser(
    config: LocConfig | str | Path,
    *,
    resume: bool = False,
    device: torch.device | str = "auto",
    tell: Tell = logger.info,
    callbacks: Sequence[Callback] = (),
    find_weights: Callable[[Path], Path] = find_classifier,
) -> LocTrainResult:
    """Train both stages of a localisation experiment and measure them; all of it is kept in `config.output_dir`.

    `rpn/` and `rcnn/` are runs as a detector's, `proposals/` is what the first gives the second to learn from, and
    `results.json` the table of errors on `data.val`. `config` may be the path of a YAML file, or a packaged config
    "resdet:NAME". Both stages start from `model.weights`, a classifier's file or a name of the zoo, which `find_weights` turns
    into a file. With `resume` a stage that was stopped goes on, and none that is finished is repeated. `device` is as
    `train_detector`'s. `tell` gets the sentences that precede the runs' own logs; `callbacks` are called on rank 0 in both
    runs. Under torchrun each process calls this; all of them must see `output_dir`.

    `output_dir` is held from before anything in it is read until the end. Raises BackboneError, ConfigError, DatasetError,
    CheckpointError or TrainingError; under torchrun all processes raise what one does.
    """
    if not isinstance(config, LocConfig):
        config = load_loc_config(config)
    _require_usable(config)
    world = World.from_environment(device)
    with own_defaults(grad=True), process_group(world, config.rpn_train), hold_folder(world, config.output_dir):
        return _train_localiser(config, world, resume=resume, tell=tell, callbacks=callbacks, find_weights=find_weights)


def _require_usable(config: LocConfig) -> None:
    """Raise ConfigError for settings that a stage cannot work with: before anything is read."""
    build_augmentation(fill_sizes(config.data.augmentations, config.data.image_size))
    if config.rcnn_train.validation_losses > 0:
        raise ConfigError(
            f"rcnn_train.validation_losses is {config.rcnn_train.validation_losses}, but there are no stored proposals of "
            "the validation images to measure losses on: leave it 0"
        )


def _train_localiser(
    config: LocConfig,
    world: World,
    *,
    resume: bool,
    tell: Tell,
    callbacks: Sequence[Callback],
    find_weights: Callable[[Path], Path],
) -> LocTrainResult:
    """`train_localiser` in a folder that is held."""
    begun = on_main(world, lambda: _find_begun(config.output_dir, resume))
    config = with_weights(config, config.model.weights or begun.weights)
    # Before the data: a wrong name shows at once, not after the annotations are read, or even the stages trained.
    weights = None if config.model.weights is None else find_weights(config.model.weights)
    named = [find_weights(path) for path in config.classifier.weights]
    training, validation = _read_images(config, tell)
    classifiers = on_main(world, lambda: _usable_classifiers(config, named, weights, training, tell))
    for sentence in [] if resume else advise_frozen(config.model):
        tell(sentence)
    setup = LocTraining(config, training, validation, weights, tell, callbacks, world)
    rpn = _rpn_stage(setup, begun, resume)
    if isinstance(rpn, LocTrainResult):
        return rpn
    proposals = _proposal_stage(setup, rpn)
    if isinstance(proposals, LocTrainResult):
        return proposals
    rcnn = _rcnn_stage(setup, rpn, proposals, begun)
    if isinstance(rcnn, LocTrainResult):
        return rcnn
    return LocTrainResult(config.output_dir, _evaluation_stage(setup, rpn, rcnn, classifiers, begun))


def _read_images(config: LocConfig, tell: Tell) -> tuple[LocImages, LocImages]:
    """Those of `data.train` and `data.val`. Raises DatasetError."""
    training, validation = read_loc_images(config.data, config.data.train), read_loc_images(config.data, config.data.val)
    for name, images in (("train", training), ("val", validation)):
        tell(f"{name}: {len(images)} images of {len(images.class_names)} classes, {len(images.boxes)} boxes")
    return training, validation


def _rpn_stage(setup: LocTraining, begun: _Begun, resume: bool) -> LocRpn | LocTrainResult:
    """The trained RPN, or how the chain ended before there was one."""
    config, folder = setup.config, setup.config.output_dir / RPN
    rpn = build_rpn(config, setup.class_names)
    if begun.proposals:
        on_main(setup.world, lambda: require_same_settings(folder / LAST, loc_metadata(rpn, "loc_rpn")))
    else:
        setup.tell("stage 1 of 3: the RPN")
        ended = train_rpn(setup, folder, resume=resume)
        if is_stopped(ended):
            return _stopped(config, RPN, ended)
    return _load_stage(rpn, folder, "loc_rpn", setup.world)


def _proposal_stage(setup: LocTraining, rpn: LocRpn) -> StoredProposals | LocTrainResult:
    """The RPN's proposals of all training images, or how the chain ended before they were written."""
    config, world = setup.config, setup.world
    folder = config.output_dir / PROPOSALS
    setup.tell(f"stage 2 of 3: the RPN's proposals, {config.rcnn.num_proposals} of each training image's class")
    with StopSignals() as stop:
        write_proposals(
            [rpn],
            setup.training,
            config,
            folder,
            world=world,
            should_stop=lambda: stop.received is not None,
            tell=setup.tell,
        )
    # The signal may have stopped any of the processes.
    signal = reduce_max(world, [stop.received or 0])[0] or None
    if signal is not None:
        return LocTrainResult(config.output_dir, stage=PROPOSALS, signal=signal)
    return StoredProposals.open(folder, setup.training)


def _rcnn_stage(setup: LocTraining, rpn: LocRpn, proposals: StoredProposals, begun: _Begun) -> LocRcnn | LocTrainResult:
    """The trained R-CNN, or how the chain ended before there was one."""
    config, folder = setup.config, setup.config.output_dir / RCNN
    setup.tell("stage 3 of 3: the R-CNN on these proposals")
    ended = train_rcnn(setup, rpn, proposals, folder, resume=begun.rcnn)
    if is_stopped(ended):
        return _stopped(config, RCNN, ended)
    return _load_stage(build_rcnn(config, setup.class_names), folder, "loc_rcnn", setup.world)


def _evaluation_stage(
    setup: LocTraining, rpn: LocRpn, rcnn: LocRcnn, classifiers: Sequence[Path], begun: _Begun
) -> list[LocRow]:
    """The table: what is reached without looking, and by both stages. One that is written already is not measured again."""
    config, world, images = setup.config, setup.world, setup.validation
    file = config.output_dir / RESULTS
    written = on_main(world, lambda: read_rows(file, config) if begun.rcnn else None)
    if written is not None:
        return written
    setup.tell(f"evaluation on {len(images)} images")
    guessed = on_main(world, lambda: guess_classes(classifiers, images, config, world.device))
    rows = baseline_rows(setup.training, images, guessed) + measure_rows(world, [rpn], [rcnn], images, config, guessed)
    on_main(world, lambda: write_results(file, rows, images, config))
    return rows


@dataclass(frozen=True)
class _Begun:
    """What of a chain there is already."""

    proposals: bool = False  # the RPN is finished then: it stays as it is, since they were made with it
    rcnn: bool = False
    weights: Path | None = None  # what the RPN started from


def _find_begun(output_dir: Path, resume: bool) -> _Begun:
    """What there is to go on with. Raises TrainingError where a new chain would overwrite another."""
    if resume:
        rpn = output_dir / RPN / LAST
        weights = None
        if rpn.exists():
            weights = loc_config_of(read_checkpoint(rpn, "loc_rpn"), rpn).model.weights
        return _Begun((output_dir / PROPOSALS / INDEX).exists(), (output_dir / RCNN / LAST).exists(), weights)
    require_no_other_localiser(output_dir)
    return _Begun()


def stage_folders(output_dir: Path) -> list[Path]:
    """Where a chain writes: the output folder, and its stages in it."""
    return [output_dir, *(output_dir / stage for stage in (RPN, PROPOSALS, RCNN))]


def require_no_other_localiser(output_dir: Path) -> None:
    """Raise TrainingError where a new chain would overwrite one of its stages."""
    for stage in (RPN, RCNN):
        require_no_other_run(output_dir / stage)
    for name in (f"{PROPOSALS}/{INDEX}", RESULTS):
        if (output_dir / name).exists():
            raise TrainingError(
                f"{output_dir} holds another run ({name}): resume it (--resume), or choose another output folder (--output-dir)"
            )


def _usable_classifiers(
    config: LocConfig, named: Sequence[Path], weights: Path | None, training: LocImages, tell: Tell
) -> list[Path]:
    """The classifiers whose classes are localised: those that are named, or `model.weights` where they can say classes.

    Raises CheckpointError for named ones that do not fit.
    """
    if named:
        load_classifiers(named, config, training.class_names)
        return list(named)
    reason = "there is no classifier (classifier.weights, model.weights)"
    if weights is not None:
        try:
            load_classifiers([weights], config, training.class_names)
            return [weights]
        except OtherClassesError:
            reason = f"{weights} does not classify these {len(training.class_names)} classes"
    tell(f"{reason}: only errors of the true class's box will be measured, not those of five guesses")
    return []


def is_stopped(ended: TrainResult) -> bool:
    """Whether no further stage is to begin; one that is out of patience is finished."""
    return ended.interrupted or ended.asked_to_stop is not None


def _stopped(config: LocConfig, stage: str, ended: TrainResult) -> LocTrainResult:
    return LocTrainResult(
        config.output_dir, stage=stage, steps=ended.steps, signal=ended.signal, stopped_by=ended.asked_to_stop
    )


def _load_stage(model: Network, folder: Path, kind: LocKind, world: World) -> Network:
    """Give a network a stage's best weights, or its last, and move it to the device. Rank 0 reads them."""

    def read() -> tuple[Mapping[str, Tensor], Preprocessing]:
        path = find_trained_weights(folder)
        if path is None:
            raise CheckpointError(f"{folder} holds neither best.pt nor last.pt: bring it back, or start a new run")
        checkpoint = read_checkpoint(path, kind)
        return checkpoint.state, checkpoint.metadata.preprocessing

    state, preprocessing = on_main(world, read)
    load_state(model, state, str(folder))
    model.preprocessing = preprocessing
    return model.to(world.device).eval()
