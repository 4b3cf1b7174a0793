"""The two trainings of localisation (appendix C), each a run of the one loop: the per-class RPN, and the R-CNN."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from detection.config import LocConfig, TrainConfig
from detection.data.settle import Tell
from detection.engine.callbacks import Callback
from detection.engine.distributed import World
from detection.engine.result import TrainResult
from detection.engine.run import Validation
from detection.engine.train import train
from detection.evaluation.metrics import METRICS
from detection.localisation.batches import RoiBatch, RpnBatch, rcnn_loader, rpn_loader
from detection.localisation.checkpoints import Network, loc_metadata
from detection.localisation.evaluate import centre_view, gt_class_error, localise_images, true_classes
from detection.localisation.images import LocImages
from detection.localisation.networks import LocRcnn, LocRpn, build_rcnn, build_rpn, initialise
from detection.localisation.proposal_store import StoredProposals
from detection.localisation.warping import mean_colour

logger = logging.getLogger(__name__)

BEST_METRIC = "gt_class_error"
"""best.pt holds the weights that are best by this metric, a key of METRICS."""


@dataclass(frozen=True)
class LocTraining:
    """What both trainings start from, learn from and are measured on."""

    config: LocConfig
    training: LocImages
    validation: LocImages
    weights: Path | None = None  # a classifier's; None: random numbers
    tell: Tell = logger.info  # gets the sentences that precede a run's own log
    callbacks: Sequence[Callback] = ()  # called on rank 0
    world: World = field(default_factory=World.from_environment)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The WNIDs of the K classes, in the order of the labels."""
        return self.training.class_names


def train_rpn(setup: LocTraining, output_dir: Path, *, resume: bool = False) -> TrainResult:
    """Train the per-class RPN; its checkpoints and log are in `output_dir`. With `resume` the run there goes on.

    While it trains it is measured by the error of the true class's box on the centre view of the validation images. Raises
    what `detection.engine.train.train` raises, and CheckpointError for weights that do not fit.
    """
    config, world = setup.config, setup.world
    model = _build(setup, build_rpn, config.rpn_train, resume)

    def evaluate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, LocRpn)
        return _measure(network, [], setup.validation, config)

    measures_losses = config.rpn_train.validation_losses > 0
    return train(
        model,
        partial(rpn_loader, setup.training, config, rank=world.rank, world_size=world.size),
        config.rpn_train,
        output_dir,
        metadata=loc_metadata(model, "loc_rpn"),
        world=world,
        validation=_validation(evaluate, partial(_validation_batches, setup.validation, config) if measures_losses else None),
        resume=resume,
        callbacks=setup.callbacks,
    )


def train_rcnn(
    setup: LocTraining, rpn: LocRpn, proposals: StoredProposals, output_dir: Path, *, resume: bool = False
) -> TrainResult:
    """Train the R-CNN on the RPN's stored proposals of the training images, as `train_rpn` trains the RPN.

    While it trains it is measured on the proposals that the RPN makes of the validation images' centre view.
    """
    config, world = setup.config, setup.world
    model = _build(setup, build_rcnn, config.rcnn_train, resume)
    rpn = rpn.to(world.device)

    def make_batches(first: int) -> Iterable[RoiBatch]:
        # A resumed run has its preprocessing, and so this colour, from its checkpoint.
        fill = mean_colour(model.preprocessing)
        return rcnn_loader(setup.training, proposals, config, first, fill=fill, rank=world.rank, world_size=world.size)

    def evaluate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, LocRcnn)
        return _measure(rpn, [network], setup.validation, config)

    return train(
        model,
        make_batches,
        config.rcnn_train,
        output_dir,
        metadata=loc_metadata(model, "loc_rcnn"),
        world=world,
        validation=_validation(evaluate),
        resume=resume,
        callbacks=setup.callbacks,
    )


def _build(
    setup: LocTraining, build: Callable[[LocConfig, Sequence[str]], Network], solver: TrainConfig, resume: bool
) -> Network:
    """A stage's network as its training begins; one that is resumed gets its weights later."""
    torch.manual_seed(solver.seed)
    model = build(setup.config, setup.class_names)
    if setup.weights is not None and not resume:
        setup.tell(initialise(model, setup.weights))
    return model


def _validation(
    evaluate: Callable[[nn.Module], dict[str, float]], batches: Callable[[], Iterable[RpnBatch]] | None = None
) -> Validation:
    return Validation.on_main(evaluate, BEST_METRIC, METRICS[BEST_METRIC].higher_is_better, batches)


def _measure(rpn: LocRpn, rcnns: Sequence[LocRcnn], images: LocImages, config: LocConfig) -> dict[str, float]:
    found = localise_images([rpn], rcnns, images, centre_view(config), true_classes(images))
    return {BEST_METRIC: gt_class_error(images, found.final[:, 0])}


def _validation_batches(images: LocImages, config: LocConfig) -> Iterator[RpnBatch]:
    """The batches of `rpn_train.validation_losses` crops, drawn as in training. The same ones at each call."""
    train = config.rpn_train
    return islice(rpn_loader(images, config), -(-train.validation_losses // train.micro_batch))
