"""The two trainings of localisation (appendix C), each a run of the one loop: the per-class RPN, and the R-CNN."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from detection.config import LocConfig
from detection.engine.callbacks import Callback
from detection.engine.distributed import World
from detection.engine.result import TrainResult
from detection.engine.run import Validation
from detection.engine.train import train
from detection.evaluation.metrics import METRICS
from detection.localisation.batches import RoiBatch, RpnBatch, rcnn_loader, rpn_loader
from detection.localisation.checkpoints import loc_metadata
from detection.localisation.evaluate import centre_view, gt_class_error, localise_images, true_classes
from detection.localisation.images import LocImages
from detection.localisation.networks import LocRcnn, LocRpn, build_rcnn, build_rpn, initialise
from detection.localisation.proposal_store import StoredProposals
from detection.localisation.warping import mean_colour

logger = logging.getLogger(__name__)

BEST_METRIC = "gt_class_error"
"""best.pt holds the weights that are best by this metric, a key of METRICS."""

Tell = Callable[[str], object]


def train_rpn(
    config: LocConfig,
    training: LocImages,
    validation: LocImages,
    output_dir: Path,
    *,
    weights: Path | None = None,
    resume: bool = False,
    tell: Tell = logger.info,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train the per-class RPN, from a classifier's `weights` or random numbers; its checkpoints and log are in `output_dir`.

    While it trains it is measured by the error of the true class's box on the centre view of the validation images. Raises
    what `detection.engine.train.train` raises, and CheckpointError for weights that do not fit.
    """
    world = World.from_environment()
    torch.manual_seed(config.rpn_train.seed)
    model = build_rpn(config, training.class_names)
    if weights is not None and not resume:
        tell(initialise(model, weights))

    def evaluate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, LocRpn)
        return _measure(network, [], validation, config)

    return train(
        model,
        partial(rpn_loader, training, config, rank=world.rank, world_size=world.size),
        config.rpn_train,
        output_dir,
        metadata=loc_metadata(model, "loc_rpn"),
        validation=Validation.on_main(
            evaluate,
            best_metric=BEST_METRIC,
            higher_is_better=METRICS[BEST_METRIC].higher_is_better,
            batches=partial(_validation_batches, validation, config) if config.rpn_train.validation_losses > 0 else None,
        ),
        resume=resume,
        callbacks=callbacks,
    )


def train_rcnn(
    config: LocConfig,
    training: LocImages,
    validation: LocImages,
    proposals: StoredProposals,
    rpn: LocRpn,
    output_dir: Path,
    *,
    weights: Path | None = None,
    resume: bool = False,
    tell: Tell = logger.info,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train the R-CNN on the RPN's stored proposals of the training images, from a classifier's `weights` or random numbers.

    While it trains it is measured on the proposals that the RPN makes of the validation images' centre view. Raises what
    `detection.engine.train.train` raises, and CheckpointError for weights that do not fit.
    """
    world = World.from_environment()
    torch.manual_seed(config.rcnn_train.seed)
    model = build_rcnn(config, training.class_names)
    if weights is not None and not resume:
        tell(initialise(model, weights))
    rpn = rpn.to(world.device)

    def make_batches(first: int) -> Iterable[RoiBatch]:
        # A resumed run has its preprocessing, and so this colour, from its checkpoint.
        fill = mean_colour(model.preprocessing)
        return rcnn_loader(training, proposals, config, first, fill=fill, rank=world.rank, world_size=world.size)

    def evaluate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, LocRcnn)
        return _measure(rpn, [network], validation, config)

    return train(
        model,
        make_batches,
        config.rcnn_train,
        output_dir,
        metadata=loc_metadata(model, "loc_rcnn"),
        validation=Validation.on_main(evaluate, BEST_METRIC, METRICS[BEST_METRIC].higher_is_better),
        resume=resume,
        callbacks=callbacks,
    )


def _measure(rpn: LocRpn, rcnns: Sequence[LocRcnn], images: LocImages, config: LocConfig) -> dict[str, float]:
    found = localise_images([rpn], rcnns, images, centre_view(config), true_classes(images))
    return {BEST_METRIC: gt_class_error(images, found.final[:, 0])}


def _validation_batches(images: LocImages, config: LocConfig) -> Iterator[RpnBatch]:
    """The batches of `rpn_train.validation_losses` crops, drawn as in training. The same ones at each call."""
    train = config.rpn_train
    return islice(rpn_loader(images, config), -(-train.validation_losses // train.micro_batch))
